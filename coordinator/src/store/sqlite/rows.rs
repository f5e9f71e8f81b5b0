//! Rows and records: how each fact is written to a table and read back.

use crate::{
    engine::{
        record::{
            DeltaRecord, DeviceRecord, EvaluationRecord, LeaseOutcome, LeaseRecord, Record, Squash, VersionRecord,
        },
        snapshot::{MergedRange, RecentDelta},
    },
    store::{
        BadRow, Closed, LeaseFacts, LedgerError,
        ledger::{TOKENS_MAX, check, integer},
    },
};
use data_encoding::HEXLOWER;
use nightjar_shared::{
    blob::BlobRef,
    ids::{BlobHash, DeviceId, Generation, LeaseId, Version},
    lease::LeaseKind,
    time::Wall,
    wire::Role,
};
use sqlx::{Decode, Row, Sqlite, Transaction, Type, sqlite::SqliteRow};

/// The word of a lease's kind or outcome.
trait Word: Copy + 'static {
    const ALL: &'static [Self];
    fn word(self) -> &'static str;
}

impl Word for LeaseKind {
    const ALL: &'static [Self] = &LeaseKind::ALL;

    fn word(self) -> &'static str {
        self.name()
    }
}

impl Word for LeaseOutcome {
    const ALL: &'static [Self] = &LeaseOutcome::ALL;

    fn word(self) -> &'static str {
        self.name()
    }
}

/// A table's row as it is read. What is wrong in it is told with the table, the row and the column.
struct Cells<'r> {
    row: &'r SqliteRow,
    table: &'static str,
    key: &'static str,
}

impl<'r> Cells<'r> {
    fn bad(&self, column: &'static str, why: &'static str) -> BadRow {
        let number = self.row.try_get::<i64, _>(self.key).map(|n| n.to_string());
        let bytes = || self.row.try_get::<&[u8], _>(self.key).map(|b| HEXLOWER.encode(b));
        let id = number.or_else(|_| bytes()).unwrap_or_else(|_| "unknown".into());
        BadRow { table: self.table, id, column, why }
    }

    fn get<T: Decode<'r, Sqlite> + Type<Sqlite>>(&self, column: &'static str) -> Result<T, BadRow> {
        self.row.try_get(column).map_err(|_| self.bad(column, "is not of its kind"))
    }

    fn number(&self, column: &'static str) -> Result<u64, BadRow> {
        u64::try_from(self.get::<i64>(column)?).map_err(|_| self.bad(column, "is negative"))
    }

    fn small(&self, column: &'static str) -> Result<u32, BadRow> {
        u32::try_from(self.number(column)?).map_err(|_| self.bad(column, "is too large"))
    }

    fn tokens(&self) -> Result<u64, BadRow> {
        let tokens = self.number("tokens")?;
        if tokens <= TOKENS_MAX { Ok(tokens) } else { Err(self.bad("tokens", "is too large")) }
    }

    fn real(&self, column: &'static str) -> Result<f64, BadRow> {
        let value = self.get::<f64>(column)?;
        if value.is_finite() { Ok(value) } else { Err(self.bad(column, "is not a finite number")) }
    }

    fn hash(&self, column: &'static str) -> Result<[u8; 32], BadRow> {
        self.get::<&[u8]>(column)?.try_into().map_err(|_| self.bad(column, "is not 32 bytes long"))
    }

    fn wall(&self, column: &'static str) -> Result<Wall, BadRow> {
        Ok(Wall { unix_ms: self.number(column)? })
    }

    fn word<W: Word>(&self, column: &'static str) -> Result<W, BadRow> {
        let text = self.get::<&str>(column)?;
        let found = W::ALL.iter().find(|value| value.word() == text);
        found.copied().ok_or_else(|| self.bad(column, "is an unknown word"))
    }

    fn blob(&self, hash: &'static str, bytes: &'static str) -> Result<BlobRef, BadRow> {
        Ok(BlobRef { hash: BlobHash(self.hash(hash)?), bytes: self.number(bytes)? })
    }

    fn blob_if_any(&self, hash: &'static str, bytes: &'static str) -> Result<Option<BlobRef>, BadRow> {
        match self.get::<Option<&[u8]>>(hash)? {
            None => Ok(None),
            Some(_) => self.blob(hash, bytes).map(Some),
        }
    }
}

/// What a ledger tells although some of its rows hold what was never meant: the readable, and what is wrong with the
/// rest. A column that the weights do not depend on counts as unknown; a row without one that they do is set aside.
#[derive(Default)]
pub(super) struct SetAside(pub Vec<BadRow>);

