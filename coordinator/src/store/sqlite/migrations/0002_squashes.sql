-- Several updates in one: the change from an earlier version to a published one.
CREATE TABLE squashes (
    version       INTEGER NOT NULL REFERENCES versions (version),
    from_version  INTEGER NOT NULL CHECK (from_version < version),
    hash          BLOB    NOT NULL,
    bytes         INTEGER NOT NULL,
    PRIMARY KEY (version, from_version)
) STRICT, WITHOUT ROWID;
