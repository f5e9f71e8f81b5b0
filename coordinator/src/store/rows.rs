//! Rows and records: how each fact is written to a table and read back.

use super::{Closed, LeaseFacts, LedgerError};
use crate::engine::record::{
    DeltaRecord, DeviceRecord, EvaluationRecord, LeaseKind, LeaseOutcome, LeaseRecord, Record, Squash, VersionRecord,
};
use nightjar_shared::{
    ids::{BlobHash, DeviceId, Generation, LeaseId, Version},
    time::Wall,
    wire::Role,
};
use sqlx::{Row, Sqlite, Transaction, sqlite::SqliteRow};

/// The word of a lease's kind or outcome.
pub(super) trait Word: Copy + 'static {
    const ALL: &'static [(Self, &'static str)];
}

impl Word for LeaseKind {
    const ALL: &'static [(Self, &'static str)] = &[(LeaseKind::Train, "train"), (LeaseKind::Evaluate, "evaluate")];
}

impl Word for LeaseOutcome {
    const ALL: &'static [(Self, &'static str)] = &[
        (LeaseOutcome::Merged, "merged"),
        (LeaseOutcome::ScreenedOut, "screened_out"),
        (LeaseOutcome::Returned, "returned"),
        (LeaseOutcome::Expired, "expired"),
        (LeaseOutcome::Evaluated, "evaluated"),
    ];
}

pub(super) fn word<W: Word + PartialEq>(value: W) -> &'static str {
    W::ALL.iter().find(|(w, _)| *w == value).map_or("", |(_, word)| word)
}

fn parsed<W: Word>(text: &str) -> Result<W, LedgerError> {
    let found = W::ALL.iter().find(|(_, word)| *word == text).map(|(w, _)| *w);
    found.ok_or(LedgerError::Damaged("a word in it is unknown"))
}

pub(super) fn number(row: &SqliteRow, column: &str) -> Result<u64, LedgerError> {
    u64::try_from(row.try_get::<i64, _>(column)?).map_err(|_| LedgerError::Damaged("a number in it is negative"))
}

fn small(row: &SqliteRow, column: &str) -> Result<u32, LedgerError> {
    u32::try_from(number(row, column)?).map_err(|_| LedgerError::Damaged("a number in it is too large"))
}

pub(super) fn hash(row: &SqliteRow, column: &str) -> Result<[u8; 32], LedgerError> {
    row.try_get::<&[u8], _>(column)?.try_into().map_err(|_| LedgerError::Damaged("a hash in it is not 32 bytes long"))
}

fn wall(row: &SqliteRow, column: &str) -> Result<Wall, LedgerError> {
    Ok(Wall { unix_ms: number(row, column)? })
}

fn blob(row: &SqliteRow, hash_column: &str, bytes_column: &str) -> Result<Option<(BlobHash, u64)>, LedgerError> {
    match row.try_get::<Option<&[u8]>, _>(hash_column)? {
        None => Ok(None),
        Some(_) => Ok(Some((BlobHash(hash(row, hash_column)?), number(row, bytes_column)?))),
    }
}

