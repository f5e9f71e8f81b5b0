-- Weights that an operator gave, of which a version was made; null where it follows from deltas.
ALTER TABLE versions ADD COLUMN given_hash BLOB;
ALTER TABLE versions ADD COLUMN given_bytes INTEGER;

-- Rounds in a row from weights that an operator gave.
CREATE TABLE series (
    number         INTEGER PRIMARY KEY,
    name           TEXT    NOT NULL,
    weights_hash   BLOB    NOT NULL,
    weights_bytes  INTEGER NOT NULL,
    first_version  INTEGER NOT NULL,
    -- Fewer than were ordered, where it was cut short.
    rounds         INTEGER NOT NULL,
    is_cut         INTEGER NOT NULL,
    after_seq      INTEGER NOT NULL,
    left_out       INTEGER NOT NULL,
    begun_at       INTEGER NOT NULL
) STRICT;
