import 'reflect-metadata';
import { Controller, Get, Module, NotFoundException, Param, Req, UseGuards } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { Projects } from './projects.js';
import { port } from './settings.js';
import { type Claims, TokenGuard } from './token.js';

@Controller('api/v1/projects')
@UseGuards(TokenGuard)
class ProjectController {
  constructor(private readonly projects: Projects) {}

  @Get(':id')
  async get(@Param('id') id: string, @Req() request: { claims: Claims }): Promise<unknown> {
    const project = await this.projects.get(id, request.claims.org);
    if (project === null) throw new NotFoundException();
    return project;
  }
}

@Module({ controllers: [ProjectController], providers: [Projects, TokenGuard] })
class Monolith {}

const app = await NestFactory.create(Monolith, { logger: ['error', 'warn'] });
await app.listen(port(), '127.0.0.1');
