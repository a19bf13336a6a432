-- What was answered to a request, so that it has its effect once. A row is written in the transaction of the effect.
CREATE TABLE requests (
    -- A hash of the request, who asked, the tenant and the operation.
    id BYTEA NOT NULL PRIMARY KEY,
    -- Sealed under another hash of these. Absent only within the transaction.
    reply BYTEA,
    created_at TIMESTAMPTZ NOT NULL
);

CREATE INDEX requests_created_idx ON requests (created_at);
