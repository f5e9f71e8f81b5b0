//! Rows and records: how each fact is written to a table and read back.

pub(super) mod series;

use super::{
    batch::End,
    desk,
    tables::{Cells, Statement, Tables, Value, sql},
};
use crate::{
    engine::{
        record::{
            DeltaRecord, DeviceRecord, EvaluationRecord, LeaseOutcome, LeaseRecord, Record, Squash, VersionRecord,
        },
        snapshot::{MergedRange, RecentDelta},
    },
    store::{
        BadRow, Closed, LeaseFacts, LedgerError, Link, Point,
        ledger::{TOKENS_MAX, integer},
    },
};
use data_encoding::HEXLOWER;
use nightjar_shared::{
    blob::BlobRef,
    ids::{BlobHash, DeviceId, Generation, LeaseId, Version},
    lease::LeaseKind,
    public_name::PublicName,
    time::Wall,
    wire::Role,
};

/// What the ledger has a word for.
pub(super) trait Word: Copy + 'static {
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
pub(super) struct TableRow<'r, R> {
    pub row: &'r R,
    pub table: &'static str,
    pub key: &'static str,
}

impl<'r, R: Cells> TableRow<'r, R> {
    fn bad(&self, column: &'static str, why: &'static str) -> BadRow {
        let number = self.row.integer(self.key).map(|n| n.to_string()).ok();
        let bytes = || self.row.bytes(self.key).ok().flatten().map(|b| HEXLOWER.encode(b));
        let id = number.or_else(bytes).unwrap_or_else(|| "unknown".into());
        BadRow { table: self.table, id, column, why }
    }

    /// The column, as the database gives it.
    fn got<T>(&self, column: &'static str, cell: Result<T, sqlx::Error>) -> Result<T, BadRow> {
        cell.map_err(|_| self.bad(column, "is not of its kind"))
    }

    pub fn integer(&self, column: &'static str) -> Result<i64, BadRow> {
        self.got(column, self.row.integer(column))
    }

    pub fn number(&self, column: &'static str) -> Result<u64, BadRow> {
        u64::try_from(self.integer(column)?).map_err(|_| self.bad(column, "is negative"))
    }

    fn small(&self, column: &'static str) -> Result<u32, BadRow> {
        u32::try_from(self.number(column)?).map_err(|_| self.bad(column, "is too large"))
    }

    fn truth(&self, column: &'static str) -> Result<bool, BadRow> {
        Ok(self.integer(column)? != 0)
    }

    fn tokens(&self) -> Result<u64, BadRow> {
        let tokens = self.number("tokens")?;
        if tokens <= TOKENS_MAX { Ok(tokens) } else { Err(self.bad("tokens", "is too large")) }
    }

    fn real(&self, column: &'static str) -> Result<f64, BadRow> {
        let value = self.got(column, self.row.real(column))?;
        if value.is_finite() { Ok(value) } else { Err(self.bad(column, "is not a finite number")) }
    }

