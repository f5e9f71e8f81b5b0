//! The records of a commit as a few statements of many rows. A statement costs a way to the database and back, whatever it
//! holds, and a commit may hold what hundreds of turns wrote.

use super::{
    rows,
    tables::{Tables, Value, sql},
};
use crate::{
    engine::record::{DeltaRecord, DeviceRecord, EvaluationRecord, LeaseOutcome, LeaseRecord, Record, VersionRecord},
    store::{LedgerError, ledger::check},
};
use nightjar_shared::{
    ids::{DeviceId, LeaseId},
    time::Wall,
};
use sqlx::AssertSqlSafe;
use std::collections::{BTreeMap, BTreeSet};

/// Rows of one statement at most. All statements have a power of two: a database keeps each in mind once it was asked.
const ROWS_MAX: usize = 128;

/// How a lease ended.
#[derive(Clone, Copy)]
pub(super) struct End {
    pub outcome: LeaseOutcome,
    pub samples_used: u32,
    pub at: Wall,
}

/// What records lead to, table by table. No row is written twice: of a device only its newest record is, and a lease that
/// was issued and ended is written as it ended.
#[derive(Default)]
pub(in crate::store) struct Batch<'r> {
    devices: BTreeMap<DeviceId, &'r DeviceRecord>,
    /// Leases that were there before.
    ends: BTreeMap<LeaseId, End>,
    leases: BTreeMap<LeaseId, (&'r LeaseRecord, Option<End>)>,
    deltas: Vec<&'r DeltaRecord>,
    versions: Vec<&'r VersionRecord>,
    evaluations: Vec<&'r EvaluationRecord>,
    /// What operators ordered: it is rare, and each is a statement of its own.
    orders: Vec<&'r Record>,
}

impl<'r> Batch<'r> {
    /// Refuses a record that would not be read back as it is, and what contradicts another.
    pub fn of(records: &'r [Record]) -> Result<Self, LedgerError> {
        let mut batch = Batch::default();
        // Devices with a lease of this batch that is open.
        let mut busy = BTreeSet::new();
        for record in records {
            check(record)?;
            let is_sound = match record {
                Record::Device(device) => {
                    batch.devices.insert(device.id, device);
                    true
                }
                Record::LeaseIssued(lease) => {
                    batch.leases.insert(lease.id, (lease, None)).is_none() && busy.insert(lease.device)
                }
                Record::LeaseClosed { id, outcome, samples_used, at } => {
                    let end = End { outcome: *outcome, samples_used: *samples_used, at: *at };
                    match batch.leases.get_mut(id) {
                        Some((lease, ended)) => {
                            busy.remove(&lease.device);
                            ended.replace(end).is_none()
                        }
                        None => batch.ends.insert(*id, end).is_none(),
                    }
                }
                Record::Delta(delta) => {
                    batch.deltas.push(delta);
                    true
                }
                Record::Version(version) => {
                    batch.versions.push(version);
                    true
                }
                Record::Evaluation(evaluation) => {
                    batch.evaluations.push(evaluation);
                    true
                }
                Record::DeviceRevoked { .. }
                | Record::InviteRevoked { .. }
                | Record::Paused(_)
                | Record::Extended { .. }
                | Record::Series(_)
                | Record::Audit(_) => {
                    batch.orders.push(record);
                    true
                }
            };
            if !is_sound {
                return Err(LedgerError::Contradiction(format!("{record:?}")));
            }
        }
        Ok(batch)
    }

    /// Writes it, in the order in which one row may name another. What contradicts the facts that are there is refused.
    pub async fn write(self, tx: &mut impl Tables) -> Result<(), LedgerError> {
        let newest = " ON CONFLICT (id) DO UPDATE SET
             name = excluded.name, device = excluded.device, role = excluded.role, invite_nonce = excluded.invite_nonce,
             enrolled_at = excluded.enrolled_at, tokens_per_s = excluded.tokens_per_s, has_left = excluded.has_left,
             public_name = excluded.public_name, name_hidden = excluded.name_hidden";
        let devices = self.devices.into_values().map(rows::of_device);
        write_rows(tx, ["/* device */ INSERT INTO devices VALUES ", newest], devices).await?;
        // First: it makes room for a device's next lease.
        let end = [
            "/* lease closed */ UPDATE leases SET outcome = v.column2, samples_used = v.column3, closed_at = v.column4
             FROM (VALUES ",
            ") AS v WHERE leases.id = v.column1 AND leases.outcome IS NULL",
        ];
        write_rows(tx, end, self.ends.into_iter().map(|(id, end)| rows::of_end(id, end))).await?;
        let lease = "/* lease issued */ INSERT INTO leases (id, generation, device, kind, base_version, epoch, shard,
             first_sample, samples, steps, issued_at, outcome, samples_used, closed_at) VALUES ";
        let leases = self.leases.into_values().map(|(lease, end)| rows::of_lease(lease, end));
        write_rows(tx, [lease, ""], leases).await?;
        write_rows(tx, ["/* delta */ INSERT INTO deltas VALUES ", ""], self.deltas.into_iter().map(rows::of_delta))
            .await?;
        let squashes = self.versions.iter().flat_map(|v| v.squashes.iter().map(|s| rows::of_squash(v.version, s)));
        let squashes: Vec<_> = squashes.collect();
        let versions = self.versions.into_iter().map(rows::of_version);
        write_rows(tx, ["/* version */ INSERT INTO versions VALUES ", ""], versions).await?;
        write_rows(tx, ["/* squash */ INSERT INTO squashes VALUES ", ""], squashes.into_iter()).await?;
        let evaluations = self.evaluations.into_iter().map(rows::of_evaluation);
        write_rows(tx, ["/* evaluation */ INSERT INTO evaluations VALUES ", ""], evaluations).await?;
        for order in self.orders {
            let Some(statement) = rows::of_order(order)? else { continue };
            if tx.change(statement).await? == 0 {
                return Err(LedgerError::Contradiction(format!("nothing to change for {order:?}")));
            }
        }
        Ok(())
    }
}

type Row = Result<Vec<Value>, LedgerError>;

/// Writes rows by statements that begin and end so. Each row is to change one of the table's.
async fn write_rows(
    tx: &mut impl Tables,
    [begin, end]: [&'static str; 2],
    rows: impl ExactSizeIterator<Item = Row> + Send,
) -> Result<(), LedgerError> {
    let mut rows = rows;
    while let Some(most) = rows.len().min(ROWS_MAX).checked_ilog2() {
        let many = 1 << most;
        let chunk = rows.by_ref().take(many).collect::<Result<Vec<_>, _>>()?;
        let text = format!("{begin}{}{end}", places(many, chunk.first().map_or(0, Vec::len)));
        // Text of this file, and numbers of parameters.
        let statement = sql(AssertSqlSafe(text)).bind_all(chunk.into_iter().flatten());
        if tx.change(statement).await? != many as u64 {
            return Err(LedgerError::Contradiction(format!("nothing to change by one of {many} rows: {begin}")));
        }
    }
    Ok(())
}

/// `($1, $2), ($3, $4)`: so many rows of so many parameters.
fn places(rows: usize, columns: usize) -> String {
    let row = |row: usize| {
        let columns: Vec<String> = (1..=columns).map(|column| format!("${}", row * columns + column)).collect();
        format!("({})", columns.join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_numbered_through() {
        assert_eq!(places(2, 3), "($1, $2, $3), ($4, $5, $6)");
    }
}
