-- The request that made an organization: when it comes again, because its reply was lost on the way, it finds what it made.
ALTER TABLE organizations ADD COLUMN request UUID;
CREATE UNIQUE INDEX organizations_request_key ON organizations (request);
