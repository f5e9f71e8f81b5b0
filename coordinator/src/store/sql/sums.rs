//! What a start would otherwise have to work out of all rows: sums by device, epoch and version, up to a delta. They are
//! no facts, but a cache of them. A commit that merges the [`EVERY`]-th delta adds what was merged since the last sums;
//! a start reads them and the rows behind them. A hash covers all that a start goes by: where it does not fit, the sums
//! are made anew of the rows. `verify` holds them against all rows.

mod lately;
mod proof;

pub(super) use proof::differences;

use super::{
    read::{PAGE, limit},
    rows::SetAside,
    tables::{Cells, Statement, Tables, sql},
};
use crate::{
    engine::record::Record,
    store::{LedgerError, ledger::integer, samples::Ranges},
};
use lately::lately;
pub(super) use lately::{Lately, after, version_tokens};
use nightjar_shared::ids::{DeviceId, Generation, LeaseId};
use sqlx::AssertSqlSafe;
use std::collections::BTreeMap;

/// Deltas from one addition to the next. In tests so few that every test is one of sums, too.
pub(super) const EVERY: u64 = if cfg!(test) { 8 } else { 1024 };
/// Deltas that are added at once where a start has many of them to add.
pub(super) const AT_ONCE: u64 = 64 * EVERY;
/// Rows that one statement asks for or writes.
const ROWS_AT_ONCE: usize = 128;

/// What is done to the sums, in a transaction of its own.
#[derive(Clone, Copy, Debug)]
pub enum Adding {
    /// Add the deltas up to this one.
    Through(u64),
    /// Forget which samples of an epoch are merged, where these are all: so many.
    Finished {
        /// Samples of an epoch.
        samples: u64,
    },
    /// Forget all sums.
    Anew,
}

/// How far the sums go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    /// The last delta in them.
    pub through_seq: u64,
    /// Epochs that leases up to this one began are known.
    pub through_lease: u64,
    /// Versions below this number have sums.
    pub versions: u64,
    /// Tokens of all deltas up to there.
    pub tokens: u64,
    rows: RowsHash,
}

/// A device's merged deltas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DeviceSum {
    pub tokens: u64,
    pub merged: u64,
    /// The last one's lease.
    pub last: (LeaseId, Generation),
}

impl DeviceSum {
    /// With what was merged later.
    pub fn and(self, later: DeviceSum) -> DeviceSum {
        DeviceSum {
            tokens: self.tokens.saturating_add(later.tokens),
            merged: self.merged + later.merged,
            last: self.last.max(later.last),
        }
    }
}

/// What is merged of an epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct EpochSum {
    samples: u64,
    /// Which; nothing where these are all.
    ranges: Ranges,
}

/// The sum of the rows' hashes, in whatever order they are added and taken away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct RowsHash([u64; 4]);

impl RowsHash {
    fn of(parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(part);
        }
        RowsHash::from_bytes(*hasher.finalize().as_bytes())
    }

    fn of_device(id: DeviceId, sum: &DeviceSum) -> Self {
        let numbers = [sum.tokens, sum.merged, sum.last.0.0, sum.last.1.0].map(u64::to_le_bytes);
        RowsHash::of(&[b"device", &id.0, numbers.as_flattened()])
    }

    fn of_epoch(epoch: u32, sum: &EpochSum) -> Self {
        RowsHash::of(&[b"epoch", &epoch.to_le_bytes(), &sum.samples.to_le_bytes(), &sum.ranges.encode()])
    }

    fn from_bytes(bytes: [u8; 32]) -> Self {
        let (words, _) = bytes.as_chunks::<8>();
        RowsHash(std::array::from_fn(|at| u64::from_le_bytes(words[at])))
    }

    fn bytes(self) -> [u8; 32] {
        let words = self.0.map(u64::to_le_bytes);
        std::array::from_fn(|at| words[at / 8][at % 8])
    }

    fn add(&mut self, row: RowsHash) {
        self.0.iter_mut().zip(row.0).for_each(|(word, more)| *word = word.wrapping_add(more));
    }

    fn take_away(&mut self, row: RowsHash) {
        self.0.iter_mut().zip(row.0).for_each(|(word, less)| *word = word.wrapping_sub(less));
    }
}

