//! The ledger in an SQL database. What SQLite and PostgreSQL share is here: statements, rows, and the rule that every
//! transaction that writes is conditional on the generation that this process raised when it opened the ledger. What
//! differs is a [`Dialect`].

pub(super) mod batch;
pub(super) mod desk;
mod epochs;
mod keeping;
mod of_device;
mod read;
pub(super) mod rows;
mod sums;
pub(super) mod tables;
mod whole;

use super::{
    BadRow, Counters, Curves, Facts, LeaseOfDevice, Ledger, LedgerError, Lineage, Merged, RunIdentity, Shards, Unnamed,
    desk::Note,
    ledger::{Answer, integer},
};
use crate::engine::{
    record::{LeaseOutcome, Record},
    snapshot::Snapshot,
};
use batch::Batch;
use nightjar_shared::{
    fail,
    ids::{BlobHash, DeviceId, Generation, LeaseId, RunId, Version},
    run_spec::RunSpec,
    time::Wall,
};
use rows::SetAside;
use sqlx::migrate::MigrateError;
use std::{collections::BTreeSet, pin::Pin};
use tables::{Cells, Tables, sql};

/// What a transaction writes.
#[derive(Clone, Copy)]
pub enum Change<'a> {
    /// Facts, and what is to be added to the counters.
    Facts(&'a [Record], Counters),
    /// What of the way to the newest version is lost.
    Losses {
        /// The version from which merging began anew.
        restart: Option<Version>,
        /// Deltas that are passed over.
        deltas: &'a [u64],
    },
    /// The coordinator's key, in a ledger that knows none yet.
    Key(DeviceId),
    /// Another key in the place of this one.
    OtherKey {
        /// The one of before.
        from: DeviceId,
        /// The one from now on.
        to: DeviceId,
    },
    /// The run spec, as JSON.
    Spec(&'a str),
    /// What is kept, and what is given up.
    Keeping(keeping::Note<'a>),
    /// What is summed for starts.
    Sums(sums::Adding),
}

/// A database, open.
pub trait Dialect: Send + Sync + 'static {
    /// A transaction on it.
    type Transaction: Tables;

    /// Counts tables of a name, as `n`.
    const HAS_TABLE: &'static str;

    /// All columns of all tables: `table_name`, `column_name`, its type as `kind`, its place in the primary key as
    /// `key` (0: none).
    const COLUMNS: &'static str;

    /// What makes texts compare by their bytes.
    const BYTEWISE: &'static str;

    /// What makes a row be taken with the number that it has, where the database would give it one.
    const AS_NUMBERED: &'static str;

    /// Has the database go on numbering a table's rows after the last one.
    fn go_on_numbering(table: &str, column: &str) -> Option<String>;

    /// Begins a transaction that reads: all its questions see one state.
    fn begin(&self) -> impl Future<Output = Result<Self::Transaction, LedgerError>> + Send;

    /// Begins a transaction that writes, for whoever fills a ledger that nobody serves.
    fn begin_to_fill(&self) -> impl Future<Output = Result<Self::Transaction, LedgerError>> + Send;

    /// Writes a change in a transaction of its own, by [`write`], if the ledger has still this generation
    /// ([`LedgerError::Fenced`] if not). It returns once nothing can undo it.
    fn write(&self, generation: Generation, change: Change<'_>)
    -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Writes notes in a transaction of their own, by [`desk::write`], whatever the generation.
    fn note(&self, notes: &[Note]) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Lets go of it.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// An open ledger.
pub struct SqlLedger<D> {
    pub(super) dialect: D,
    identity: RunIdentity,
    generation: Generation,
    /// What of the run spec was changed when it was opened, in words.
    changes: Vec<String>,
}

/// How a ledger is taken over by a start: what it belongs to now, its generation, and what of its run spec changes.
pub(super) struct Takeover {
    identity: RunIdentity,
    generation: Generation,
    changes: Vec<String>,
}

/// Raises the generation to max(last + 1, `unix_s`), in a transaction that is the only one to write: who had the ledger
/// open before cannot write any more. Refuses a ledger of another run. What may be changed in a run that exists is taken
/// over from `identity`; the run keeps the name that it began with.
pub(super) async fn take_over(
    tx: &mut impl Tables,
    identity: &RunIdentity,
    unix_s: u64,
) -> Result<Takeover, LedgerError> {
    let (mut identity, mut changes) = (identity.clone(), vec![]);
    let generation = match stored(tx).await? {
        Some((stored, _)) if stored.manifest_hash != identity.manifest_hash => return Err(LedgerError::OtherData),
        Some((stored, last)) => {
            changes = changed(&stored.spec_json, &identity.spec_json)?;
            tx.change(sql("/* take over */ UPDATE run SET spec_json = $1").bind(&*identity.spec_json)).await?;
            identity.run_id = stored.run_id;
            Generation(unix_s.max(last.0 + 1))
        }
        None => {
            let begin = sql("/* begin */ INSERT INTO run (only_row, run_id, spec_json, manifest_hash, generation)
                 VALUES (1, $1, $2, $3, 0)");
            let begin = begin.bind(&identity.run_id.0[..]).bind(&*identity.spec_json);
            tx.change(begin.bind(&identity.manifest_hash.0[..])).await?;
            Generation(unix_s.max(1))
        }
    };
    let raise = sql("/* raise */ UPDATE run SET generation = $1").bind(integer("run.generation", generation.0)?);
    tx.change(raise).await?;
    Ok(Takeover { identity, generation, changes })
}

/// Refuses a ledger whose run has gone elsewhere ([`super::carry`]).
pub(super) async fn refuse_moved<D: Dialect>(tx: &mut D::Transaction) -> Result<(), LedgerError> {
    if tx.number(sql(D::HAS_TABLE).bind("moved")).await? == 0 {
        return Ok(());
    }
    let moved = tx.rows(sql("/* moved */ SELECT place FROM moved")).await?;
    match moved.first().map(|row| row.text("place")).transpose()?.flatten() {
        Some(place) => Err(LedgerError::Moved(place.to_owned())),
        None => Ok(()),
    }
}

/// Tables that cannot be brought to this program's form.
pub(super) fn not_migrated(error: MigrateError) -> LedgerError {
    match error {
        MigrateError::VersionMissing(_) => LedgerError::Newer,
        MigrateError::VersionMismatch(_) => LedgerError::Damaged("its tables are not those of this program"),
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
        error => LedgerError::Sql(sqlx::Error::Migrate(Box::new(error))),
    }
}

/// What a run file has otherwise than the run that exists, in words; refused where that decides what the weights are.
fn changed(stored: &str, given: &str) -> Result<Vec<String>, LedgerError> {
    if stored == given {
        return Ok(vec![]);
    }
    let spec = |json| serde_json::from_str::<RunSpec>(json).map_err(|error| LedgerError::OtherSpec(error.to_string()));
    let changes = spec(stored)?.changed_to(&spec(given)?).map_err(|fixed| LedgerError::OtherSpec(fixed.to_string()))?;
    Ok(changes.iter().map(ToString::to_string).collect())
}

/// What the ledger belongs to, and its generation; `None` in one that no run has begun in.
pub(super) async fn stored(tx: &mut impl Tables) -> Result<Option<(RunIdentity, Generation)>, LedgerError> {
    let run = tx.rows(sql("/* run */ SELECT * FROM run")).await?;
    let Some(row) = run.first() else { return Ok(None) };
    let identity = RunIdentity {
        run_id: RunId(rows::hash(row, "run_id")?),
        spec_json: row.text("spec_json")?.ok_or(LedgerError::Damaged("it has no run spec"))?.to_owned(),
        manifest_hash: BlobHash(rows::hash(row, "manifest_hash")?),
    };
    Ok(Some((identity, Generation(rows::number(row, "generation")?))))
}

/// The coordinator's key in the run's row; none where the column is not there yet.
pub(super) fn key_of(run: &impl Cells) -> Result<Option<[u8; 32]>, LedgerError> {
    match run.bytes("coordinator_key") {
        Ok(Some(_)) => rows::hash(run, "coordinator_key").map(Some),
        Ok(None) | Err(sqlx::Error::ColumnNotFound(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Writes a change; whoever calls it has made sure of the generation.
pub(super) async fn write(tx: &mut impl Tables, change: Change<'_>) -> Result<(), LedgerError> {
    match change {
        Change::Facts(records, more) => {
            if !records.is_empty() {
                Batch::of(records)?.write(tx).await?;
                if let Some(through) = records.iter().filter_map(sums::is_due_at).max() {
                    sums::change(tx, sums::Adding::Through(through)).await?;
                }
                fail::point("ledger.commit.before");
            }
            add_counters(tx, more).await?;
        }
        Change::Losses { restart, deltas } => {
            if let Some(version) = restart {
                let restart = sql("/* restart */ INSERT INTO restarts VALUES ($1) ON CONFLICT DO NOTHING");
                tx.change(restart.bind(integer("restarts.version", version.0)?)).await?;
            }
            for seq in deltas {
                let lost = sql("/* lost delta */ INSERT INTO lost_deltas VALUES ($1) ON CONFLICT DO NOTHING");
                tx.change(lost.bind(integer("lost_deltas.seq", *seq)?)).await?;
            }
        }
        Change::Key(key) => {
            let adopt = sql("/* key */ UPDATE run SET coordinator_key = $1 WHERE coordinator_key IS NULL");
            tx.change(adopt.bind(&key.0[..])).await?;
        }
        Change::OtherKey { from, to } => {
            let change = sql("/* other key */ UPDATE run SET coordinator_key = $1 WHERE coordinator_key = $2");
            tx.change(change.bind(&to.0[..]).bind(&from.0[..])).await?;
        }
        Change::Spec(spec_json) => {
            tx.change(sql("/* change spec */ UPDATE run SET spec_json = $1").bind(spec_json)).await?;
        }
        Change::Keeping(note) => keeping::write(tx, note).await?,
        Change::Sums(adding) => sums::change(tx, adding).await?,
    }
    Ok(())
}

async fn add_counters(tx: &mut impl Tables, more: Counters) -> Result<(), LedgerError> {
    if more == Counters::default() {
        return Ok(());
    }
    // Half of what fits, and more of it than any network carries: the sum is an integer still.
    let add = sql("/* counters */ UPDATE counters SET
             bytes_up = CASE WHEN bytes_up < 2305843009213693952 THEN bytes_up ELSE 2305843009213693952 END + $1,
             bytes_down = CASE WHEN bytes_down < 2305843009213693952 THEN bytes_down
                               ELSE 2305843009213693952 END + $2");
    let add = add.bind(integer("counters.bytes_up", more.bytes_up)?);
    tx.change(add.bind(integer("counters.bytes_down", more.bytes_down)?)).await?;
    Ok(())
}

impl<D: Dialect> SqlLedger<D> {
    /// A ledger that was just taken over.
    pub(super) fn taken(dialect: D, Takeover { identity, generation, changes }: Takeover) -> Self {
        fail::point("ledger.raised");
        SqlLedger { dialect, identity, generation, changes }
    }

    /// A ledger that is only read; `None` if no run has begun in it.
    pub(super) async fn to_read(dialect: D) -> Result<Option<Self>, LedgerError> {
        let stored = stored(&mut dialect.begin().await?).await?;
        Ok(stored.map(|(identity, generation)| SqlLedger { dialect, identity, generation, changes: vec![] }))
    }

    /// A ledger of which only the desk is written; `None` if no run has begun in it.
    pub(super) async fn with_desk(dialect: D) -> Result<Option<Self>, LedgerError> {
        // The transaction ends with this line: a file has one connection.
        let tables = dialect.begin().await?.number(sql(D::HAS_TABLE).bind("tokens")).await?;
        if tables == 0 {
            return Err(LedgerError::Older);
        }
        // No generation is 0: everything else that is written is refused.
        Ok(Self::to_read(dialect).await?.map(|ledger| SqlLedger { generation: Generation(0), ..ledger }))
    }

    /// What of the run spec was changed when it was opened, in words.
    pub fn changes(&self) -> &[String] {
        &self.changes
    }

    /// What it belongs to.
    pub fn identity(&self) -> &RunIdentity {
        &self.identity
    }

    /// Holds the coordinator's key, as TLS shows it, against the ledger's; a ledger that knows none yet takes it.
    pub async fn adopt_key(&self, key: DeviceId) -> Result<(), LedgerError> {
        let run = self.dialect.begin().await?.rows(sql("/* run */ SELECT * FROM run")).await?;
        let known = run.first().map(key_of).transpose()?.flatten();
        match known {
            Some(known) if known != key.0 => Err(LedgerError::OtherKey(DeviceId(known).short())),
            Some(_) => Ok(()),
            None => self.dialect.write(self.generation, Change::Key(key)).await,
        }
    }

    /// Gives the run another key.
    pub async fn change_key(&self, from: DeviceId, to: DeviceId) -> Result<(), LedgerError> {
        self.adopt_key(from).await?;
        self.dialect.write(self.generation, Change::OtherKey { from, to }).await?;
        self.dialect.close().await;
        Ok(())
    }

    async fn caught_up(&self, shards: &Shards, told: &(dyn Fn(u64, u64) + Sync)) -> Result<(), LedgerError> {
        let change = |adding| self.dialect.write(self.generation, Change::Sums(adding));
        if !sums::hold(&mut self.dialect.begin().await?).await? {
            tracing::warn!("the ledger's sums are not what was written; they are made anew of its rows");
            change(sums::Adding::Anew).await?;
        }
        loop {
            let mut tx = self.dialect.begin().await?;
            let known = sums::sound(&mut tx).await?.through_seq;
            let last = sql("/* sums: last delta */ SELECT coalesce(max(seq), 0) AS n FROM deltas");
            let last = read::unsigned(tx.number(last).await?);
            drop(tx);
            told(known, last);
            if last < known + sums::EVERY {
                break;
            }
            change(sums::Adding::Through(last.min(known + sums::AT_ONCE))).await?;
        }
        change(sums::Adding::Finished { samples: shards.samples() }).await
    }

    async fn ended_unfit_leases(&self, shards: &Shards, at: Wall) -> Result<Vec<BadRow>, LedgerError> {
        let mut tx = self.dialect.begin().await?;
        let mut aside = SetAside::default();
        let sums = sums::sound(&mut tx).await?;
        let lately = sums::after(&mut tx, &sums, &mut aside).await?;
        let mut taken = epochs::unfinished(&mut tx, shards, &lately, &mut aside).await?;
        // Not in the order of the rows: SQLite would go through all of them.
        let open = sql("/* open leases */ SELECT * FROM leases WHERE outcome IS NULL ORDER BY id + 0");
        let rows = tx.rows(open).await?;
        drop(tx);
        let (mut unfit, mut ends) = (vec![], vec![]);
        for row in &rows {
            let lease = rows::lease(row, &mut SetAside::default());
            let held = lease.and_then(|lease| if lease.kind.trains() { taken.lease(shards, &lease) } else { Ok(()) });
            if let Err(bad) = held {
                let (id, outcome) = (rows::lease_number(row)?, LeaseOutcome::Returned);
                ends.push(Record::LeaseClosed { id, outcome, samples_used: 0, at });
                unfit.push(bad);
            }
        }
        if !ends.is_empty() {
            self.commit(&ends).await?;
        }
        Ok(unfit)
    }

    async fn read_counters(&self) -> Result<Counters, LedgerError> {
        let rows = self.dialect.begin().await?.rows(sql("/* counters */ SELECT * FROM counters")).await?;
        let Some(row) = rows.first() else { return Ok(Counters::default()) };
        Ok(Counters {
            bytes_up: read::unsigned(row.integer("bytes_up")?),
            bytes_down: read::unsigned(row.integer("bytes_down")?),
        })
    }
}

impl<D: Dialect> Ledger for SqlLedger<D> {
    fn generation(&self) -> Generation {
        self.generation
    }

    fn write<'a>(&'a self, records: &'a [Record], more: Counters) -> Answer<'a, ()> {
        Box::pin(async move {
            self.dialect.write(self.generation, Change::Facts(records, more)).await?;
            if !records.is_empty() {
                fail::point("ledger.commit.after");
            }
            Ok(())
        })
    }

    fn note_losses<'a>(&'a self, restart: Option<Version>, deltas: &'a [u64]) -> Answer<'a, ()> {
        Box::pin(self.dialect.write(self.generation, Change::Losses { restart, deltas }))
    }

    fn change_spec<'a>(&'a self, spec_json: &'a str) -> Answer<'a, ()> {
        Box::pin(self.dialect.write(self.generation, Change::Spec(spec_json)))
    }

    fn counters(&self) -> Answer<'_, Counters> {
        Box::pin(self.read_counters())
    }

    fn catch_up<'a>(&'a self, shards: &'a Shards, told: &'a (dyn Fn(u64, u64) + Sync)) -> Answer<'a, ()> {
        Box::pin(self.caught_up(shards, told))
    }

    fn check_sums(&self) -> Answer<'_, Result<String, String>> {
        Box::pin(async {
            let mut tx = self.dialect.begin().await?;
            match tx.number(sql(D::HAS_TABLE).bind("sums")).await? {
                0 => Ok(Ok("an earlier version kept none".into())),
                _ => sums::differences(&mut tx).await,
            }
        })
    }

    fn end_unfit_leases<'a>(&'a self, shards: &'a Shards, at: Wall) -> Answer<'a, Vec<BadRow>> {
        Box::pin(self.ended_unfit_leases(shards, at))
    }

    fn snapshot<'a>(&'a self, shards: &'a Shards) -> Answer<'a, Snapshot> {
        Box::pin(self.read_snapshot(shards))
    }

    fn lineage(&self, since: Version) -> Answer<'_, Lineage> {
        Box::pin(self.read_lineage(since))
    }

    fn curves(&self) -> Answer<'_, Curves> {
        Box::pin(self.read_curves())
    }

    fn unnamed(&self, blobs: BTreeSet<BlobHash>, now: Wall) -> Answer<'_, Unnamed> {
        Box::pin(self.read_unnamed(blobs, now))
    }

    fn leases_of(&self, device: DeviceId, before: LeaseId, most: u32) -> Answer<'_, Vec<LeaseOfDevice>> {
        Box::pin(self.read_leases_of(device, before, most))
    }

    fn merged(&self, after_seq: u64, through_seq: u64) -> Answer<'_, Merged> {
        Box::pin(self.read_merged(after_seq, through_seq))
    }

    fn go_through<'a>(&'a self, hear: &'a mut (dyn FnMut(Facts) + Send)) -> Answer<'a, ()> {
        Box::pin(self.read_all(hear))
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.dialect.close())
    }
}
