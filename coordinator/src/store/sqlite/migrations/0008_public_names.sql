-- The name that a device's owner has chosen for the public page, and whether an operator has taken it from there.
ALTER TABLE devices ADD COLUMN public_name TEXT;
ALTER TABLE devices ADD COLUMN name_hidden INTEGER NOT NULL DEFAULT 0;
