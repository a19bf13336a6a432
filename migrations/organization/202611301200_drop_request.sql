-- A repeated request is answered from the table `requests`.
DROP INDEX organizations_request_key;
ALTER TABLE organizations DROP COLUMN request;
