//! What a ledger is to the coordinator, whatever keeps it. SQLite does ([`super::sqlite`]), or PostgreSQL
//! ([`super::postgres`]); for the simulator and for tests, memory does ([`super::memory`]).

use super::{BadRow, Desk, Facts, Keeping, LeaseOfDevice, LedgerError, Lineage, Shards, desk::check_text};
use crate::engine::{
    record::{AuditRecord, EvaluationRecord, Record, VersionRecord},
    snapshot::{Snapshot, VERSIONS_KEPT},
};
use nightjar_shared::{
    blob::BlobRef,
    ids::{BlobHash, DeviceId, Generation, LeaseId, RunId, Version},
    time::Wall,
};
use std::{collections::BTreeSet, pin::Pin};

/// What a ledger belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunIdentity {
    /// The run's name.
    pub run_id: RunId,
    /// The run spec, as JSON.
    pub spec_json: String,
    /// BLAKE3 of the dataset's manifest.
    pub manifest_hash: BlobHash,
}

/// Bytes that went over the network, over all of the run's coordinators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// From devices.
    pub bytes_up: u64,
    /// To devices.
    pub bytes_down: u64,
}

/// What the curves of a run are drawn from. A long run's are thinned: the number of points does not follow its length.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curves {
    /// The versions of [`curve_versions`], without their squashes, each with the tokens merged into it and all before.
    pub versions: Vec<(VersionRecord, u64)>,
    /// Measurements of held-out loss, by lease, each with the tokens merged into its version: all of up to
    /// [`CURVE_POINTS`], or about so many, with the first and the last.
    pub evaluations: Vec<(EvaluationRecord, u64)>,
}

/// Points of a curve, about.
pub const CURVE_POINTS: usize = 4096;

/// From one point to the next, of curves over so much.
pub fn curve_stride(length: u64) -> u64 {
    length.div_ceil(CURVE_POINTS as u64).max(1)
}

/// The versions that are points of a curve which ends at one: newest first, all of the newest, and then evenly.
pub fn curve_versions(newest: u64) -> impl Iterator<Item = u64> {
    let (lately, stride) = (newest.saturating_sub(VERSIONS_KEPT as u64), curve_stride(newest + 1));
    std::iter::successors(Some(newest), move |at| at.checked_sub(if *at > lately { 1 } else { stride }))
}

/// What deltas come to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Merged {
    /// Devices that trained any of them.
    pub devices: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Σ of their last steps' losses, each times its delta's tokens: nats.
    pub nats: f64,
}

/// Newest entries of each kind that are looked at for the time of the last.
pub const ENTRIES_LOOKED: usize = 1024;

/// What a ledger says of the blobs in a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unnamed {
    /// Those that are neither a merged delta nor part of a version.
    pub blobs: BTreeSet<BlobHash>,
    /// When the ledger was last written to, as the newest [`ENTRIES_LOOKED`] entries of each kind say, and its devices.
    pub last_entry: Wall,
}

/// An answer that may take a while: a ledger may be a file, or on another machine.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, LedgerError>> + Send + 'a>>;

/// An open ledger: the record of a run, which outlasts every process. Opening differs from body to body (a file, an
/// address), and is each body's own. It raises the generation to max(last + 1, Unix seconds), and it refuses a ledger
/// of another run.
///
/// A body promises:
/// - **A write is whole or not at all, and conditional on the generation.** Once a ledger was opened again, whoever had
///   it open before gets [`LedgerError::Fenced`], and nothing is written.
/// - **An answer follows its commit.** What a write returned for survives a crash and a cut of the power.
/// - **A write is refused that contradicts what is there** (a lease closed twice, a second delta for a lease, a version
///   that is there already), or that could not be read back as it is ([`check`]).
/// - **What cannot be read is named, and does not stop the rest** ([`BadRow`]); what the weights depend on is not made
///   up for.
/// - **A snapshot is what the engine had**, could it have gone on: open leases, the newest versions, deltas and blobs
///   ([`Snapshot`] says how many), and what is merged of every epoch that is not finished.
/// - **A start's questions cost little time and memory**, however long the run is: they grow with the devices, the
///   shards and what is open. What they need of all rows is kept as sums, in the transactions that write the rows;
///   sums that are not what was written are noticed and made anew ([`Ledger::catch_up`]).
/// - **Everything is told a piece at a time**, all of one state ([`Ledger::go_through`]).
///
/// The tests in `store/suite.rs` hold every body to it.
pub trait Ledger: Desk + Keeping {
    /// The generation that this handle writes under.
    fn generation(&self) -> Generation;

