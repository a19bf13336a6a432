-- Grows when the build caches of the app are cleared: those of former generations are used by no build of any node.
ALTER TABLE apps ADD COLUMN cache_generation BIGINT NOT NULL DEFAULT 0;
