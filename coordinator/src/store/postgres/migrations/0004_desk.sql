-- What operators ordered: since when the run is paused, and how long it goes on where that is longer than its file says.
ALTER TABLE run ADD COLUMN paused_at BIGINT;
ALTER TABLE run ADD COLUMN token_budget BIGINT;

-- Devices that are no part of the run any more. What was merged of them stays.
CREATE TABLE revoked_devices (
    device      BYTEA  PRIMARY KEY REFERENCES devices (id),
    revoked_at  BIGINT NOT NULL
);

-- Invites with which nobody enrols any more, whether they are known or not.
CREATE TABLE revoked_invites (
    nonce       BYTEA  PRIMARY KEY,
    revoked_at  BIGINT NOT NULL
);

-- The tables below are the operators' desk: writing them depends on no generation.

-- Invites as they were issued. One of an older version, or issued elsewhere, is known by its devices alone.
CREATE TABLE invites (
    nonce        BYTEA  PRIMARY KEY,
    role         BIGINT NOT NULL,
    devices_max  BIGINT NOT NULL,
    -- Null: never.
    expires_at   BIGINT,
    issued_at    BIGINT NOT NULL,
    issued_by    TEXT   NOT NULL
);
CREATE INDEX devices_by_invite ON devices (invite_nonce, has_left);

-- Tokens of the HTTP API: BLAKE3 of each, never itself.
CREATE TABLE tokens (
    name        TEXT   PRIMARY KEY,
    role        TEXT   NOT NULL,
    hash        BYTEA  NOT NULL UNIQUE,
    created_at  BIGINT NOT NULL,
    expires_at  BIGINT,
    used_at     BIGINT,
    revoked_at  BIGINT
);

-- Who did what, and what came of it. Rows are only ever added.
CREATE TABLE audit (
    id       BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       BIGINT NOT NULL,
    name     TEXT   NOT NULL,
    address  TEXT   NOT NULL,
    action   TEXT   NOT NULL,
    subject  TEXT   NOT NULL,
    outcome  TEXT   NOT NULL
);