    /// Writes records, and adds to the counters, in one transaction. Whether records contradict each other is judged by
    /// what all of them lead to.
    fn write<'a>(&'a self, records: &'a [Record], more: Counters) -> Answer<'a, ()>;

    /// Writes records in one transaction.
    fn commit<'a>(&'a self, records: &'a [Record]) -> Answer<'a, ()> {
        self.write(records, Counters::default())
    }

    /// Adds to the counters.
    fn add_counters(&self, more: Counters) -> Answer<'_, ()> {
        self.write(&[], more)
    }

    /// Notes what of the way to the newest version is lost, so that later replays go the same way.
    fn note_losses<'a>(&'a self, restart: Option<Version>, deltas: &'a [u64]) -> Answer<'a, ()>;

    /// Writes down another run spec, as JSON: one whose changes a run that exists may have
    /// ([`nightjar_shared::run_spec::RunSpec::changed_to`]); whoever asks has made sure of that.
    fn change_spec<'a>(&'a self, spec_json: &'a str) -> Answer<'a, ()>;

    /// The counters.
    fn counters(&self) -> Answer<'_, Counters>;

    /// Makes sure of the sums that the other answers go by, before any of them is asked for by a start; makes them anew
    /// or adds to them where that is needed. `told` hears how many deltas are added up, and of how many.
    fn catch_up<'a>(&'a self, shards: &'a Shards, told: &'a (dyn Fn(u64, u64) + Sync)) -> Answer<'a, ()>;

    /// Holds the sums against all rows: what was compared, or how they differ.
    fn check_sums(&self) -> Answer<'_, Result<String, String>>;

    /// Ends the open leases that hold samples they cannot hold, or cannot be read: nobody will do what they ask for,
    /// and their devices are given others. Returns what is wrong with them.
    fn end_unfit_leases<'a>(&'a self, shards: &'a Shards, at: Wall) -> Answer<'a, Vec<BadRow>>;

    /// What the engine is restored from: `shards` tell which epochs are finished, and which samples can have been
    /// given.
    fn snapshot<'a>(&'a self, shards: &'a Shards) -> Answer<'a, Snapshot>;

    /// What the weights follow from since a version was made: the deltas merged since, and the versions from there on,
    /// at least [`VERSIONS_KEPT`] of them. Since version 0: all.
    fn lineage(&self, since: Version) -> Answer<'_, Lineage>;

    /// What curves are drawn from.
    fn curves(&self) -> Answer<'_, Curves>;

    /// Which of these blobs no entry names. An entry that was written after `now` counts for a clock that was wrong.
    /// [`LedgerError::Row`] if a row that names a blob cannot be read.
    fn unnamed(&self, blobs: BTreeSet<BlobHash>, now: Wall) -> Answer<'_, Unnamed>;

    /// A device's leases that are older than one, the newest first: so many at most. It costs about as much as it
    /// answers, however long the ledger is.
    fn leases_of(&self, device: DeviceId, before: LeaseId, most: u32) -> Answer<'_, Vec<LeaseOfDevice>>;

    /// What the deltas after one, up to another, come to.
    fn merged(&self, after_seq: u64, through_seq: u64) -> Answer<'_, Merged>;

    /// Everything, in pieces: what is kept, devices and versions, then leases in their order, each with its delta and its
    /// measurement.
    fn go_through<'a>(&'a self, hear: &'a mut (dyn FnMut(Facts) + Send)) -> Answer<'a, ()>;

    /// Everything at once, for whoever knows that it is little.
    fn facts(&self) -> Answer<'_, Facts> {
        Box::pin(async {
            let mut facts = Facts::default();
            self.go_through(&mut |piece| facts.add(piece)).await?;
            facts.lineage.deltas.sort_by_key(|d| d.seq);
            Ok(facts)
        })
    }

    /// Waits until everything is written, and lets go of what is open.
    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// Tokens that no delta has more of: a sum of them fits an SQL integer.
pub(super) const TOKENS_MAX: u64 = 1 << 40;

/// An SQL integer: a reader would take a larger number for a negative one.
pub(super) fn integer(column: &'static str, number: u64) -> Result<i64, LedgerError> {
    i64::try_from(number).map_err(|_| LedgerError::Unfit { column, why: "is larger than a ledger's integer" })
}