    pub fn bytes(&self, column: &'static str) -> Result<&'r [u8], BadRow> {
        self.got(column, self.row.bytes(column))?.ok_or_else(|| self.bad(column, "is missing"))
    }

    pub fn text(&self, column: &'static str) -> Result<&'r str, BadRow> {
        self.got(column, self.row.text(column))?.ok_or_else(|| self.bad(column, "is missing"))
    }

    pub fn hash(&self, column: &'static str) -> Result<[u8; 32], BadRow> {
        self.bytes(column)?.try_into().map_err(|_| self.bad(column, "is not 32 bytes long"))
    }

    pub fn wall(&self, column: &'static str) -> Result<Wall, BadRow> {
        Ok(Wall { unix_ms: self.number(column)? })
    }

    pub fn word<W: Word>(&self, column: &'static str) -> Result<W, BadRow> {
        let text = self.text(column)?;
        let found = W::ALL.iter().find(|value| value.word() == text);
        found.copied().ok_or_else(|| self.bad(column, "is an unknown word"))
    }

    pub fn wall_if_any(&self, column: &'static str) -> Result<Option<Wall>, BadRow> {
        let moment = self.got(column, self.row.integer_if_any(column))?;
        moment.map(|_| self.wall(column)).transpose()
    }

    fn blob(&self, hash: &'static str, bytes: &'static str) -> Result<BlobRef, BadRow> {
        Ok(BlobRef { hash: BlobHash(self.hash(hash)?), bytes: self.number(bytes)? })
    }

    fn blob_if_any(&self, hash: &'static str, bytes: &'static str) -> Result<Option<BlobRef>, BadRow> {
        match self.got(hash, self.row.bytes(hash))? {
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
    pub fn or_unknown<T: Default>(&mut self, value: Result<T, BadRow>) -> T {
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
    pub fn readable<'r, R: 'r, T>(
        &mut self,
        rows: impl IntoIterator<Item = &'r R>,
        read: impl Fn(&'r R, &mut Self) -> Result<T, BadRow>,
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

/// A number of the run's row.
pub(super) fn number(row: &impl Cells, column: &'static str) -> Result<u64, LedgerError> {
    number_of(row, "run", column)
}

/// A number of a table's only row.
pub(super) fn number_of(row: &impl Cells, table: &'static str, column: &'static str) -> Result<u64, LedgerError> {
    Ok(TableRow { row, table, key: "only_row" }.number(column)?)
}

/// A hash of the run's row.
pub(super) fn hash(row: &impl Cells, column: &'static str) -> Result<[u8; 32], LedgerError> {
    Ok(TableRow { row, table: "run", key: "only_row" }.hash(column)?)
}

/// A row of values, in the order of a table's columns.
macro_rules! row {
    ($($value:expr),* $(,)?) => { Ok(vec![$(Value::from($value)),*]) };
}

pub(super) fn of_device(d: &DeviceRecord) -> Result<Vec<Value>, LedgerError> {
    row![
        &d.id.0[..],
        &*d.name,
        &*d.device,
        i64::from(i32::from(d.role)),
        &d.invite_nonce[..],
        integer("enrolled_at", d.enrolled_at.unix_ms)?,
        d.tokens_per_s,
        d.left,
        Value::Text(d.public_name.as_ref().map(|name| name.as_str().to_owned())),
        d.name_hidden,
    ]
}

pub(super) fn of_lease(l: &LeaseRecord, end: Option<End>) -> Result<Vec<Value>, LedgerError> {
    row![
        integer("id", l.id.0)?,
        integer("generation", l.generation.0)?,
        &l.device.0[..],
        l.kind.word(),
        integer("base_version", l.base_version.0)?,
        l.epoch,
        l.shard,
        l.first_sample,
        l.samples,
        l.steps,
        integer("issued_at", l.issued_at.unix_ms)?,
        end.map(|end| end.outcome.word()),
        end.map_or(0, |end| end.samples_used),
        end.map(|end| integer("closed_at", end.at.unix_ms)).transpose()?,
    ]
}

/// The end of a lease: its number, and what is to be set.
pub(super) fn of_end(id: LeaseId, end: End) -> Result<Vec<Value>, LedgerError> {
    row![integer("id", id.0)?, end.outcome.word(), end.samples_used, integer("closed_at", end.at.unix_ms)?]
}

pub(super) fn of_delta(d: &DeltaRecord) -> Result<Vec<Value>, LedgerError> {
    row![
        integer("seq", d.seq)?,
        integer("lease", d.lease.0)?,
        &d.device.0[..],
        &d.blob.hash.0[..],
        integer("bytes", d.blob.bytes)?,
        d.steps,
        integer("tokens", d.tokens)?,
        integer("staleness", d.staleness)?,
        d.weight,
        d.norm,
        integer("train_ms", d.train_ms)?,
        integer("wall_ms", d.wall_ms)?,
        d.loss_first,
        d.loss_last,
        integer("merged_at", d.merged_at.unix_ms)?,
    ]
}

pub(super) fn of_version(v: &VersionRecord) -> Result<Vec<Value>, LedgerError> {
    row![
        integer("version", v.version.0)?,
        v.update.as_ref().map(|blob| &blob.hash.0[..]),
        v.update.map(|blob| integer("update_bytes", blob.bytes)).transpose()?,
        v.keyframe.as_ref().map(|blob| &blob.hash.0[..]),
        v.keyframe.map(|blob| integer("keyframe_bytes", blob.bytes)).transpose()?,
        &v.digest[..],
        integer("through_seq", v.through_seq)?,
        integer("published_at", v.published_at.unix_ms)?,
        v.given.as_ref().map(|blob| &blob.hash.0[..]),
        v.given.map(|blob| integer("given_bytes", blob.bytes)).transpose()?,
    ]
}

pub(super) fn of_squash(version: Version, s: &Squash) -> Result<Vec<Value>, LedgerError> {
    row![
        integer("version", version.0)?,
        integer("from_version", s.from.0)?,
        &s.blob.hash.0[..],
        integer("bytes", s.blob.bytes)?,
    ]
}

pub(super) fn of_evaluation(e: &EvaluationRecord) -> Result<Vec<Value>, LedgerError> {
    row![
        integer("lease", e.lease.0)?,
        integer("version", e.version.0)?,
        e.nats,
        integer("tokens", e.tokens)?,
        integer("text_bytes", e.text_bytes)?,
        integer("measured_at", e.measured_at.unix_ms)?,
    ]
}

/// What an operator ordered, or what is written of it; `None` for any other record.
pub(super) fn of_order(record: &Record) -> Result<Option<Statement>, LedgerError> {
    Ok(Some(match record {
        Record::DeviceRevoked { id, at } => sql("/* device revoked */ INSERT INTO revoked_devices VALUES ($1, $2)")
            .bind(&id.0[..])
            .bind(integer("revoked_at", at.unix_ms)?),
        Record::InviteRevoked { nonce, at } => sql("/* invite revoked */ INSERT INTO revoked_invites VALUES ($1, $2)")
            .bind(&nonce[..])
            .bind(integer("revoked_at", at.unix_ms)?),
        Record::Paused(at) => sql("/* paused */ UPDATE run SET paused_at = $1")
            .bind(at.map(|at| integer("paused_at", at.unix_ms)).transpose()?),
        Record::Extended { token_budget } => {
            sql("/* extended */ UPDATE run SET token_budget = $1").bind(integer("token_budget", *token_budget)?)
        }
        Record::Series(series) => series::write(series)?,
        Record::Audit(entry) => desk::audit_row(entry)?,
        Record::Device(_)
        | Record::LeaseIssued(_)
        | Record::LeaseClosed { .. }
        | Record::Delta(_)
        | Record::Version(_)
        | Record::Evaluation(_) => return Ok(None),
    }))
}

pub(super) fn device(row: &impl Cells, aside: &mut SetAside) -> Result<DeviceRecord, BadRow> {
    let cells = TableRow { row, table: "devices", key: "id" };
    Ok(DeviceRecord {
        id: DeviceId(cells.hash("id")?),
        name: aside.or_unknown(cells.text("name").map(str::to_owned)),
        device: aside.or_unknown(cells.text("device").map(str::to_owned)),
        role: aside.or_unknown(role(&cells)),
        invite_nonce: cells.bytes("invite_nonce")?.to_vec(),
        enrolled_at: aside.or_unknown(cells.wall("enrolled_at")),
        tokens_per_s: aside.or_unknown(cells.real("tokens_per_s")),
        left: cells.truth("has_left")?,
        // A ledger of an earlier version that is only read has neither; and a name that is none is not shown.
        public_name: row.text("public_name").ok().flatten().and_then(|name| PublicName::parse(name).ok()),
        name_hidden: row.integer("name_hidden").is_ok_and(|hidden| hidden != 0),
    })
}

pub(super) fn role(cells: &TableRow<'_, impl Cells>) -> Result<Role, BadRow> {
    let role = i32::try_from(cells.integer("role")?).ok().and_then(|r| Role::try_from(r).ok());
    role.ok_or_else(|| cells.bad("role", "is unknown"))
}

pub(super) fn lease(row: &impl Cells, aside: &mut SetAside) -> Result<LeaseRecord, BadRow> {
    let cells = TableRow { row, table: "leases", key: "id" };
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

pub(super) fn lease_facts(row: &impl Cells, aside: &mut SetAside) -> Result<LeaseFacts, BadRow> {
    let cells = TableRow { row, table: "leases", key: "id" };
    let closed = match cells.got("outcome", row.text("outcome"))? {
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
pub(super) fn lease_number(row: &impl Cells) -> Result<LeaseId, BadRow> {
    Ok(LeaseId(TableRow { row, table: "leases", key: "id" }.number("id")?))
}

/// A merged delta with its lease, as far as sums are made of it.
pub(super) struct Merged {
    pub device: DeviceId,
    pub tokens: u64,
    /// The generation is zero where the lease has no row.
    pub lease: (LeaseId, Generation),
    pub is_of_training: bool,
}

/// Of a row of a delta and, where there is one, its lease.
pub(super) fn merged(row: &impl Cells) -> Result<Merged, BadRow> {
    let cells = TableRow { row, table: "deltas", key: "seq" };
    let is = |column, word| row.text(column).is_ok_and(|text| text == Some(word));
    Ok(Merged {
        device: DeviceId(cells.hash("device")?),
        tokens: cells.tokens().unwrap_or(0),
        lease: (LeaseId(cells.number("lease")?), Generation(cells.number("generation").unwrap_or(0))),
        is_of_training: is("kind", LeaseKind::Train.name()) && is("outcome", LeaseOutcome::Merged.name()),
    })
}

/// What a merged delta was trained on: an epoch, and samples of it.
pub(super) fn merged_range(row: &impl Cells) -> Result<(u32, MergedRange), BadRow> {
    let cells = TableRow { row, table: "leases", key: "id" };
    let (shard, first, samples) = (cells.small("shard")?, cells.small("first_sample")?, cells.small("samples_used")?);
    Ok((cells.small("epoch")?, MergedRange { shard, first, samples }))
}

/// What the weights are made of must be right: which blob, of whom, for which lease, and how much it counts. All else
/// about a delta is told to people.
pub(super) fn delta(row: &impl Cells, aside: &mut SetAside) -> Result<DeltaRecord, BadRow> {
    let cells = TableRow { row, table: "deltas", key: "seq" };
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
pub(super) fn recent(row: &impl Cells, tokens_so_far: u64) -> Result<RecentDelta, BadRow> {
    let cells = TableRow { row, table: "deltas", key: "seq" };
    Ok(RecentDelta {
        seq: cells.number("seq")?,
        device: DeviceId(cells.hash("device")?),
        norm: cells.real("norm")?,
        steps: cells.small("steps")?,
        tokens_so_far,
        merged_at: cells.wall("merged_at")?,
    })
}

/// A delta's tokens; none where they are no number of tokens.
pub(super) fn tokens(row: &impl Cells) -> u64 {
    TableRow { row, table: "deltas", key: "seq" }.tokens().unwrap_or(0)
}

pub(super) fn merged_blob(row: &impl Cells) -> Result<BlobHash, BadRow> {
    Ok(BlobHash(TableRow { row, table: "deltas", key: "seq" }.hash("blob")?))
}

/// A link of the chain of checkpoints.
pub(super) fn link(row: &impl Cells) -> Result<Link, BadRow> {
    let cells = TableRow { row, table: "checkpoint_links", key: "version" };
    Ok(Link {
        version: Version(cells.number("version")?),
        through_seq: cells.number("through_seq")?,
        tokens: cells.number("tokens")?,
        checkpoint: BlobHash(cells.hash("checkpoint")?),
        rows: cells.hash("rows_hash")?,
        hash: cells.hash("hash")?,
    })
}

/// A version at which something may begin.
pub(super) fn point(row: &impl Cells) -> Result<Point, BadRow> {
    let cells = TableRow { row, table: "versions", key: "version" };
    Ok(Point {
        version: Version(cells.number("version")?),
        through_seq: cells.number("through_seq")?,
        published_at: cells.wall("published_at")?,
    })
}

/// Versions, given oldest first, with their squashes. The weights are the sum of them: one that cannot be read is an
/// error.
pub(super) async fn versions<'r, T: Tables>(
    tx: &mut T,
    oldest_first: impl Iterator<Item = &'r T::Row>,
    aside: &mut SetAside,
) -> Result<Vec<VersionRecord>, LedgerError>
where
    T::Row: 'r,
{
    let mut versions = oldest_first.map(|row| version(row, aside)).collect::<Result<Vec<_>, _>>()?;
    let (Some(oldest), Some(newest)) = (versions.first(), versions.last()) else { return Ok(versions) };
    let squashes = sql("/* squashes */ SELECT * FROM squashes WHERE version BETWEEN $1 AND $2
         ORDER BY version, from_version DESC");
    let squashes = squashes.bind(integer("version", oldest.version.0)?).bind(integer("version", newest.version.0)?);
    let rows = tx.rows(squashes).await?;
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

fn squash(row: &impl Cells) -> Result<(Version, Squash), BadRow> {
    let cells = TableRow { row, table: "squashes", key: "version" };
    let squash = Squash { from: Version(cells.number("from_version")?), blob: cells.blob("hash", "bytes")? };
    Ok((Version(cells.number("version")?), squash))
}

/// A version, without its squashes.
pub(super) fn version(row: &impl Cells, aside: &mut SetAside) -> Result<VersionRecord, BadRow> {
    let cells = TableRow { row, table: "versions", key: "version" };
    Ok(VersionRecord {
        version: Version(cells.number("version")?),
        update: cells.blob_if_any("update_hash", "update_bytes")?,
        keyframe: cells.blob_if_any("keyframe_hash", "keyframe_bytes")?,
        // A ledger of an earlier version that is only read has no such column.
        given: match row.bytes("given_hash") {
            Err(sqlx::Error::ColumnNotFound(_)) => None,
            _ => cells.blob_if_any("given_hash", "given_bytes")?,
        },
        digest: cells.hash("digest")?,
        through_seq: cells.number("through_seq")?,
        published_at: aside.or_unknown(cells.wall("published_at")),
        squashes: vec![],
    })
}

pub(super) fn evaluation(row: &impl Cells, aside: &mut SetAside) -> Result<EvaluationRecord, BadRow> {
    let cells = TableRow { row, table: "evaluations", key: "lease" };
    Ok(EvaluationRecord {
        version: Version(cells.number("version")?),
        lease: LeaseId(cells.number("lease")?),
        nats: cells.real("nats")?,
        tokens: cells.tokens()?,
        text_bytes: cells.number("text_bytes")?,
        measured_at: aside.or_unknown(cells.wall("measured_at")),
    })
}
