-- For the list of an organization's apps, newest first.
CREATE INDEX apps_organization_idx ON apps (organization_id, project_id);
