-- Names everything that a build depends on: what has the same is not built again. Absent for releases of earlier versions.
ALTER TABLE releases ADD COLUMN build_key TEXT;

CREATE INDEX releases_build_key_idx ON releases (project_id, build_key) WHERE kept;

-- Whether it is built though a release of the same source and configuration is there.
ALTER TABLE deployments ADD COLUMN rebuild BOOLEAN NOT NULL DEFAULT FALSE;
