//! The sums held against all rows, in bounded memory: for `verify`.

use super::{
    AT_ONCE, DeviceSum, EpochSum, Sums, device_sum, epoch_sum, hold,
    lately::{lately, version_tokens},
    stored,
};
use crate::store::{
    LedgerError,
    ledger::integer,
    sql::{
        read::{PAGE, limit, unsigned},
        rows::SetAside,
        tables::{Cells, Tables, sql},
    },
};
use nightjar_shared::ids::DeviceId;
use std::collections::BTreeMap;

/// All sums, worked out of all rows.
#[derive(Default)]
struct Again {
    sums: Sums,
    devices: BTreeMap<DeviceId, DeviceSum>,
    epochs: BTreeMap<u32, EpochSum>,
}

/// What was compared; or how the sums differ from what the rows give.
pub(in crate::store::sql) async fn differences(tx: &mut impl Tables) -> Result<Result<String, String>, LedgerError> {
    let Some(stored) = stored(tx).await? else { return Ok(Err("their own row is damaged".into())) };
    if !hold(tx).await? {
        return Ok(Err("they are not what was written: their hash is another".into()));
    }
    let mut again = Again::default();
    while again.sums.through_seq < stored.through_seq {
        if let Some(wrong) = again.step(tx, &stored).await? {
            return Ok(Err(wrong));
        }
    }
    let own = |sums: &Sums| (sums.through_seq, sums.versions, sums.tokens);
    if own(&again.sums) != own(&stored) {
        let ((_, versions, tokens), (_, its_versions, its_tokens)) = (own(&again.sums), own(&stored));
        return Ok(Err(format!(
            "{its_tokens} tokens in {its_versions} versions are {tokens} in {versions} by the rows"
        )));
    }
    if let Some(id) = again.other_device(tx).await? {
        return Ok(Err(format!("those of device {} are others by the rows", id.short())));
    }
    for (epoch, sum) in
        tx.rows(sql("/* sums: all epochs */ SELECT * FROM epoch_sums")).await?.iter().filter_map(epoch_sum)
    {
        let by_rows = again.epochs.remove(&epoch).unwrap_or_default();
        let is_same = sum.samples == by_rows.samples && (sum.ranges.samples() == 0 || sum.ranges == by_rows.ranges);
        if !is_same {
            return Ok(Err(format!("those of epoch {epoch} are others by the rows")));
        }
    }
    if let Some(epoch) = again.epochs.keys().next() {
        return Ok(Err(format!("those of epoch {epoch} are missing")));
    }
    Ok(Ok(format!("up to delta {} of {} devices", stored.through_seq, again.devices.len())))
}

impl Again {
    /// Goes on by some deltas; returns what is wrong with the sums of versions on the way.
    async fn step(&mut self, tx: &mut impl Tables, stored: &Sums) -> Result<Option<String>, LedgerError> {
        let Again { sums, devices, epochs } = self;
        let through = stored.through_seq.min(sums.through_seq + AT_ONCE);
        let more = lately(tx, sums, Some(through), &mut SetAside::default()).await?;
        // A version that was made of them since has no sum yet.
        let mut versions = version_tokens(tx, sums, Some(through)).await?;
        versions.retain(|(version, _)| *version < stored.versions);
        let stored = sql("/* sums: of versions */
             SELECT version, tokens FROM version_sums WHERE version >= $1 AND version <= $2 ORDER BY version");
        let stored = stored.bind(integer("version_sums.version", sums.versions)?);
        if let Some((newest, _)) = versions.last() {
            let stored = tx.rows(stored.bind(integer("version_sums.version", *newest)?)).await?;
            let stored = stored.iter().map(|row| -> Result<(u64, u64), LedgerError> {
                Ok((unsigned(row.integer("version")?), unsigned(row.integer("tokens")?)))
            });
            let stored = stored.collect::<Result<BTreeMap<u64, u64>, _>>()?;
            if let Some((version, _)) = versions.iter().find(|(version, tokens)| stored.get(version) != Some(tokens)) {
                return Ok(Some(format!("the tokens of version {version} are others by the rows")));
            }
            sums.versions = newest + 1;
        }
        for (id, more) in more.devices {
            let device = devices.entry(id).or_default();
            *device = device.and(more);
        }
        for (epoch, ranges) in more.epochs {
            let EpochSum { samples, ranges: known } = epochs.entry(epoch).or_default();
            ranges
                .into_iter()
                .filter(|(_, range)| known.add(*range))
                .for_each(|(_, r)| *samples += u64::from(r.samples));
        }
        sums.tokens = sums.tokens.saturating_add(more.tokens);
        (sums.through_seq, sums.through_lease) = (through, sums.through_lease.max(more.last_lease));
        Ok(None)
    }

    /// A device whose sum is another.
    async fn other_device(&self, tx: &mut impl Tables) -> Result<Option<DeviceId>, LedgerError> {
        let (mut last, mut seen) = (vec![], 0);
        loop {
            let page =
                sql("/* sums: all devices */ SELECT * FROM device_sums WHERE device > $1 ORDER BY device LIMIT $2");
            let page = tx.rows(page.bind(&last[..]).bind(limit(PAGE))).await?;
            for (id, sum) in page.iter().filter_map(device_sum) {
                if self.devices.get(&id) != Some(&sum) {
                    return Ok(Some(id));
                }
                last = id.0.to_vec();
                seen += 1;
            }
            if page.is_empty() {
                break;
            }
        }
        // A device without a row: any of those that have none.
        Ok(if seen == self.devices.len() { None } else { self.devices.keys().next().copied() })
    }
}
