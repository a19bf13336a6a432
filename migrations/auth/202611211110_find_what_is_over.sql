-- For those who prune.
CREATE INDEX sessions_expires_idx ON sessions (expires_at);
CREATE INDEX refresh_tokens_expires_idx ON refresh_tokens (expires_at);
CREATE INDEX invitations_expires_idx ON invitations (expires_at);
CREATE INDEX api_keys_expires_idx ON api_keys (expires_at);
CREATE INDEX api_keys_revoked_idx ON api_keys (revoked_at);
