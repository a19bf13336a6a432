-- Set when its deletion has begun: from then on nobody acts for it, and it is only finished.
ALTER TABLE organizations ADD COLUMN deleting_at TIMESTAMPTZ;
CREATE INDEX organizations_deleting_idx ON organizations (deleting_at) WHERE deleting_at IS NOT NULL;
