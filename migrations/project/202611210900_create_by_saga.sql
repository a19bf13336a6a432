-- A project that is still being created is there for nobody but its saga. Nodes of the version before make projects
-- that are whole at once, which is the default.
ALTER TABLE projects ADD COLUMN creating BOOLEAN NOT NULL DEFAULT FALSE;
