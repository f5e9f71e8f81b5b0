//! What one device has done, a page at a time: each question reads as many rows as it is asked for, by an index.

use super::{
    Dialect, SqlLedger,
    rows::{self, SetAside},
    tables::{Tables, sql},
};
use crate::store::{LeaseFacts, LeaseOfDevice, LedgerError, ledger::integer};
use nightjar_shared::ids::{DeviceId, LeaseId};

impl<D: Dialect> SqlLedger<D> {
    pub(super) async fn read_leases_of(
        &self,
        device: DeviceId,
        before: LeaseId,
        most: u32,
    ) -> Result<Vec<LeaseOfDevice>, LedgerError> {
        let before = integer("leases.id", before.0.min(i64::MAX as u64))?;
        let mut tx = self.dialect.begin().await?;
        let leases = sql("/* device: leases */
             SELECT * FROM leases WHERE id IN (
                 SELECT lease FROM (SELECT lease FROM deltas WHERE device = $1 AND lease < $2
                                    ORDER BY lease DESC LIMIT $3) AS merged
                 UNION ALL
                 SELECT id FROM (SELECT id FROM leases WHERE device = $1 AND outcome <> 'merged' AND id < $2
                                 ORDER BY id DESC LIMIT $3) AS unmerged
                 UNION ALL
                 SELECT id FROM leases WHERE device = $1 AND outcome IS NULL AND id < $2)
             ORDER BY id DESC LIMIT $3");
        let leases = tx.rows(leases.bind(&device.0[..]).bind(before).bind(most)).await?;
        let mut aside = SetAside::default();
        let leases = aside.readable(&leases, rows::lease_facts);
        let Some(oldest) = leases.last().map(|facts| facts.lease.id) else { return Ok(vec![]) };
        let deltas = sql("/* device: deltas */
             SELECT * FROM deltas WHERE device = $1 AND lease >= $2 AND lease < $3 ORDER BY lease DESC");
        let deltas = deltas.bind(&device.0[..]).bind(integer("leases.id", oldest.0)?).bind(before);
        let deltas = tx.rows(deltas).await?;
        let mut deltas = aside.readable(&deltas, rows::delta).into_iter().peekable();
        aside.told();
        let with_delta = |facts: LeaseFacts| {
            let id = facts.lease.id;
            while deltas.next_if(|delta| delta.lease > id).is_some() {}
            LeaseOfDevice { lease: facts.lease, closed: facts.closed, delta: deltas.next_if(|d| d.lease == id) }
        };
        Ok(leases.into_iter().map(with_delta).collect())
    }
}
