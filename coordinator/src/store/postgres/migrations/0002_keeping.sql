-- The chain of checkpoints: one row a link, which is never changed. It names a checkpoint by the BLAKE3 of its bytes, the
-- rows of deltas and versions since the link before by theirs, and that link.
CREATE TABLE checkpoint_links (
    version      BIGINT PRIMARY KEY REFERENCES versions (version),
    through_seq  BIGINT NOT NULL,
    tokens       BIGINT NOT NULL,
    checkpoint   BYTEA   NOT NULL,
    rows_hash    BYTEA   NOT NULL,
    hash         BYTEA   NOT NULL
);

-- One row: what the rule [keep] has given up, and what of that is removed. It is written before a blob goes.
CREATE TABLE kept (
    only_row          BIGINT PRIMARY KEY CHECK (only_row = 1),
    first_version     BIGINT NOT NULL,
    after_seq         BIGINT NOT NULL,
    last_lease        BIGINT NOT NULL,
    removed_versions  BIGINT NOT NULL CHECK (removed_versions <= first_version),
    removed_deltas    BIGINT NOT NULL CHECK (removed_deltas <= after_seq)
);
INSERT INTO kept VALUES (1, 0, 0, 0, 0, 0);
