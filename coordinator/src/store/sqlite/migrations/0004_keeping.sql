-- The chain of checkpoints: one row a link, which is never changed. It names a checkpoint by the BLAKE3 of its bytes, the
-- rows of deltas and versions since the link before by theirs, and that link.
CREATE TABLE checkpoint_links (
    version      INTEGER PRIMARY KEY REFERENCES versions (version),
    through_seq  INTEGER NOT NULL,
    tokens       INTEGER NOT NULL,
    checkpoint   BLOB    NOT NULL,
    rows_hash    BLOB    NOT NULL,
    hash         BLOB    NOT NULL
) STRICT;

-- One row: what the rule [keep] has given up, and what of that is removed. It is written before a blob goes.
CREATE TABLE kept (
    only_row          INTEGER PRIMARY KEY CHECK (only_row = 1),
    first_version     INTEGER NOT NULL,
    after_seq         INTEGER NOT NULL,
    last_lease        INTEGER NOT NULL,
    removed_versions  INTEGER NOT NULL CHECK (removed_versions <= first_version),
    removed_deltas    INTEGER NOT NULL CHECK (removed_deltas <= after_seq)
) STRICT;
INSERT INTO kept VALUES (1, 0, 0, 0, 0, 0);
