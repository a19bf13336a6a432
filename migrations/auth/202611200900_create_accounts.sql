-- People, how they sign in, and what they hold afterwards. No column holds a secret in the clear: tokens and keys are
-- stored as SHA-256 in base64url, passwords as bcrypt, and the platform's own keys sealed by the master key.
CREATE TABLE accounts (
    id UUID NOT NULL PRIMARY KEY,
    -- Lower case.
    email TEXT NOT NULL CONSTRAINT accounts_email_key UNIQUE,
    name TEXT NOT NULL,
    -- Absent for the local operator, who can't sign in with a password.
    password_hash TEXT,
    administrator BOOLEAN NOT NULL,
    -- The account behind the command line on the node's own machine.
    operator BOOLEAN NOT NULL,
    -- The administrator who set the platform up: shares the operator's organization.
    founder BOOLEAN NOT NULL,
    created_at TIMESTAMPTZ NOT NULL
);

CREATE UNIQUE INDEX accounts_operator_key ON accounts (operator) WHERE operator;
CREATE UNIQUE INDEX accounts_founder_key ON accounts (founder) WHERE founder;

-- Permissions to register: invitations, and the one set-up token.
CREATE TABLE invitations (
    id UUID NOT NULL PRIMARY KEY,
    token_hash TEXT NOT NULL CONSTRAINT invitations_token_hash_key UNIQUE,
    -- Makes the first administrator.
    setup BOOLEAN NOT NULL,
    -- Only for this address, when given.
    email TEXT,
    created_by UUID,
    created_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL,
    spent_at TIMESTAMPTZ
);

-- One sign-in; the family of its refresh tokens.
CREATE TABLE sessions (
    id UUID NOT NULL PRIMARY KEY,
    account_id UUID NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    address TEXT,
    user_agent TEXT,
    created_at TIMESTAMPTZ NOT NULL,
    -- The last refresh.
    last_seen_at TIMESTAMPTZ NOT NULL,
    -- When its newest refresh token expires.
    expires_at TIMESTAMPTZ NOT NULL,
    revoked_at TIMESTAMPTZ
);

CREATE INDEX sessions_account_idx ON sessions (account_id, id);

CREATE TABLE refresh_tokens (
    token_hash TEXT NOT NULL PRIMARY KEY,
    session_id UUID NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    expires_at TIMESTAMPTZ NOT NULL,
    -- When it was exchanged for its successor.
    spent_at TIMESTAMPTZ
);

CREATE INDEX refresh_tokens_session_idx ON refresh_tokens (session_id);

CREATE TABLE api_keys (
    id UUID NOT NULL PRIMARY KEY,
    account_id UUID NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    organization_id UUID NOT NULL,
    name TEXT NOT NULL,
    prefix TEXT NOT NULL CONSTRAINT api_keys_prefix_key UNIQUE,
    secret_hash TEXT NOT NULL,
    scopes JSONB NOT NULL,
    -- Made by the node for the command line on its own machine.
    local BOOLEAN NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ,
    last_used_at TIMESTAMPTZ,
    revoked_at TIMESTAMPTZ
);

CREATE INDEX api_keys_account_idx ON api_keys (account_id, organization_id, id);

-- Keys that sign access tokens. The one in use is `active`; one that was replaced is served until the last token it
-- signed has expired.
CREATE TABLE signing_keys (
    kid TEXT NOT NULL PRIMARY KEY,
    active BOOLEAN NOT NULL,
    -- The data key, wrapped by the master key, and the PKCS#8 private key sealed with it.
    wrapped_key BYTEA NOT NULL,
    sealed_private_key BYTEA NOT NULL,
    -- Base64url, as RFC 7518 has them.
    modulus TEXT NOT NULL,
    exponent TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    retired_at TIMESTAMPTZ
);

CREATE UNIQUE INDEX signing_keys_active_key ON signing_keys (active) WHERE active;

-- Symmetric keys of the domain, by what they are for.
CREATE TABLE server_keys (
    purpose TEXT NOT NULL PRIMARY KEY,
    wrapped_key BYTEA NOT NULL,
    sealed_key BYTEA NOT NULL,
    created_at TIMESTAMPTZ NOT NULL
);

-- Failed sign-ins per account and address, whether or not there is such an account.
CREATE TABLE login_failures (
    email TEXT NOT NULL,
    address TEXT NOT NULL,
    failures BIGINT NOT NULL,
    last_failed_at TIMESTAMPTZ NOT NULL,
    -- No attempt is heard before.
    locked_until TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (email, address)
);

CREATE INDEX login_failures_last_failed_idx ON login_failures (last_failed_at);
