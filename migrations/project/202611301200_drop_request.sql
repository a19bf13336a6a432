-- A repeated request is answered from the table `requests`.
ALTER TABLE projects DROP COLUMN request;
