//! What is now in the ledger, for the log: each line with its lease and its device.

use super::Shell;
use crate::engine::record::Record;
use tracing::debug;

impl Shell {
    /// Writes a line about a record. It comes before anybody forgets whose the lease was.
    pub(super) fn log(&self, record: &Record) {
        match record {
            Record::Device(d) => {
                debug!(
                    device = d.id.short(),
                    left = d.left,
                    tokens_per_s = d.tokens_per_s,
                    "a device was written down"
                );
            }
            Record::LeaseIssued(l) => debug!(
                lease = l.id.0,
                device = l.device.short(),
                kind = l.kind.name(),
                version = l.base_version.0,
                steps = l.steps,
                samples = l.samples,
                "a lease was issued"
            ),
            Record::LeaseClosed { id, outcome, samples_used, .. } => {
                let device = self.parts.knowledge.uploads.device_of(*id).map(|device| device.short());
                debug!(lease = id.0, device, outcome = outcome.name(), samples_used, "a lease has ended");
            }
            Record::Delta(d) => debug!(
                lease = d.lease.0,
                device = d.device.short(),
                seq = d.seq,
                tokens = d.tokens,
                staleness = d.staleness,
                weight = d.weight,
                wall_ms = d.wall_ms,
                "a delta is to be merged"
            ),
            Record::Version(v) => debug!(version = v.version.0, through_seq = v.through_seq, "a version was published"),
            Record::Series(s) => debug!(
                number = s.number,
                first = s.first.0,
                rounds = s.rounds,
                left_out = s.left_out,
                "a series was written down"
            ),
            // These are said aloud.
            Record::DeviceRevoked { .. }
            | Record::InviteRevoked { .. }
            | Record::Paused(_)
            | Record::Extended { .. }
            | Record::Audit(_) => {}
            Record::Evaluation(e) => {
                debug!(lease = e.lease.0, version = e.version.0, loss = e.nats_per_byte(), "a loss was measured");
            }
        }
    }
}
