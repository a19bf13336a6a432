-- The names of the steps as the program had them that began the saga or took it over last: a position tells nothing to a
-- version with other steps. Absent when that was a version which knew of no names.
ALTER TABLE sagas ADD COLUMN steps JSONB;
