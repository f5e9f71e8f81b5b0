-- The ledger. Facts are only ever added; a lease's end is written once. Hashes are 32-byte blobs, times are milliseconds
-- since the Unix epoch, enumerations are the words of the Rust types.

-- One row. Every transaction is conditional on the generation.
CREATE TABLE run (
    only_row       INTEGER PRIMARY KEY CHECK (only_row = 1),
    run_id         BLOB    NOT NULL,
    spec_json      TEXT    NOT NULL,
    manifest_hash  BLOB    NOT NULL,
    generation     INTEGER NOT NULL
) STRICT;

CREATE TABLE counters (
    only_row    INTEGER PRIMARY KEY CHECK (only_row = 1),
    bytes_up    INTEGER NOT NULL,
    bytes_down  INTEGER NOT NULL
) STRICT;
INSERT INTO counters VALUES (1, 0, 0);

CREATE TABLE devices (
    id            BLOB    PRIMARY KEY,
    name          TEXT    NOT NULL,
    device        TEXT    NOT NULL,
    role          INTEGER NOT NULL,
    invite_nonce  BLOB    NOT NULL,
    enrolled_at   INTEGER NOT NULL,
    tokens_per_s  REAL    NOT NULL,
    has_left      INTEGER NOT NULL
) STRICT;

CREATE TABLE leases (
    id            INTEGER PRIMARY KEY,
    generation    INTEGER NOT NULL,
    device        BLOB    NOT NULL REFERENCES devices (id),
    kind          TEXT    NOT NULL,
    base_version  INTEGER NOT NULL,
    epoch         INTEGER NOT NULL,
    shard         INTEGER NOT NULL,
    first_sample  INTEGER NOT NULL,
    samples       INTEGER NOT NULL,
    steps         INTEGER NOT NULL,
    issued_at     INTEGER NOT NULL,
    -- Null while the lease is open.
    outcome       TEXT,
    samples_used  INTEGER NOT NULL DEFAULT 0,
    closed_at     INTEGER
) STRICT;
-- A device holds one lease at most, and a restart finds the open ones without reading the others.
CREATE UNIQUE INDEX leases_open ON leases (device) WHERE outcome IS NULL;
CREATE INDEX leases_by_epoch ON leases (epoch, outcome, samples_used) WHERE kind = 'train';

-- The lease is unique: no delta is merged twice.
CREATE TABLE deltas (
    seq         INTEGER PRIMARY KEY,
    lease       INTEGER NOT NULL UNIQUE REFERENCES leases (id),
    device      BLOB    NOT NULL REFERENCES devices (id),
    blob        BLOB    NOT NULL,
    bytes       INTEGER NOT NULL,
    steps       INTEGER NOT NULL,
    tokens      INTEGER NOT NULL,
    staleness   INTEGER NOT NULL,
    weight      REAL    NOT NULL,
    norm        REAL    NOT NULL,
    train_ms    INTEGER NOT NULL,
    wall_ms     INTEGER NOT NULL,
    loss_first  REAL    NOT NULL,
    loss_last   REAL    NOT NULL,
    merged_at   INTEGER NOT NULL
) STRICT;
CREATE INDEX deltas_by_device ON deltas (device, lease, tokens);

CREATE TABLE versions (
    version         INTEGER PRIMARY KEY,
    update_hash     BLOB,
    update_bytes    INTEGER,
    keyframe_hash   BLOB,
    keyframe_bytes  INTEGER,
    digest          BLOB    NOT NULL,
    through_seq     INTEGER NOT NULL,
    published_at    INTEGER NOT NULL
) STRICT;

CREATE TABLE evaluations (
    lease        INTEGER PRIMARY KEY REFERENCES leases (id),
    version      INTEGER NOT NULL,
    nats         REAL    NOT NULL,
    tokens       INTEGER NOT NULL,
    text_bytes   INTEGER NOT NULL,
    measured_at  INTEGER NOT NULL
) STRICT;
