-- The request that made a project: when it comes again, because its reply was lost on the way, it finds what it made.
ALTER TABLE projects ADD COLUMN request UUID;