impl SetAside {
    /// The column's value; the default where it cannot be read.
    fn or_unknown<T: Default>(&mut self, value: Result<T, BadRow>) -> T {
        value.unwrap_or_else(|bad| {
            self.0.push(bad);
            T::default()
        })
    }

    /// Tells whoever reads the log.
    pub fn told(&self) {
        for bad in &self.0 {
            tracing::warn!("the ledger holds what was never meant, and goes on without it: {bad}");
        }
    }

    /// The rows that can be read.
    pub fn readable<'r, T>(
        &mut self,
        rows: impl IntoIterator<Item = &'r SqliteRow>,
        read: impl Fn(&'r SqliteRow, &mut Self) -> Result<T, BadRow>,
    ) -> Vec<T> {
        let mut readable = vec![];
        for row in rows {
            match read(row, self) {
                Ok(value) => readable.push(value),
                Err(bad) => self.0.push(bad),
            }
        }
        readable
    }
}

/// A number of a query that is no row of a table.
pub(super) fn number(row: &SqliteRow, column: &'static str) -> Result<u64, LedgerError> {
    Ok(Cells { row, table: "run", key: column }.number(column)?)
}

/// A hash of the run's row.
pub(super) fn hash(row: &SqliteRow, column: &'static str) -> Result<[u8; 32], LedgerError> {
    Ok(Cells { row, table: "run", key: "only_row" }.hash(column)?)
}

