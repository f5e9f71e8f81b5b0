-- Weights that an operator gave, of which a version was made; null where it follows from deltas.
ALTER TABLE versions ADD COLUMN given_hash BYTEA;
ALTER TABLE versions ADD COLUMN given_bytes BIGINT;

-- Rounds in a row from weights that an operator gave.
CREATE TABLE series (
    number         BIGINT PRIMARY KEY,
    name           TEXT   NOT NULL,
    weights_hash   BYTEA  NOT NULL,
    weights_bytes  BIGINT NOT NULL,
    first_version  BIGINT NOT NULL,
    -- Fewer than were ordered, where it was cut short.
    rounds         BIGINT NOT NULL,
    is_cut         BIGINT NOT NULL,
    after_seq      BIGINT NOT NULL,
    left_out       BIGINT NOT NULL,
    begun_at       BIGINT NOT NULL
);
