-- Projects, their environments and their keys. A name is also a host name, so it is unique on the platform.
CREATE TABLE projects (
    id UUID NOT NULL PRIMARY KEY,
    organization_id UUID NOT NULL,
    name TEXT NOT NULL CONSTRAINT projects_name_key UNIQUE,
    description TEXT NOT NULL,
    version BIGINT NOT NULL,
    -- The newest version of its environment; 0 while it never had a variable.
    environment_version BIGINT NOT NULL,
    -- The build configuration; absent while it is the default.
    build JSONB,
    -- Set when its deletion has begun: from then on it is only finished.
    deleting_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL
);

CREATE INDEX projects_organization_idx ON projects (organization_id, id);
CREATE INDEX projects_deleting_idx ON projects (deleting_at) WHERE deleting_at IS NOT NULL;

-- A variable from one version of the environment on, until the next row of the same name. A row is never changed, so
-- that every version stays readable for a rollback.
CREATE TABLE variables (
    project_id UUID NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    version BIGINT NOT NULL,
    -- Of a variable that is no secret.
    plain TEXT,
    -- Of a secret: sealed under the project's data key.
    sealed BYTEA,
    -- Neither: the variable was removed at this version.
    secret BOOLEAN NOT NULL,
    -- Bytes of the opened value.
    size BIGINT NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (project_id, name, version)
);

-- A project's data key, wrapped by the master key; made with its first secret.
CREATE TABLE data_keys (
    project_id UUID NOT NULL PRIMARY KEY REFERENCES projects (id) ON DELETE CASCADE,
    wrapped BYTEA NOT NULL,
    created_at TIMESTAMPTZ NOT NULL
);