/// Writes one record. One that would not be read back as it is, or that contradicts the facts that are there, is
/// refused.
pub(super) async fn insert(tx: &mut Transaction<'_, Sqlite>, record: &Record) -> Result<(), LedgerError> {
    check(record)?;
    let query = match record {
        Record::Device(d) => sqlx::query(
            "INSERT INTO devices VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET
                 name = excluded.name, device = excluded.device, role = excluded.role, invite_nonce = excluded.invite_nonce,
                 enrolled_at = excluded.enrolled_at, tokens_per_s = excluded.tokens_per_s, has_left = excluded.has_left",
        )
        .bind(&d.id.0[..])
        .bind(&d.name)
        .bind(&d.device)
        .bind(i32::from(d.role))
        .bind(&d.invite_nonce)
        .bind(integer("enrolled_at", d.enrolled_at.unix_ms)?)
        .bind(d.tokens_per_s)
        .bind(d.left),
        Record::LeaseIssued(l) => sqlx::query(
            "INSERT INTO leases (id, generation, device, kind, base_version, epoch, shard, first_sample, samples, steps,
                                 issued_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(integer("id", l.id.0)?)
        .bind(integer("generation", l.generation.0)?)
        .bind(&l.device.0[..])
        .bind(l.kind.word())
        .bind(integer("base_version", l.base_version.0)?)
        .bind(l.epoch)
        .bind(l.shard)
        .bind(l.first_sample)
        .bind(l.samples)
        .bind(l.steps)
        .bind(integer("issued_at", l.issued_at.unix_ms)?),
        Record::LeaseClosed { id, outcome, samples_used, at } => {
            sqlx::query("UPDATE leases SET outcome = ?, samples_used = ?, closed_at = ? WHERE id = ? AND outcome IS \
                NULL")
                .bind(outcome.word())
                .bind(*samples_used)
                .bind(integer("closed_at", at.unix_ms)?)
                .bind(integer("id", id.0)?)
        }
        Record::Delta(d) => sqlx::query("INSERT INTO deltas VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
            .bind(integer("seq", d.seq)?)
            .bind(integer("lease", d.lease.0)?)
            .bind(&d.device.0[..])
            .bind(&d.blob.hash.0[..])
            .bind(integer("bytes", d.blob.bytes)?)
            .bind(d.steps)
            .bind(integer("tokens", d.tokens)?)
            .bind(integer("staleness", d.staleness)?)
            .bind(d.weight)
            .bind(d.norm)
            .bind(integer("train_ms", d.train_ms)?)
            .bind(integer("wall_ms", d.wall_ms)?)
            .bind(d.loss_first)
            .bind(d.loss_last)
            .bind(integer("merged_at", d.merged_at.unix_ms)?),
        Record::Version(v) => sqlx::query("INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
            .bind(integer("version", v.version.0)?)
            .bind(v.update.as_ref().map(|blob| &blob.hash.0[..]))
            .bind(v.update.map(|blob| integer("update_bytes", blob.bytes)).transpose()?)
            .bind(v.keyframe.as_ref().map(|blob| &blob.hash.0[..]))
            .bind(v.keyframe.map(|blob| integer("keyframe_bytes", blob.bytes)).transpose()?)
            .bind(&v.digest[..])
            .bind(integer("through_seq", v.through_seq)?)
            .bind(integer("published_at", v.published_at.unix_ms)?),
        Record::Evaluation(e) => sqlx::query("INSERT INTO evaluations VALUES (?, ?, ?, ?, ?, ?)")
            .bind(integer("lease", e.lease.0)?)
            .bind(integer("version", e.version.0)?)
            .bind(e.nats)
            .bind(integer("tokens", e.tokens)?)
            .bind(integer("text_bytes", e.text_bytes)?)
            .bind(integer("measured_at", e.measured_at.unix_ms)?),
    };
    if query.execute(&mut **tx).await?.rows_affected() == 0 {
        return Err(LedgerError::Contradiction(format!("nothing to change for {record:?}")));
    }
    if let Record::Version(v) = record {
        for Squash { from, blob } in &v.squashes {
            sqlx::query("INSERT INTO squashes VALUES (?, ?, ?, ?)")
                .bind(integer("version", v.version.0)?)
                .bind(integer("from_version", from.0)?)
                .bind(&blob.hash.0[..])
                .bind(integer("bytes", blob.bytes)?)
                .execute(&mut **tx)
                .await?;
        }
    }
    Ok(())
}

pub(super) fn device(row: &SqliteRow, aside: &mut SetAside) -> Result<DeviceRecord, BadRow> {
    let cells = Cells { row, table: "devices", key: "id" };
    let role = cells.get::<i32>("role").and_then(|r| Role::try_from(r).map_err(|_| cells.bad("role", "is unknown")));
    Ok(DeviceRecord {
        id: DeviceId(cells.hash("id")?),
        name: aside.or_unknown(cells.get("name")),
        device: aside.or_unknown(cells.get("device")),
        role: aside.or_unknown(role),
        invite_nonce: cells.get("invite_nonce")?,
        enrolled_at: aside.or_unknown(cells.wall("enrolled_at")),
        tokens_per_s: aside.or_unknown(cells.real("tokens_per_s")),
        left: cells.get("has_left")?,
    })
}

pub(super) fn lease(row: &SqliteRow, aside: &mut SetAside) -> Result<LeaseRecord, BadRow> {
    let cells = Cells { row, table: "leases", key: "id" };
    Ok(LeaseRecord {
        id: LeaseId(cells.number("id")?),
        generation: Generation(cells.number("generation")?),
        device: DeviceId(cells.hash("device")?),
        kind: cells.word("kind")?,
        base_version: Version(cells.number("base_version")?),
        epoch: cells.small("epoch")?,
        shard: cells.small("shard")?,
        first_sample: cells.small("first_sample")?,
        samples: cells.small("samples")?,
        steps: cells.small("steps")?,
        issued_at: aside.or_unknown(cells.wall("issued_at")),
    })
}

pub(super) fn lease_facts(row: &SqliteRow, aside: &mut SetAside) -> Result<LeaseFacts, BadRow> {
    let cells = Cells { row, table: "leases", key: "id" };
    let closed = match cells.get::<Option<&str>>("outcome")? {
        None => None,
        Some(_) => Some(Closed {
            outcome: cells.word("outcome")?,
            samples_used: cells.small("samples_used")?,
            at: aside.or_unknown(cells.wall("closed_at")),
        }),
    };
    Ok(LeaseFacts { lease: lease(row, aside)?, closed })
}

/// The number of a lease.
pub(super) fn lease_number(row: &SqliteRow) -> Result<LeaseId, BadRow> {
    Ok(LeaseId(Cells { row, table: "leases", key: "id" }.number("id")?))
}

/// What a merged delta was trained on, with its lease.
pub(super) fn merged_range(row: &SqliteRow, _: &mut SetAside) -> Result<(LeaseId, MergedRange), BadRow> {
    let cells = Cells { row, table: "leases", key: "id" };
    let (shard, first, samples) = (cells.small("shard")?, cells.small("first_sample")?, cells.small("samples_used")?);
    Ok((lease_number(row)?, MergedRange { shard, first, samples }))
}

/// What the weights are made of must be right: which blob, of whom, for which lease, and how much it counts. All else
/// about a delta is told to people.
pub(super) fn delta(row: &SqliteRow, aside: &mut SetAside) -> Result<DeltaRecord, BadRow> {
    let cells = Cells { row, table: "deltas", key: "seq" };
    Ok(DeltaRecord {
        seq: cells.number("seq")?,
        lease: LeaseId(cells.number("lease")?),
        device: DeviceId(cells.hash("device")?),
        blob: cells.blob("blob", "bytes")?,
        tokens: cells.tokens()?,
        steps: aside.or_unknown(cells.small("steps")),
        staleness: aside.or_unknown(cells.number("staleness")),
        weight: cells.real("weight")?,
        norm: aside.or_unknown(cells.real("norm")),
        train_ms: aside.or_unknown(cells.number("train_ms")),
        wall_ms: aside.or_unknown(cells.number("wall_ms")),
        loss_first: aside.or_unknown(cells.real("loss_first")),
        loss_last: aside.or_unknown(cells.real("loss_last")),
        merged_at: aside.or_unknown(cells.wall("merged_at")),
    })
}

/// What the screen remembers of a delta.
pub(super) fn recent(row: &SqliteRow, _: &mut SetAside) -> Result<RecentDelta, BadRow> {
    let cells = Cells { row, table: "deltas", key: "seq" };
    Ok(RecentDelta {
        seq: cells.number("seq")?,
        device: DeviceId(cells.hash("device")?),
        norm: cells.real("norm")?,
        steps: cells.small("steps")?,
        tokens_so_far: cells.number("tokens_so_far")?,
        merged_at: cells.wall("merged_at")?,
    })
}

pub(super) fn merged_blob(row: &SqliteRow) -> Result<BlobHash, BadRow> {
    Ok(BlobHash(Cells { row, table: "deltas", key: "seq" }.hash("blob")?))
}

/// Versions, given oldest first, with their squashes. The weights are the sum of them: one that cannot be read is an
/// error.
pub(super) async fn versions<'r>(
    tx: &mut Transaction<'_, Sqlite>,
    oldest_first: impl Iterator<Item = &'r SqliteRow>,
    aside: &mut SetAside,
) -> Result<Vec<VersionRecord>, LedgerError> {
    let mut versions = oldest_first.map(|row| version(row, aside)).collect::<Result<Vec<_>, _>>()?;
    let Some(oldest) = versions.first().map(|v| v.version) else { return Ok(versions) };
    let rows = sqlx::query("SELECT * FROM squashes WHERE version >= ? ORDER BY version, from_version DESC")
        .bind(integer("version", oldest.0)?)
        .fetch_all(&mut **tx)
        .await?;
    for (of, squash) in aside.readable(&rows, |row, _| squash(row)) {
        match versions.binary_search_by_key(&of, |v| v.version) {
            Ok(at) => versions[at].squashes.push(squash),
            Err(_) => {
                let (column, why) = ("version", "leads to no version");
                aside.0.push(BadRow { table: "squashes", id: of.to_string(), column, why });
            }
        }
    }
    Ok(versions)
}

fn squash(row: &SqliteRow) -> Result<(Version, Squash), BadRow> {
    let cells = Cells { row, table: "squashes", key: "version" };
    let squash = Squash { from: Version(cells.number("from_version")?), blob: cells.blob("hash", "bytes")? };
    Ok((Version(cells.number("version")?), squash))
}

fn version(row: &SqliteRow, aside: &mut SetAside) -> Result<VersionRecord, BadRow> {
    let cells = Cells { row, table: "versions", key: "version" };
    Ok(VersionRecord {
        version: Version(cells.number("version")?),
        update: cells.blob_if_any("update_hash", "update_bytes")?,
        keyframe: cells.blob_if_any("keyframe_hash", "keyframe_bytes")?,
        digest: cells.hash("digest")?,
        through_seq: cells.number("through_seq")?,
        published_at: aside.or_unknown(cells.wall("published_at")),
        squashes: vec![],
    })
}

pub(super) fn evaluation(row: &SqliteRow, aside: &mut SetAside) -> Result<EvaluationRecord, BadRow> {
    let cells = Cells { row, table: "evaluations", key: "lease" };
    Ok(EvaluationRecord {
        version: Version(cells.number("version")?),
        lease: LeaseId(cells.number("lease")?),
        nats: cells.real("nats")?,
        tokens: cells.tokens()?,
        text_bytes: cells.number("text_bytes")?,
        measured_at: aside.or_unknown(cells.wall("measured_at")),
    })
}
