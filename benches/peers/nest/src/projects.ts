import { Injectable } from '@nestjs/common';
import pg from 'pg';
import { databaseUrl } from './settings.js';

/** The statement of Callboard's own `project.get`, prepared once on each connection. */
const GET = {
  name: 'get_project',
  text: `SELECT id, organization_id, name, description, version, created_at, updated_at
         FROM project.projects WHERE id = $1 AND organization_id = $2`,
};

@Injectable()
export class Projects {
  private readonly pool = new pg.Pool({ connectionString: databaseUrl(), max: 16 });

  async get(id: string, organization: string): Promise<unknown> {
    const { rows } = await this.pool.query({ ...GET, values: [id, organization] });
    return rows[0] ?? null;
  }
}
