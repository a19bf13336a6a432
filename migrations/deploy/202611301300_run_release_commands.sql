-- What runs once before a release is rolled out; absent where there is nothing to run.
ALTER TABLE releases ADD COLUMN release_command JSONB;
-- How often it was begun for this deployment: more than once only when the node that ran it went down or stopped.
ALTER TABLE deployments ADD COLUMN release_runs BIGINT NOT NULL DEFAULT 0;
-- Whether it has succeeded: it does not run again for this deployment, whoever carries the rollout on.
ALTER TABLE deployments ADD COLUMN released BOOLEAN NOT NULL DEFAULT FALSE;
