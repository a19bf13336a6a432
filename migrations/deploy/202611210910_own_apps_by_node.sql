-- The node that runs an app; absent while nothing of it runs.
ALTER TABLE apps ADD COLUMN owner_node UUID;
-- Grows with every change of owner: whoever writes in an owner's name names its token too, and so is fenced off once
-- it is no longer the owner.
ALTER TABLE apps ADD COLUMN owner_token BIGINT NOT NULL DEFAULT 0;
-- The owner stops: another node, the heir, may start the app and then take it over.
ALTER TABLE apps ADD COLUMN offered BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE apps ADD COLUMN heir_node UUID;

-- The node that builds it. With the number of the attempt it is what fences builders.
ALTER TABLE deployments ADD COLUMN builder_node UUID;

-- Apps that are gone for good: a message that was delayed on its way must not bring one back.
CREATE TABLE removed_apps (
    project_id UUID NOT NULL PRIMARY KEY,
    removed_at TIMESTAMPTZ NOT NULL
);