/// Writes one record. What contradicts the facts that are there is refused.
pub(super) async fn insert(tx: &mut Transaction<'_, Sqlite>, record: &Record) -> Result<(), LedgerError> {
    let query = match record {
        Record::Device(d) => sqlx::query(
            "INSERT INTO devices VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET
                 name = excluded.name, device = excluded.device, role = excluded.role, invite_nonce = excluded.invite_nonce,
                 enrolled_at = excluded.enrolled_at, tokens_per_s = excluded.tokens_per_s, has_left = excluded.has_left",
        )
        .bind(&d.id.0[..])
        .bind(&d.name)
        .bind(&d.device)
        .bind(d.role as i32)
        .bind(&d.invite_nonce)
        .bind(d.enrolled_at.unix_ms as i64)
        .bind(d.tokens_per_s)
        .bind(d.left),
        Record::LeaseIssued(l) => sqlx::query(
            "INSERT INTO leases (id, generation, device, kind, base_version, epoch, shard, first_sample, samples, steps,
                                 issued_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(l.id.0 as i64)
        .bind(l.generation.0 as i64)
        .bind(&l.device.0[..])
        .bind(word(l.kind))
        .bind(l.base_version.0 as i64)
        .bind(l.epoch)
        .bind(l.shard)
        .bind(l.first_sample)
        .bind(l.samples)
        .bind(l.steps)
        .bind(l.issued_at.unix_ms as i64),
        Record::LeaseClosed { id, outcome, samples_used, at } => {
            sqlx::query("UPDATE leases SET outcome = ?, samples_used = ?, closed_at = ? WHERE id = ? AND outcome IS NULL")
                .bind(word(*outcome))
                .bind(*samples_used)
                .bind(at.unix_ms as i64)
                .bind(id.0 as i64)
        }
        Record::Delta(d) => sqlx::query("INSERT INTO deltas VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
            .bind(d.seq as i64)
            .bind(d.lease.0 as i64)
            .bind(&d.device.0[..])
            .bind(&d.blob.0[..])
            .bind(d.bytes as i64)
            .bind(d.steps)
            .bind(d.tokens as i64)
            .bind(d.staleness as i64)
            .bind(d.weight)
            .bind(d.norm)
            .bind(d.train_ms as i64)
            .bind(d.wall_ms as i64)
            .bind(d.loss_first)
            .bind(d.loss_last)
            .bind(d.merged_at.unix_ms as i64),
        Record::Version(v) => sqlx::query("INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
            .bind(v.version.0 as i64)
            .bind(v.update.as_ref().map(|(hash, _)| &hash.0[..]))
            .bind(v.update.map(|(_, bytes)| bytes as i64))
            .bind(v.keyframe.as_ref().map(|(hash, _)| &hash.0[..]))
            .bind(v.keyframe.map(|(_, bytes)| bytes as i64))
            .bind(&v.digest[..])
            .bind(v.through_seq as i64)
            .bind(v.published_at.unix_ms as i64),
        Record::Evaluation(e) => sqlx::query("INSERT INTO evaluations VALUES (?, ?, ?, ?, ?, ?)")
            .bind(e.lease.0 as i64)
            .bind(e.version.0 as i64)
            .bind(e.nats)
            .bind(e.tokens as i64)
            .bind(e.text_bytes as i64)
            .bind(e.measured_at.unix_ms as i64),
    };
    if query.execute(&mut **tx).await?.rows_affected() == 0 {
        return Err(LedgerError::Contradiction(format!("nothing to change for {record:?}")));
    }
    if let Record::Version(v) = record {
        for Squash { from, blob: (hash, bytes) } in &v.squashes {
            sqlx::query("INSERT INTO squashes VALUES (?, ?, ?, ?)")
                .bind(v.version.0 as i64)
                .bind(from.0 as i64)
                .bind(&hash.0[..])
                .bind(*bytes as i64)
                .execute(&mut **tx)
                .await?;
        }
    }
    Ok(())
}

pub(super) fn device(row: &SqliteRow) -> Result<DeviceRecord, LedgerError> {
    let role = Role::try_from(row.try_get::<i32, _>("role")?).map_err(|_| LedgerError::Damaged("a role in it is unknown"))?;
    Ok(DeviceRecord {
        id: DeviceId(hash(row, "id")?),
        name: row.try_get("name")?,
        device: row.try_get("device")?,
        role,
        invite_nonce: row.try_get("invite_nonce")?,
        enrolled_at: wall(row, "enrolled_at")?,
        tokens_per_s: row.try_get("tokens_per_s")?,
        left: row.try_get("has_left")?,
    })
}

pub(super) fn lease(row: &SqliteRow) -> Result<LeaseRecord, LedgerError> {
    Ok(LeaseRecord {
        id: LeaseId(number(row, "id")?),
        generation: Generation(number(row, "generation")?),
        device: DeviceId(hash(row, "device")?),
        kind: parsed(row.try_get("kind")?)?,
        base_version: Version(number(row, "base_version")?),
        epoch: small(row, "epoch")?,
        shard: small(row, "shard")?,
        first_sample: small(row, "first_sample")?,
        samples: small(row, "samples")?,
        steps: small(row, "steps")?,
        issued_at: wall(row, "issued_at")?,
    })
}

pub(super) fn lease_facts(row: &SqliteRow) -> Result<LeaseFacts, LedgerError> {
    let closed = match row.try_get::<Option<&str>, _>("outcome")? {
        None => None,
        Some(outcome) => {
            Some(Closed { outcome: parsed(outcome)?, samples_used: small(row, "samples_used")?, at: wall(row, "closed_at")? })
        }
    };
    Ok(LeaseFacts { lease: lease(row)?, closed })
}

pub(super) fn delta(row: &SqliteRow) -> Result<DeltaRecord, LedgerError> {
    Ok(DeltaRecord {
        seq: number(row, "seq")?,
        lease: LeaseId(number(row, "lease")?),
        device: DeviceId(hash(row, "device")?),
        blob: BlobHash(hash(row, "blob")?),
        bytes: number(row, "bytes")?,
        steps: small(row, "steps")?,
        tokens: number(row, "tokens")?,
        staleness: number(row, "staleness")?,
        weight: row.try_get("weight")?,
        norm: row.try_get("norm")?,
        train_ms: number(row, "train_ms")?,
        wall_ms: number(row, "wall_ms")?,
        loss_first: row.try_get("loss_first")?,
        loss_last: row.try_get("loss_last")?,
        merged_at: wall(row, "merged_at")?,
    })
}

/// Versions, given oldest first, with their squashes.
pub(super) async fn versions<'r>(
    tx: &mut Transaction<'_, Sqlite>,
    oldest_first: impl Iterator<Item = &'r SqliteRow>,
) -> Result<Vec<VersionRecord>, LedgerError> {
    let mut versions = oldest_first.map(version).collect::<Result<Vec<_>, _>>()?;
    let Some(oldest) = versions.first().map(|v| v.version) else { return Ok(versions) };
    let rows = sqlx::query("SELECT * FROM squashes WHERE version >= ? ORDER BY version, from_version DESC")
        .bind(oldest.0 as i64)
        .fetch_all(&mut **tx)
        .await?;
    for row in &rows {
        let of = Version(number(row, "version")?);
        let squash =
            Squash { from: Version(number(row, "from_version")?), blob: (BlobHash(hash(row, "hash")?), number(row, "bytes")?) };
        let at = versions.binary_search_by_key(&of, |v| v.version);
        let at = at.map_err(|_| LedgerError::Damaged("a squash in it leads to no version"))?;
        versions[at].squashes.push(squash);
    }
    Ok(versions)
}

fn version(row: &SqliteRow) -> Result<VersionRecord, LedgerError> {
    Ok(VersionRecord {
        version: Version(number(row, "version")?),
        update: blob(row, "update_hash", "update_bytes")?,
        keyframe: blob(row, "keyframe_hash", "keyframe_bytes")?,
        digest: hash(row, "digest")?,
        through_seq: number(row, "through_seq")?,
        published_at: wall(row, "published_at")?,
        squashes: vec![],
    })
}

pub(super) fn evaluation(row: &SqliteRow) -> Result<EvaluationRecord, LedgerError> {
    Ok(EvaluationRecord {
        version: Version(number(row, "version")?),
        lease: LeaseId(number(row, "lease")?),
        nats: row.try_get("nats")?,
        tokens: number(row, "tokens")?,
        text_bytes: number(row, "text_bytes")?,
        measured_at: wall(row, "measured_at")?,
    })
}