impl Sums {
    fn digest(&self) -> [u8; 32] {
        let numbers = [self.through_seq, self.through_lease, self.versions, self.tokens].map(u64::to_le_bytes);
        RowsHash::of(&[b"sums", numbers.as_flattened(), &self.rows.bytes()]).bytes()
    }
}

/// The sums' own row; `None` where it is not what was written.
pub(super) async fn stored(tx: &mut impl Tables) -> Result<Option<Sums>, LedgerError> {
    let rows = tx.rows(sql("/* sums */ SELECT * FROM sums")).await?;
    let Some(row) = rows.first() else { return Ok(Some(Sums::default())) };
    let number = |column| row.integer(column).ok().and_then(|n| u64::try_from(n).ok());
    let bytes = |column| row.bytes(column).ok().flatten().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    let sums = || {
        Some(Sums {
            through_seq: number("through_seq")?,
            through_lease: number("through_lease")?,
            versions: number("versions")?,
            tokens: number("tokens")?,
            rows: RowsHash::from_bytes(bytes("rows_hash")?),
        })
    };
    Ok(sums().filter(|sums| bytes("digest") == Some(sums.digest())))
}

/// The sums, for whoever goes by them: a start has made sure of them before.
pub(super) async fn sound(tx: &mut impl Tables) -> Result<Sums, LedgerError> {
    stored(tx).await?.ok_or(LedgerError::Damaged("its sums are not as they were written"))
}

/// Whether the sums are what was written, all rows together.
pub(super) async fn hold(tx: &mut impl Tables) -> Result<bool, LedgerError> {
    let Some(sums) = stored(tx).await? else { return Ok(false) };
    let mut rows = RowsHash::default();
    let mut last = vec![];
    loop {
        let page = sql("/* sums: all devices */ SELECT * FROM device_sums WHERE device > $1 ORDER BY device LIMIT $2");
        let page = tx.rows(page.bind(&last[..]).bind(limit(PAGE))).await?;
        for row in &page {
            let Some((id, sum)) = device_sum(row) else { return Ok(false) };
            rows.add(RowsHash::of_device(id, &sum));
            last = id.0.to_vec();
        }
        if page.is_empty() {
            break;
        }
    }
    for row in &tx.rows(sql("/* sums: all epochs */ SELECT * FROM epoch_sums")).await? {
        let Some((epoch, sum)) = epoch_sum(row) else { return Ok(false) };
        rows.add(RowsHash::of_epoch(epoch, &sum));
    }
    Ok(rows == sums.rows)
}

/// The delta that a record adds, where sums are due at it.
pub(super) fn is_due_at(record: &Record) -> Option<u64> {
    match record {
        Record::Delta(delta) => Some(delta.seq).filter(|seq| seq.is_multiple_of(EVERY)),
        _ => None,
    }
}

/// Does something to the sums; whoever calls it has made sure of the generation.
pub(super) async fn change(tx: &mut impl Tables, adding: Adding) -> Result<(), LedgerError> {
    match adding {
        Adding::Through(through) => add(tx, through).await,
        Adding::Finished { samples } => finished(tx, samples).await,
        Adding::Anew => forget(tx).await,
    }
}

async fn forget(tx: &mut impl Tables) -> Result<(), LedgerError> {
    for all in [
        "/* sums: forget */ DELETE FROM device_sums",
        "/* sums: forget */ DELETE FROM epoch_sums",
        "/* sums: forget */ DELETE FROM version_sums",
        "/* sums: forget */ DELETE FROM sums",
    ] {
        tx.change(sql(all)).await?;
    }
    Ok(())
}