/// Refuses a record that would not be read back as it is.
pub fn check(record: &Record) -> Result<(), LedgerError> {
    let real = |column, value: f64| {
        let unfit = LedgerError::Unfit { column, why: "is not a finite number" };
        if value.is_finite() { Ok(()) } else { Err(unfit) }
    };
    let integers = |all: &[(&'static str, u64)]| all.iter().try_for_each(|(column, n)| integer(column, *n).map(drop));
    let tokens = |column, tokens| {
        let unfit = LedgerError::Unfit { column, why: "is larger than any work" };
        if tokens <= TOKENS_MAX { Ok(()) } else { Err(unfit) }
    };
    match record {
        Record::Device(d) => {
            check_text("devices.name", &d.name)?;
            check_text("devices.device", &d.device)?;
            integers(&[("devices.enrolled_at", d.enrolled_at.unix_ms)])?;
            real("devices.tokens_per_s", d.tokens_per_s)
        }
        Record::LeaseIssued(l) => integers(&[
            ("leases.id", l.id.0),
            ("leases.generation", l.generation.0),
            ("leases.base_version", l.base_version.0),
            ("leases.issued_at", l.issued_at.unix_ms),
        ]),
        Record::LeaseClosed { id, at, .. } => integers(&[("leases.id", id.0), ("leases.closed_at", at.unix_ms)]),
        Record::Delta(d) => {
            integers(&[
                ("deltas.seq", d.seq),
                ("deltas.lease", d.lease.0),
                ("deltas.bytes", d.blob.bytes),
                ("deltas.staleness", d.staleness),
                ("deltas.train_ms", d.train_ms),
                ("deltas.wall_ms", d.wall_ms),
                ("deltas.merged_at", d.merged_at.unix_ms),
            ])?;
            tokens("deltas.tokens", d.tokens)?;
            let reals =
                [("weight", d.weight), ("norm", d.norm), ("loss_first", d.loss_first), ("loss_last", d.loss_last)];
            reals.into_iter().try_for_each(|(column, value)| real(column, value))
        }
        Record::Version(v) => {
            let bytes = |blob: Option<BlobRef>| blob.map_or(0, |blob| blob.bytes);
            integers(&[
                ("versions.version", v.version.0),
                ("versions.update_bytes", bytes(v.update)),
                ("versions.keyframe_bytes", bytes(v.keyframe)),
                ("versions.given_bytes", bytes(v.given)),
                ("versions.through_seq", v.through_seq),
                ("versions.published_at", v.published_at.unix_ms),
            ])?;
            let froms = || std::iter::once(v.version).chain(v.squashes.iter().map(|s| s.from));
            if !froms().zip(froms().skip(1)).all(|(before, from)| from < before) {
                let why = "do not lead from ever earlier versions to this one";
                return Err(LedgerError::Unfit { column: "squashes", why });
            }
            v.squashes.iter().try_for_each(|s| integers(&[("squashes.bytes", s.blob.bytes)]))
        }
        Record::Evaluation(e) => {
            integers(&[
                ("evaluations.lease", e.lease.0),
                ("evaluations.version", e.version.0),
                ("evaluations.text_bytes", e.text_bytes),
                ("evaluations.measured_at", e.measured_at.unix_ms),
            ])?;
            tokens("evaluations.tokens", e.tokens)?;
            real("evaluations.nats", e.nats)
        }
        Record::Series(s) => {
            check_text("series.name", &s.name)?;
            integers(&[
                ("series.number", s.number),
                ("series.weights_bytes", s.weights.bytes),
                ("series.first_version", s.first.0),
                ("series.after_seq", s.after_seq),
                ("series.left_out", s.left_out),
                ("series.begun_at", s.begun_at.unix_ms),
            ])
        }
        Record::DeviceRevoked { at, .. } => integers(&[("revoked_devices.revoked_at", at.unix_ms)]),
        Record::InviteRevoked { at, .. } => integers(&[("revoked_invites.revoked_at", at.unix_ms)]),
        Record::Paused(at) => integers(&[("run.paused_at", at.map_or(0, |at| at.unix_ms))]),
        Record::Extended { token_budget } => integers(&[("run.token_budget", *token_budget)]),
        Record::Audit(entry) => check_audit(entry),
    }
}

/// The same, of an entry of the audit log.
pub(super) fn check_audit(entry: &AuditRecord) -> Result<(), LedgerError> {
    integer("audit.at", entry.at.unix_ms)?;
    let AuditRecord { name, from, action, subject, outcome, .. } = entry;
    [name, from, action, subject, outcome].into_iter().try_for_each(|text| check_text("audit", text))
}
