-- What operators ordered: since when the run is paused, and how long it goes on where that is longer than its file says.
ALTER TABLE run ADD COLUMN paused_at INTEGER;
ALTER TABLE run ADD COLUMN token_budget INTEGER;

-- Devices that are no part of the run any more. What was merged of them stays.
CREATE TABLE revoked_devices (
    device      BLOB    PRIMARY KEY REFERENCES devices (id),
    revoked_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Invites with which nobody enrols any more, whether they are known or not.
CREATE TABLE revoked_invites (
    nonce       BLOB    PRIMARY KEY,
    revoked_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The tables below are the operators' desk: writing them depends on no generation.

-- Invites as they were issued. One of an older version, or issued elsewhere, is known by its devices alone.
CREATE TABLE invites (
    nonce        BLOB    PRIMARY KEY,
    role         INTEGER NOT NULL,
    devices_max  INTEGER NOT NULL,
    -- Null: never.
    expires_at   INTEGER,
    issued_at    INTEGER NOT NULL,
    issued_by    TEXT    NOT NULL
) STRICT;
CREATE INDEX devices_by_invite ON devices (invite_nonce, has_left);

-- Tokens of the HTTP API: BLAKE3 of each, never itself.
CREATE TABLE tokens (
    name        TEXT    PRIMARY KEY,
    role        TEXT    NOT NULL,
    hash        BLOB    NOT NULL UNIQUE,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER,
    used_at     INTEGER,
    revoked_at  INTEGER
) STRICT;

-- Who did what, and what came of it. Rows are only ever added.
CREATE TABLE audit (
    id       INTEGER PRIMARY KEY,
    at       INTEGER NOT NULL,
    name     TEXT    NOT NULL,
    address  TEXT    NOT NULL,
    action   TEXT    NOT NULL,
    subject  TEXT    NOT NULL,
    outcome  TEXT    NOT NULL
) STRICT;
