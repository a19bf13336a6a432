-- An uploaded archive; its bytes are in the object store under sources/<id>.
CREATE TABLE sources (
    id UUID NOT NULL PRIMARY KEY,
    project_id UUID NOT NULL,
    organization_id UUID NOT NULL,
    size BIGINT NOT NULL,
    sha256 TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL
);

CREATE INDEX sources_project_idx ON sources (project_id, id);

-- What a project runs, and what it shall run. There is a row from its first deployment on.
CREATE TABLE apps (
    project_id UUID NOT NULL PRIMARY KEY,
    organization_id UUID NOT NULL,
    name TEXT NOT NULL,
    -- What serves: the release, its environment's version, and the deployment that brought it into service.
    release_id UUID,
    environment_version BIGINT NOT NULL,
    deployment_id UUID,
    -- Instances wanted by process type; absent until the first release is known.
    formation JSONB,
    -- running, stopped (the formation is kept for the next start), or removed (on its way out).
    state TEXT NOT NULL,
    -- Grows with every change of the row.
    revision BIGINT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL
);

CREATE TABLE releases (
    id UUID NOT NULL PRIMARY KEY,
    project_id UUID NOT NULL,
    version BIGINT NOT NULL,
    -- Of the archive in the object store, releases/<digest>.tar.gz.
    digest TEXT NOT NULL,
    language TEXT NOT NULL,
    -- Command by process type.
    processes JSONB NOT NULL,
    -- What every instance finds in its environment besides the owner's variables.
    environment JSONB NOT NULL,
    -- The build configuration it was made with: health check, memory.
    build JSONB NOT NULL,
    environment_version BIGINT NOT NULL,
    deployment_id UUID NOT NULL,
    commit_hash TEXT,
    -- Whether the archive is still kept.
    kept BOOLEAN NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    CONSTRAINT releases_project_id_version_key UNIQUE (project_id, version)
);

CREATE INDEX releases_digest_idx ON releases (digest) WHERE kept;

CREATE TABLE deployments (
    id UUID NOT NULL PRIMARY KEY,
    project_id UUID NOT NULL,
    organization_id UUID NOT NULL,
    kind TEXT NOT NULL,
    status TEXT NOT NULL,
    error TEXT,
    -- Absent for a rollback and a restart.
    source JSONB,
    -- What it brings into service, once that is known.
    release_id UUID,
    environment_version BIGINT,
    commit_hash TEXT,
    -- How often a builder took it: more than once only when the node went down meanwhile.
    attempts BIGINT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    finished_at TIMESTAMPTZ
);

CREATE INDEX deployments_project_idx ON deployments (project_id, id);

-- One at a time for each project: the database decides.
CREATE UNIQUE INDEX deployments_running_key ON deployments (project_id)
    WHERE status IN ('queued', 'building', 'rolling');

CREATE INDEX deployments_status_idx ON deployments (status, id) WHERE status IN ('queued', 'building', 'rolling');
