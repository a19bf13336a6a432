-- The process that renews a node's row: of two that have one id, the other one sees that the id is taken. Of a node of a
-- version before, nothing.
ALTER TABLE nodes ADD COLUMN process UUID;

-- What every node of the cluster must have in common, in a form that discloses no secret: whoever differs does not start.
CREATE TABLE fingerprints (
    part TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    recorded_at TIMESTAMPTZ NOT NULL
);
