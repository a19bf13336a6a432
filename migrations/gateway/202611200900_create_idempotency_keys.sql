-- Answers of requests that carried an Idempotency-Key. The key itself is never stored, only its hash with the caller
-- and the route; the answer is sealed under a key that derives from it, so that this table alone tells nothing.
CREATE TABLE idempotency_keys (
    id BYTEA NOT NULL PRIMARY KEY,
    -- Of the request: path and body. Another request under the same key is refused.
    fingerprint BYTEA NOT NULL,
    -- Who works on it; a place that a crash left is taken over when its lease has run out.
    owner UUID NOT NULL,
    lease_until TIMESTAMPTZ NOT NULL,
    -- Absent while the request runs.
    answer BYTEA,
    expires_at TIMESTAMPTZ NOT NULL
);

CREATE INDEX idempotency_keys_expires_idx ON idempotency_keys (expires_at);
