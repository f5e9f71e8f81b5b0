-- SHA-256 of the coordinator's public key, which all devices pin. Null in an older ledger, until its next start.
ALTER TABLE run ADD COLUMN coordinator_key BLOB;

-- Versions from which merging began anew, because blobs that led there were lost: the weights are those that were published,
-- error feedback and momenta are zero.
CREATE TABLE restarts (
    version  INTEGER PRIMARY KEY REFERENCES versions (version)
) STRICT;

-- Deltas whose blobs were lost before a version was made of them: they are passed over.
CREATE TABLE lost_deltas (
    seq  INTEGER PRIMARY KEY REFERENCES deltas (seq)
) STRICT;
