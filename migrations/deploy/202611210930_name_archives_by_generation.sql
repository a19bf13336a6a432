-- Where the releases of one content have their archive. The row outlives the archive, so that the name of an object that
-- was let go is never given again: who removes it, however late, removes nothing else.
CREATE TABLE archives (
    digest TEXT NOT NULL PRIMARY KEY,
    -- Grows when no release needs the archive any more. 0, and no row, stand for the object releases/<digest>.tar.gz,
    -- the only one that an earlier version knows; a higher number is part of the name.
    generation BIGINT NOT NULL,
    -- The objects of lower generations are gone.
    swept BIGINT NOT NULL
);

CREATE INDEX archives_unswept_idx ON archives (digest) WHERE swept < generation;

-- An upload on its way out: no deployment may begin with it.
ALTER TABLE sources ADD COLUMN forgotten BOOLEAN NOT NULL DEFAULT FALSE;