/// Adds the deltas up to one. What cannot be added now is left to the next start.
async fn add(tx: &mut impl Tables, through: u64) -> Result<(), LedgerError> {
    let Some(mut sums) = stored(tx).await? else { return Ok(()) };
    if through <= sums.through_seq || through - sums.through_seq > AT_ONCE {
        return Ok(());
    }
    let mut aside = SetAside::default();
    let more = lately(tx, &sums, Some(through), &mut aside).await?;
    aside.told();
    let versions = version_tokens(tx, &sums, Some(through)).await?;
    add_devices(tx, &mut sums.rows, &more.devices).await?;
    for (epoch, ranges) in &more.epochs {
        let known = sql("/* sums: epoch */ SELECT * FROM epoch_sums WHERE epoch = $1").bind(*epoch);
        let known = tx.rows(known).await?;
        let mut sum = EpochSum::default();
        if let Some(row) = known.first() {
            let Some((_, known)) = epoch_sum(row) else { return forget(tx).await };
            sums.rows.take_away(RowsHash::of_epoch(*epoch, &known));
            sum = known;
        }
        for (id, range) in ranges {
            if sum.ranges.add(*range) {
                sum.samples += u64::from(range.samples);
            } else {
                tracing::warn!("lease {id} has samples of epoch {epoch} that another lease has, and is passed over");
            }
        }
        put_epoch(tx, &mut sums.rows, *epoch, &sum).await?;
    }
    for versions in pieces(&versions) {
        let mut put = sql(AssertSqlSafe(format!(
            "/* sums: versions */ INSERT INTO version_sums VALUES {} ON CONFLICT (version) DO UPDATE SET tokens = excluded.tokens",
            values(versions.len(), 2)
        )));
        for (version, tokens) in versions {
            put = put.bind(integer("version_sums.version", *version)?).bind(integer("version_sums.tokens", *tokens)?);
        }
        tx.change(put).await?;
    }
    sums.through_seq = through;
    sums.through_lease = sums.through_lease.max(more.last_lease);
    sums.versions = versions.last().map_or(sums.versions, |(version, _)| (version + 1).min(i64::MAX as u64));
    sums.tokens = sums.tokens.saturating_add(more.tokens);
    put(tx, &sums).await
}

async fn add_devices(
    tx: &mut impl Tables,
    rows: &mut RowsHash,
    more: &BTreeMap<DeviceId, DeviceSum>,
) -> Result<(), LedgerError> {
    let more: Vec<(DeviceId, DeviceSum)> = more.iter().map(|(id, sum)| (*id, *sum)).collect();
    for more in pieces(&more) {
        let known = "/* sums: devices */ SELECT * FROM device_sums WHERE device IN";
        let known = sql(AssertSqlSafe(format!("{known} {}", values(1, more.len()))));
        let known = tx.rows(more.iter().fold(known, |known, (id, _)| known.bind(&id.0[..]))).await?;
        let known: BTreeMap<DeviceId, DeviceSum> = known.iter().filter_map(device_sum).collect();
        let mut put = sql(AssertSqlSafe(format!(
            "/* sums: devices */ INSERT INTO device_sums VALUES {} ON CONFLICT (device) DO UPDATE SET tokens = excluded.tokens,
                 merged = excluded.merged, last_lease = excluded.last_lease, last_generation = excluded.last_generation",
            values(more.len(), 5)
        )));
        for (id, more) in more {
            let known = known.get(id);
            known.into_iter().for_each(|known| rows.take_away(RowsHash::of_device(*id, known)));
            let sum = known.copied().unwrap_or_default().and(*more);
            rows.add(RowsHash::of_device(*id, &sum));
            put = put.bind(&id.0[..]);
            for number in [sum.tokens, sum.merged, sum.last.0.0, sum.last.1.0] {
                put = put.bind(integer("device_sums", number)?);
            }
        }
        tx.change(put).await?;
    }
    Ok(())
}

