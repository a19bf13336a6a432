-- Each node issues a set-up link and a key for the command line on its own machine; those of the others stay valid.
-- Absent in rows of a platform that had one node.
ALTER TABLE invitations ADD COLUMN node UUID;
ALTER TABLE api_keys ADD COLUMN node UUID;
