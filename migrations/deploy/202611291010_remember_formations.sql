-- How many instances are wanted of process types that the release that serves lacks: a release that has them runs them.
ALTER TABLE apps ADD COLUMN missing JSONB;
-- What was wanted of a release when another took its place: a rollback to it runs the same.
ALTER TABLE releases ADD COLUMN formation JSONB;
-- Whether its release may lack a process type that runs.
ALTER TABLE deployments ADD COLUMN allow_missing BOOLEAN NOT NULL DEFAULT FALSE;
