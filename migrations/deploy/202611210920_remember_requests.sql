-- The request that began a deployment: when it comes again, because its reply was lost on the way, it finds what it began.
ALTER TABLE deployments ADD COLUMN request UUID;
