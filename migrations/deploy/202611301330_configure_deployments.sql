-- What a deployment is built and run by, before the project's build configuration.
ALTER TABLE deployments ADD COLUMN config JSONB;
