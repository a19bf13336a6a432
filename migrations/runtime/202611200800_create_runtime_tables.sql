-- What the runtime keeps in each domain's own database, so that it is one transaction with the domain's rows.

-- Events that this domain has made true. A row is written in the transaction of the fact and published afterwards.
CREATE TABLE outbox (
    id UUID NOT NULL PRIMARY KEY,
    -- What the event is about. Events of one aggregate are published in the order of their positions, one at a time.
    aggregate UUID NOT NULL,
    position BIGINT NOT NULL,
    type TEXT NOT NULL,
    -- The whole of it, as CloudEvents 1.0 has it.
    event JSONB NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    -- Why it could not be published so far, for an operator.
    trouble TEXT,
    published_at TIMESTAMPTZ,
    CONSTRAINT outbox_aggregate_position_key UNIQUE (aggregate, position)
);

CREATE INDEX outbox_pending_idx ON outbox (aggregate, position) WHERE published_at IS NULL;
CREATE INDEX outbox_published_idx ON outbox (published_at) WHERE published_at IS NOT NULL;

-- Events that this domain has applied. A row is written in the transaction of the effect.
CREATE TABLE inbox (
    event_id UUID NOT NULL PRIMARY KEY,
    type TEXT NOT NULL,
    applied_at TIMESTAMPTZ NOT NULL
);

CREATE INDEX inbox_applied_idx ON inbox (applied_at);

-- Who may act. Nobody's clock is compared with another's: a contender takes a lease over when it has itself seen the
-- same token and beat for as long as the lease lives.
CREATE TABLE leases (
    name TEXT NOT NULL PRIMARY KEY,
    -- Absent when it was given back.
    holder UUID,
    -- Grows with every holder: what an earlier one still writes is refused by it.
    token BIGINT NOT NULL,
    -- Grows with every renewal.
    beat BIGINT NOT NULL,
    -- How long it lives without one, in milliseconds.
    ttl BIGINT NOT NULL
);

-- The log of the sagas. The row is its saga's lease as well.
CREATE TABLE sagas (
    id UUID NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    -- What the steps work with, as the last of them left it.
    state JSONB NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('running', 'undoing', 'done', 'undone', 'stuck')),
    -- How many steps have been done, and not undone.
    position BIGINT NOT NULL,
    -- Whether the step at `position` may have been carried out, in part or whole.
    in_doubt BOOLEAN NOT NULL,
    -- Why it is being undone; absent while it goes forward.
    refusal JSONB,
    -- What went wrong last, for an operator.
    trouble TEXT,
    -- Who began it.
    caller JSONB NOT NULL,
    holder UUID,
    token BIGINT NOT NULL,
    beat BIGINT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL
);

CREATE INDEX sagas_open_idx ON sagas (id) WHERE status IN ('running', 'undoing', 'stuck');
CREATE INDEX sagas_ended_idx ON sagas (updated_at) WHERE status IN ('done', 'undone');

-- The last slot of each schedule that was carried out.
CREATE TABLE schedules (
    name TEXT NOT NULL PRIMARY KEY,
    slot TIMESTAMPTZ NOT NULL
);
