-- A repeated request is answered from the table `requests`.
ALTER TABLE deployments DROP COLUMN request;
