-- The ledger, in the logical schema of store/sqlite/migrations. Facts are only ever added; a lease's end is written
-- once. Hashes are 32 bytes, times are milliseconds since the Unix epoch, enumerations are the words of the Rust types.

-- One row. Every transaction that writes raises `commits` under its generation: a transaction whose end was not heard is
-- known by its number.
CREATE TABLE run (
    only_row         BIGINT PRIMARY KEY CHECK (only_row = 1),
    run_id           BYTEA  NOT NULL,
    spec_json        TEXT   NOT NULL,
    manifest_hash    BYTEA  NOT NULL,
    generation       BIGINT NOT NULL,
    commits          BIGINT NOT NULL DEFAULT 0,
    -- SHA-256 of the coordinator's public key, which all devices pin.
    coordinator_key  BYTEA
);

CREATE TABLE counters (
    only_row    BIGINT PRIMARY KEY CHECK (only_row = 1),
    bytes_up    BIGINT NOT NULL,
    bytes_down  BIGINT NOT NULL
);
INSERT INTO counters VALUES (1, 0, 0);

CREATE TABLE devices (
    id            BYTEA  PRIMARY KEY,
    name          TEXT   NOT NULL,
    device        TEXT   NOT NULL,
    role          BIGINT NOT NULL,
    invite_nonce  BYTEA  NOT NULL,
    enrolled_at   BIGINT NOT NULL,
    tokens_per_s  DOUBLE PRECISION NOT NULL,
    has_left      BIGINT NOT NULL
);

CREATE TABLE leases (
    id            BIGINT PRIMARY KEY,
    generation    BIGINT NOT NULL,
    device        BYTEA  NOT NULL REFERENCES devices (id),
    kind          TEXT   NOT NULL,
    base_version  BIGINT NOT NULL,
    epoch         BIGINT NOT NULL,
    shard         BIGINT NOT NULL,
    first_sample  BIGINT NOT NULL,
    samples       BIGINT NOT NULL,
    steps         BIGINT NOT NULL,
    issued_at     BIGINT NOT NULL,
    -- Null while the lease is open.
    outcome       TEXT,
    samples_used  BIGINT NOT NULL DEFAULT 0,
    closed_at     BIGINT
);
-- A device holds one lease at most, and a restart finds the open ones without reading the others.
CREATE UNIQUE INDEX leases_open ON leases (device) WHERE outcome IS NULL;
CREATE INDEX leases_by_epoch ON leases (epoch, outcome, samples_used) WHERE kind = 'train';

-- The lease is unique: no delta is merged twice.
CREATE TABLE deltas (
    seq         BIGINT PRIMARY KEY,
    lease       BIGINT NOT NULL UNIQUE REFERENCES leases (id),
    device      BYTEA  NOT NULL REFERENCES devices (id),
    blob        BYTEA  NOT NULL,
    bytes       BIGINT NOT NULL,
    steps       BIGINT NOT NULL,
    tokens      BIGINT NOT NULL,
    staleness   BIGINT NOT NULL,
    weight      DOUBLE PRECISION NOT NULL,
    norm        DOUBLE PRECISION NOT NULL,
    train_ms    BIGINT NOT NULL,
    wall_ms     BIGINT NOT NULL,
    loss_first  DOUBLE PRECISION NOT NULL,
    loss_last   DOUBLE PRECISION NOT NULL,
    merged_at   BIGINT NOT NULL
);
CREATE INDEX deltas_by_device ON deltas (device, lease, tokens);

CREATE TABLE versions (
    version         BIGINT PRIMARY KEY,
    update_hash     BYTEA,
    update_bytes    BIGINT,
    keyframe_hash   BYTEA,
    keyframe_bytes  BIGINT,
    digest          BYTEA  NOT NULL,
    through_seq     BIGINT NOT NULL,
    published_at    BIGINT NOT NULL
);

CREATE TABLE evaluations (
    lease        BIGINT PRIMARY KEY REFERENCES leases (id),
    version      BIGINT NOT NULL,
    nats         DOUBLE PRECISION NOT NULL,
    tokens       BIGINT NOT NULL,
    text_bytes   BIGINT NOT NULL,
    measured_at  BIGINT NOT NULL
);

-- Several updates in one: the change from an earlier version to a published one.
CREATE TABLE squashes (
    version       BIGINT NOT NULL REFERENCES versions (version),
    from_version  BIGINT NOT NULL CHECK (from_version < version),
    hash          BYTEA  NOT NULL,
    bytes         BIGINT NOT NULL,
    PRIMARY KEY (version, from_version)
);

-- Versions from which merging began anew, because blobs that led there were lost: the weights are those that were
-- published, error feedback and momenta are zero.
CREATE TABLE restarts (
    version  BIGINT PRIMARY KEY REFERENCES versions (version)
);

-- Deltas whose blobs were lost before a version was made of them: they are passed over.
CREATE TABLE lost_deltas (
    seq  BIGINT PRIMARY KEY REFERENCES deltas (seq)
);
