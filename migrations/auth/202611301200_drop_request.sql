-- A repeated request is answered from the table `requests`.
DROP INDEX api_keys_request_key;
DROP INDEX invitations_request_key;
ALTER TABLE api_keys DROP COLUMN request;
ALTER TABLE invitations DROP COLUMN request;
