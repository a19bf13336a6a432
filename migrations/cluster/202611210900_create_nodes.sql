-- The nodes. Liveness is a counter that its node raises: an observer measures on its own monotonic clock how long it
-- has stood still. The times are for people.
CREATE TABLE nodes (
    id UUID PRIMARY KEY,
    name TEXT NOT NULL,
    -- Where other nodes reach its listener.
    address TEXT NOT NULL,
    domains JSONB NOT NULL,
    version TEXT NOT NULL,
    state TEXT NOT NULL CONSTRAINT nodes_state_check CHECK (state IN ('up', 'draining', 'gone')),
    -- Raised with each renewal.
    beat BIGINT NOT NULL,
    -- Raised when it joins and when it is declared gone: whoever holds an older one is fenced.
    incarnation BIGINT NOT NULL,
    joined_at TIMESTAMPTZ NOT NULL,
    changed_at TIMESTAMPTZ NOT NULL
);

-- Events that a subscriber could not apply.
CREATE TABLE dead_letters (
    -- UUIDv7: the order in which they were buried.
    id UUID PRIMARY KEY,
    -- The same however often one subscriber's failure with one event is told.
    burial UUID NOT NULL CONSTRAINT dead_letters_burial_key UNIQUE,
    -- How often it was told: a replay that fails again must not lose the letter.
    burials BIGINT NOT NULL,
    domain TEXT NOT NULL,
    event JSONB NOT NULL,
    error TEXT NOT NULL,
    attempts BIGINT NOT NULL,
    died_at TIMESTAMPTZ NOT NULL
);

CREATE INDEX dead_letters_of_domain ON dead_letters (domain, id);
