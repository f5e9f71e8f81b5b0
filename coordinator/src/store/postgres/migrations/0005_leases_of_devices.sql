-- Leases that ended without a merged delta, by device; those with one are found by their deltas. Most leases are merged, so
-- that this costs them nothing.
CREATE INDEX leases_unmerged ON leases (device, id) WHERE outcome <> 'merged';