async fn put_epoch(tx: &mut impl Tables, rows: &mut RowsHash, epoch: u32, sum: &EpochSum) -> Result<(), LedgerError> {
    rows.add(RowsHash::of_epoch(epoch, sum));
    let put = sql("/* sums: epoch */ INSERT INTO epoch_sums VALUES ($1, $2, $3)
         ON CONFLICT (epoch) DO UPDATE SET samples = excluded.samples, merged = excluded.merged");
    let put = put.bind(epoch).bind(integer("epoch_sums.samples", sum.samples)?);
    tx.change(put.bind(&sum.ranges.encode()[..])).await?;
    Ok(())
}

/// Which samples of a finished epoch are merged need not be known: all.
async fn finished(tx: &mut impl Tables, samples: u64) -> Result<(), LedgerError> {
    let Some(mut sums) = stored(tx).await? else { return Ok(()) };
    let full = sql("/* sums: finished */ SELECT * FROM epoch_sums WHERE samples >= $1 AND length(merged) > 0
         AND epoch NOT IN (SELECT epoch FROM leases WHERE outcome IS NULL AND kind = 'train')");
    let full = tx.rows(full.bind(integer("epoch_sums.samples", samples)?)).await?;
    if full.is_empty() {
        return Ok(());
    }
    for (epoch, sum) in full.iter().filter_map(epoch_sum) {
        sums.rows.take_away(RowsHash::of_epoch(epoch, &sum));
        put_epoch(tx, &mut sums.rows, epoch, &EpochSum { ranges: Ranges::default(), ..sum }).await?;
    }
    put(tx, &sums).await
}

async fn put(tx: &mut impl Tables, sums: &Sums) -> Result<(), LedgerError> {
    let put = sql("/* sums */ INSERT INTO sums VALUES (1, $1, $2, $3, $4, $5, $6)
         ON CONFLICT (only_row) DO UPDATE SET through_seq = excluded.through_seq, through_lease = excluded.through_lease,
             versions = excluded.versions, tokens = excluded.tokens, rows_hash = excluded.rows_hash, digest = excluded.digest");
    let numbers = [sums.through_seq, sums.through_lease, sums.versions, sums.tokens];
    let put =
        numbers.into_iter().try_fold(put, |put, n| Ok::<Statement, LedgerError>(put.bind(integer("sums", n)?)))?;
    tx.change(put.bind(&sums.rows.bytes()[..]).bind(&sums.digest()[..])).await?;
    Ok(())
}

fn device_sum(row: &impl Cells) -> Option<(DeviceId, DeviceSum)> {
    let number = |column| row.integer(column).ok().and_then(|n| u64::try_from(n).ok());
    let id = DeviceId(row.bytes("device").ok()??.try_into().ok()?);
    let last = (LeaseId(number("last_lease")?), Generation(number("last_generation")?));
    Some((id, DeviceSum { tokens: number("tokens")?, merged: number("merged")?, last }))
}

fn epoch_sum(row: &impl Cells) -> Option<(u32, EpochSum)> {
    let epoch = u32::try_from(row.integer("epoch").ok()?).ok()?;
    let samples = u64::try_from(row.integer("samples").ok()?).ok()?;
    Some((epoch, EpochSum { samples, ranges: Ranges::decode(row.bytes("merged").ok()??)? }))
}

/// What is merged of each epoch; `None` where that is all.
pub(super) async fn epochs(tx: &mut impl Tables) -> Result<BTreeMap<u32, Option<Ranges>>, LedgerError> {
    let rows = tx.rows(sql("/* sums: epochs */ SELECT * FROM epoch_sums")).await?;
    let known = |sum: EpochSum| Some(sum.ranges).filter(|ranges| ranges.samples() == sum.samples);
    Ok(rows.iter().filter_map(epoch_sum).map(|(epoch, sum)| (epoch, known(sum))).collect())
}

/// Pieces of which there are few lengths, so that there are few statements.
pub(super) fn pieces<T>(all: &[T]) -> impl Iterator<Item = &[T]> {
    let mut rest = all;
    std::iter::from_fn(move || {
        let length = (rest.len().checked_ilog2()?).min(ROWS_AT_ONCE.ilog2());
        let (piece, behind) = rest.split_at(1 << length);
        rest = behind;
        Some(piece)
    })
}

/// So many parameters in brackets, so many times.
pub(super) fn values(rows: usize, columns: usize) -> String {
    let row =
        |row| format!("({})", (1..=columns).map(|n| format!("${}", row * columns + n)).collect::<Vec<_>>().join(", "));
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}
