-- Whether it is an event of the cluster, or the text of what was none: that goes first when there are too many. Older
-- nodes do not tell, and lose nothing by it.
ALTER TABLE dead_letters ADD COLUMN is_event BOOLEAN NOT NULL DEFAULT TRUE;
