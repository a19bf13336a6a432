-- How often a node went down while it built this. The number of the attempt does not tell: a node that stops as it should
-- puts its builds back into the queue as well.
ALTER TABLE deployments ADD COLUMN crashes BIGINT NOT NULL DEFAULT 0;
