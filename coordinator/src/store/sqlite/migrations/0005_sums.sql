-- What a start would otherwise work out of all rows: sums over the deltas up to one. They are no facts, but a cache of
-- them: without this row, or where its hashes do not fit, all are made anew.
CREATE TABLE sums (
    only_row       INTEGER PRIMARY KEY CHECK (only_row = 1),
    through_seq    INTEGER NOT NULL,
    through_lease  INTEGER NOT NULL,
    -- Versions below this number are in version_sums.
    versions       INTEGER NOT NULL,
    tokens         INTEGER NOT NULL,
    -- The sum of the hashes of all rows of device_sums and epoch_sums; and a hash over this row.
    rows_hash      BLOB    NOT NULL,
    digest         BLOB    NOT NULL
) STRICT;

CREATE TABLE device_sums (
    device           BLOB    PRIMARY KEY,
    tokens           INTEGER NOT NULL,
    merged           INTEGER NOT NULL,
    last_lease       INTEGER NOT NULL,
    last_generation  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE epoch_sums (
    epoch    INTEGER PRIMARY KEY,
    samples  INTEGER NOT NULL,
    -- Merged ranges: shard, first sample and number of samples, each in 4 bytes; none where these are all samples.
    merged   BLOB    NOT NULL
) STRICT;

-- Tokens merged into each version, with all before it.
CREATE TABLE version_sums (
    version  INTEGER PRIMARY KEY,
    tokens   INTEGER NOT NULL
) STRICT;

-- Refusals since a device's last merged delta.
CREATE INDEX leases_screened ON leases (device, id) WHERE outcome = 'screened_out';
CREATE INDEX evaluations_by_version ON evaluations (version);

-- Whose a blob is; and names that cannot be read, of which there should be none.
CREATE INDEX deltas_by_blob ON deltas (substr(blob, 1, 8));
CREATE INDEX versions_by_update ON versions (substr(update_hash, 1, 8)) WHERE update_hash IS NOT NULL;
CREATE INDEX versions_by_keyframe ON versions (substr(keyframe_hash, 1, 8)) WHERE keyframe_hash IS NOT NULL;
CREATE INDEX squashes_by_blob ON squashes (substr(hash, 1, 8));
CREATE INDEX deltas_nameless ON deltas (seq) WHERE length(blob) <> 32;
CREATE INDEX versions_nameless ON versions (version) WHERE length(update_hash) <> 32 OR length(keyframe_hash) <> 32;
CREATE INDEX squashes_nameless ON squashes (version) WHERE length(hash) <> 32;

-- The sums take its place.
DROP INDEX leases_by_epoch;
