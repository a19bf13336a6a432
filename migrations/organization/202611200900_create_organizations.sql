-- Tenants and who belongs to them. A name stands in URLs, so it is unique on the platform.
CREATE TABLE organizations (
    id UUID NOT NULL PRIMARY KEY,
    name TEXT NOT NULL CONSTRAINT organizations_name_key UNIQUE,
    display_name TEXT NOT NULL,
    -- The account whose registration made it; absent for one that was created.
    personal_of UUID CONSTRAINT organizations_personal_of_key UNIQUE,
    created_at TIMESTAMPTZ NOT NULL
);

CREATE TABLE members (
    organization_id UUID NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    user_id UUID NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('owner', 'admin', 'developer', 'viewer', 'billing')),
    -- The one a person acts for unless told otherwise.
    is_default BOOLEAN NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (organization_id, user_id)
);

-- For the list of a person's organizations, newest first.
CREATE UNIQUE INDEX members_user_idx ON members (user_id, organization_id);
CREATE UNIQUE INDEX members_default_key ON members (user_id) WHERE is_default;
