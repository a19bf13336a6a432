-- The request that made a key or an invitation: when it comes again, because its reply was lost on the way, what it made
-- before gives way, since nobody can be shown its secret any more.
ALTER TABLE api_keys ADD COLUMN request UUID;
ALTER TABLE invitations ADD COLUMN request UUID;
CREATE UNIQUE INDEX api_keys_request_key ON api_keys (request);
CREATE UNIQUE INDEX invitations_request_key ON invitations (request);
