-- How many credentials were revoked, for those who remember verified ones: raised in the transaction that revokes.
CREATE TABLE revocation_count (
    id BIGINT NOT NULL PRIMARY KEY CONSTRAINT revocation_count_one CHECK (id = 1),
    -- At least the time of the last revocation in microseconds, so that a restored backup repeats no number.
    count BIGINT NOT NULL
);

INSERT INTO revocation_count (id, count) VALUES (1, 0);
