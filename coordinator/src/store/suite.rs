//! What every ledger promises, as tests: run on each body, with the ledger in memory as the model.

mod desk;
mod keeping;
mod random;
mod series;
mod sums;

use super::{
    Counters, Curves, Desk, Facts, LeaseOfDevice, Ledger, LedgerError, MemoryLedger, PostgresLedger, RunIdentity,
    Shards, SqliteLedger, Unnamed, postgres::tests::database::Database,
};
use crate::{
    engine::record::{
        DeltaRecord, DeviceRecord, EvaluationRecord, LeaseOutcome, LeaseRecord, Record, Squash, VersionRecord,
    },
    world::{World, device, manifest, spec},
};
use nightjar_shared::{
    blob::BlobRef,
    ids::{BlobHash, DeviceId, Generation, LeaseId, RunId, Version},
    lease::LeaseKind,
    time::Wall,
    wire::{Evaluation, Leave, Role, device_message as ask},
};
use proptest::prelude::*;
use random::record;
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

/// A place for one ledger of a body.
trait Place: Sized {
    /// With nothing in it; `None` where the body cannot be had here.
    fn new() -> Option<Self>;

    /// A coordinator starts on the ledger that is there, or on a new one.
    async fn open(&self, unix_s: u64) -> Arc<dyn Ledger>;
}

struct Folder(tempfile::TempDir);

impl Place for Folder {
    fn new() -> Option<Self> {
        Some(Folder(tempfile::tempdir().unwrap()))
    }

    async fn open(&self, unix_s: u64) -> Arc<dyn Ledger> {
        let path = self.0.path().join("ledger.sqlite");
        Arc::new(SqliteLedger::create_or_open(&path, &identity(), unix_s).await.unwrap())
    }
}

impl Place for Database {
    fn new() -> Option<Self> {
        Database::start()
    }

    async fn open(&self, unix_s: u64) -> Arc<dyn Ledger> {
        Arc::new(PostgresLedger::create_or_open(&self.url().parse().unwrap(), &identity(), unix_s).await.unwrap())
    }
}

fn identity() -> RunIdentity {
    RunIdentity { run_id: RunId([1; 32]), spec_json: "{}".into(), manifest_hash: BlobHash([2; 32]) }
}

impl Place for MemoryLedger {
    fn new() -> Option<Self> {
        Some(MemoryLedger::new())
    }

    async fn open(&self, unix_s: u64) -> Arc<dyn Ledger> {
        Arc::new(MemoryLedger::open(self, unix_s))
    }
}

/// Runs the suite on a body.
macro_rules! suite {
    ($body:ident, $place:ty, $cases:literal) => {
        mod $body {
            use super::*;

            #[tokio::test]
            async fn it_tells_what_was_written() {
                super::it_tells_what_was_written::<$place>().await
            }

            #[tokio::test]
            async fn of_two_coordinators_only_the_newest_writes() {
                super::of_two_coordinators_only_the_newest_writes::<$place>().await
            }

            #[tokio::test]
            async fn a_contradiction_writes_nothing() {
                super::a_contradiction_writes_nothing::<$place>().await
            }

            #[tokio::test]
            async fn losses_are_kept() {
                super::losses_are_kept::<$place>().await
            }

            #[tokio::test]
            async fn what_is_kept_is_noted_and_only_moves_on() {
                super::keeping::what_is_kept_is_noted_and_only_moves_on::<$place>().await
            }

            #[tokio::test]
            async fn a_series_is_kept_with_what_it_was_given() {
                super::series::a_series_is_kept_with_what_it_was_given::<$place>().await
            }

            #[tokio::test]
            async fn a_page_of_rows_is_the_same() {
                super::keeping::a_page_of_rows_is_the_same::<$place>().await
            }

            #[tokio::test]
            async fn a_start_is_told_the_same_as_the_facts_say() {
                super::a_start_is_told_the_same_as_the_facts_say::<$place>().await
            }

            #[tokio::test]
            async fn sums_are_made_anew_and_are_those_of_the_rows() {
                super::sums::sums_are_made_anew_and_are_those_of_the_rows::<$place>().await
            }

            #[tokio::test]
            async fn a_long_run_is_told_in_little() {
                super::sums::a_long_run_is_told_in_little::<$place>().await
            }

            #[tokio::test]
            async fn a_lease_of_samples_that_are_not_there_is_ended() {
                super::a_lease_of_samples_that_are_not_there_is_ended::<$place>().await
            }

            #[tokio::test]
            async fn tokens_are_kept() {
                super::desk::tokens_are_kept::<$place>().await
            }

            #[tokio::test]
            async fn the_audit_log_is_read_in_pages() {
                super::desk::the_audit_log_is_read_in_pages::<$place>().await
            }

            #[tokio::test]
            async fn invites_are_listed() {
                super::desk::invites_are_listed::<$place>().await
            }

            #[tokio::test]
            async fn orders_stand_after_a_restart() {
                super::desk::orders_stand_after_a_restart::<$place>().await
            }

            #[tokio::test]
            async fn a_devices_leases_are_told_page_by_page() {
                super::a_devices_leases_are_told_page_by_page::<$place>().await
            }

            proptest! {
                // Each case is a whole run.
                #![proptest_config(ProptestConfig { cases: $cases / 8 + 1, ..ProptestConfig::default() })]
                #[test]
                fn turns_that_share_a_commit_lead_to_the_same(sizes in prop::collection::vec(1usize..40, 1..20)) {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    runtime.block_on(super::turns_that_share_a_commit_lead_to_the_same::<$place>(sizes));
                }
            }

            proptest! {
                #![proptest_config(ProptestConfig { cases: $cases, ..ProptestConfig::default() })]
                #[test]
                fn what_is_written_is_read_back(records in prop::collection::vec(record(), 1..12)) {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    runtime.block_on(super::what_is_written_is_read_back::<$place>(records));
                }
            }
        }
    };
}

suite!(sqlite, Folder, 200);
suite!(memory, MemoryLedger, 200);
// Each case has a server of its own.
suite!(postgres, Database, 12);

/// The commits of a run in which about everything happens.
pub(super) fn eventful() -> (World, Shards) {
    let mut world = World::new(spec(), manifest());
    let (owl, other, anchor) = (world.volunteer(1), world.volunteer(2), device(3));
    world.join(anchor, Role::Anchor, &[LeaseKind::Evaluate]);
    for round in 0..9 {
        let lease = world.lease(owl);
        world.train(owl, &lease, 80.0);
        let lease = world.lease(anchor);
        let measured = Evaluation {
            lease_id: lease.id,
            generation: lease.generation,
            nats: 3.0,
            tokens: u64::from(lease.samples) * 4,
        };
        world.ask(anchor, ask::Body::Evaluation(measured));
        match round {
            2 => drop(world.lease(other)),
            4 => world.wait(500.0),
            5 => drop(world.ask(other, ask::Body::Leave(Leave {}))),
            6 => {
                world.restart();
                world.volunteer(1);
                world.join(anchor, Role::Anchor, &[LeaseKind::Evaluate]);
            }
            _ => {}
        }
        let lease = world.lease(owl);
        world.train(owl, &lease, 80.0);
    }
    world.lease(owl);
    let shards = Shards::of(&world.manifest, world.spec.inner.batch_samples);
    (world, shards)
}

/// The record; a version has two squashes from version 3 on.
fn with_squashes(record: &Record) -> Record {
    let mut record = record.clone();
    if let Record::Version(v) = &mut record
        && v.version.0 >= 3
    {
        let squash = |span: u64| Squash {
            from: Version(v.version.0 - span),
            blob: BlobRef { hash: BlobHash([span as u8; 32]), bytes: 10 * span },
        };
        v.squashes = vec![squash(2), squash(3)];
    }
    record
}

/// An open ledger with a run in it, and its model.
async fn with_a_run<P: Place>(place: &P) -> (Arc<dyn Ledger>, MemoryLedger, Shards) {
    let (ledger, model) = (place.open(1).await, MemoryLedger::new().open(1));
    let (world, shards) = eventful();
    for records in &world.commits {
        ledger.commit(records).await.unwrap();
        model.commit(records).unwrap();
    }
    (ledger, model, shards)
}

async fn it_tells_what_was_written<P: Place>() {
    let Some(place) = P::new() else { return };
    let (ledger, model) = (place.open(1).await, MemoryLedger::new().open(1));
    let (world, shards) = eventful();
    for records in &world.commits {
        let records: Vec<Record> = records.iter().map(with_squashes).collect();
        ledger.commit(&records).await.unwrap();
        model.commit(&records).unwrap();
        assert_eq!(ledger.snapshot(&shards).await.unwrap(), model.snapshot(&shards));
    }
    let facts = ledger.facts().await.unwrap();
    assert_eq!(facts, model.facts());
    let versions = &facts.lineage.versions;
    assert!(versions.iter().filter(|v| v.squashes.len() == 2).count() > 4);
    assert!(versions.len() > 8 && facts.evaluations.len() > 4 && facts.leases.iter().any(|l| l.closed.is_none()));
    assert!(model.snapshot(&shards).epochs_opened > 2, "epochs end, too");
    ledger.close().await;
    assert_eq!(place.open(1).await.facts().await.unwrap(), facts, "and after it was closed");
}

async fn of_two_coordinators_only_the_newest_writes<P: Place>() {
    let Some(place) = P::new() else { return };
    let (world, shards) = eventful();
    let (old, new) = (place.open(1000).await, place.open(900).await);
    assert_eq!((old.generation(), new.generation()), (Generation(1000), Generation(1001)));
    let more = Counters { bytes_up: 3, bytes_down: 4 };
    assert!(matches!(old.commit(&world.commits[0]).await, Err(LedgerError::Fenced(Generation(1000)))));
    assert!(matches!(old.add_counters(more).await, Err(LedgerError::Fenced(_))));
    assert!(matches!(old.note_losses(None, &[]).await, Err(LedgerError::Fenced(_))));
    assert!(matches!(old.change_spec("{}").await, Err(LedgerError::Fenced(_))));
    new.change_spec("{}").await.unwrap();
    assert_eq!(new.facts().await.unwrap(), Facts::default(), "nothing of it was written");
    new.commit(&world.commits[0]).await.unwrap();
    new.add_counters(more).await.unwrap();
    new.add_counters(more).await.unwrap();
    assert_eq!(old.counters().await.unwrap(), Counters { bytes_up: 6, bytes_down: 8 });
    assert_eq!(old.snapshot(&shards).await.unwrap(), new.snapshot(&shards).await.unwrap(), "it may still read");
    assert_eq!(place.open(2000).await.generation(), Generation(2000));
}

async fn a_contradiction_writes_nothing<P: Place>() {
    let Some(place) = P::new() else { return };
    let (ledger, _, shards) = with_a_run(&place).await;
    let (before, snapshot) = (ledger.facts().await.unwrap(), ledger.snapshot(&shards).await.unwrap());
    let device = Record::Device(DeviceRecord { name: "other".into(), ..before.devices[0].clone() });
    let open_lease = before.leases.last().unwrap().lease.clone();
    let closed = |id| {
        let (outcome, samples_used, at) = (LeaseOutcome::Expired, 0, Wall::default());
        Record::LeaseClosed { id: LeaseId(id), outcome, samples_used, at }
    };
    let contradictions = [
        Record::Delta(before.lineage.deltas[0].clone()),
        Record::Version(before.lineage.versions[0].clone()),
        Record::Evaluation(before.evaluations[0].clone()),
        closed(1),
        closed(9999),
        Record::LeaseIssued(open_lease.clone()),
        Record::LeaseIssued(LeaseRecord { id: LeaseId(9999), ..open_lease }),
    ];
    for record in contradictions {
        let both = [device.clone(), record];
        assert!(matches!(ledger.commit(&both).await, Err(LedgerError::Contradiction(_))), "{:?}", both[1]);
    }
    assert_eq!(ledger.facts().await.unwrap(), before);
    assert_eq!(ledger.snapshot(&shards).await.unwrap(), snapshot);
}

/// However many turns a commit has, the ledger is what it is with a commit for each; and so are its refusals: one turn
/// that contradicts takes all of its commit along.
async fn turns_that_share_a_commit_lead_to_the_same<P: Place>(sizes: Vec<usize>) {
    let Some(place) = P::new() else { return };
    let (ledger, (world, shards)) = (place.open(1).await, eventful());
    let (mut turns, mut sizes) = (world.commits.iter(), sizes.into_iter().cycle());
    let mut written = 0;
    while turns.len() > 0 {
        let group: Vec<Record> = turns.by_ref().take(sizes.next().unwrap()).flatten().cloned().collect();
        let twice = Record::Version(world.ledger.facts().lineage.versions[0].clone());
        let contradictory = [group.clone(), vec![twice.clone(), twice]].concat();
        let refused = ledger.commit(&contradictory).await;
        assert!(matches!(refused, Err(LedgerError::Contradiction(_))), "{refused:?}");
        written += 1;
        ledger.write(&group, Counters { bytes_up: 1, bytes_down: 2 }).await.unwrap();
    }
    assert_eq!(ledger.facts().await.unwrap(), world.ledger.facts());
    assert_eq!(ledger.snapshot(&shards).await.unwrap(), world.ledger.snapshot(&shards));
    assert_eq!(ledger.counters().await.unwrap(), Counters { bytes_up: written, bytes_down: 2 * written });
}

async fn losses_are_kept<P: Place>() {
    let Some(place) = P::new() else { return };
    let (ledger, ..) = with_a_run(&place).await;
    ledger.note_losses(Some(Version(3)), &[5, 2]).await.unwrap();
    ledger.note_losses(Some(Version(3)), &[2]).await.unwrap();
    assert!(matches!(ledger.note_losses(None, &[9999]).await, Err(LedgerError::Contradiction(_))));
    let lineage = place.open(1).await.lineage(Version(4)).await.unwrap();
    assert_eq!((lineage.restarts, lineage.lost_deltas), (vec![Version(3)], vec![2, 5]));
    assert!(matches!(ledger.note_losses(None, &[1]).await, Err(LedgerError::Fenced(_))));
}

/// What a start asks for, held against everything.
async fn a_start_is_told_the_same_as_the_facts_say<P: Place>() {
    let Some(place) = P::new() else { return };
    let (ledger, model, _) = with_a_run(&place).await;
    let facts = ledger.facts().await.unwrap();
    let whole = &facts.lineage;
    assert_eq!(&ledger.lineage(Version(0)).await.unwrap(), whole);
    for since in (0..20).map(Version) {
        let lineage = ledger.lineage(since).await.unwrap();
        assert_eq!(lineage, *Ledger::lineage(&model, since).await.as_ref().unwrap());
        assert_eq!(lineage.after(lineage.after_seq), whole.after(lineage.after_seq), "since {since}");
        assert_eq!(lineage.versions, whole.versions);
        assert!(lineage.after_seq == 0 || lineage.after(lineage.after_seq - 1).is_none());
    }
    let newest = whole.versions.last().unwrap();
    assert!(ledger.lineage(newest.version).await.unwrap().deltas.len() < 2);

    let tokens =
        |v: &VersionRecord| -> u64 { whole.deltas.iter().filter(|d| d.seq <= v.through_seq).map(|d| d.tokens).sum() };
    let versions: Vec<(VersionRecord, u64)> = whole.versions.iter().map(|v| (v.clone(), tokens(v))).collect();
    assert!(versions.iter().map(|(_, tokens)| tokens).collect::<BTreeSet<_>>().len() > 4);
    let of =
        |e: &EvaluationRecord| versions.iter().find(|(v, _)| v.version == e.version).map_or(0, |(_, tokens)| *tokens);
    let evaluations = facts.evaluations.iter().map(|e| (e.clone(), of(e))).collect();
    assert_eq!(ledger.curves().await.unwrap(), Curves { versions: versions.clone(), evaluations });

    let stray = BlobHash([0xee; 32]);
    let named = whole.versions.iter().flat_map(|v| v.blobs()).chain(whole.deltas.iter().map(|d| d.blob));
    let all: BTreeSet<BlobHash> = named.map(|blob| blob.hash).chain([stray]).collect();
    let last = facts.leases.iter().map(|l| l.lease.issued_at).max().unwrap();
    for now in [last, Wall { unix_ms: last.unix_ms - 1 }, Wall { unix_ms: u64::MAX >> 1 }] {
        let told = ledger.unnamed(all.clone(), now).await.unwrap();
        assert_eq!(told, Unnamed { blobs: [stray].into(), last_entry: told.last_entry });
        assert_eq!(told, Ledger::unnamed(&model, all.clone(), now).await.unwrap());
        assert!((told.last_entry == last) == (now >= last) && told.last_entry > Wall::default());
    }
}

async fn a_devices_leases_are_told_page_by_page<P: Place>() {
    let Some(place) = P::new() else { return };
    let (ledger, _, _) = with_a_run(&place).await;
    let facts = ledger.facts().await.unwrap();
    let mut outcomes = BTreeSet::new();
    for of in facts.devices.iter().map(|d| d.id) {
        let its = facts.leases.iter().rev().filter(|l| l.lease.device == of);
        let delta = |id| facts.lineage.deltas.iter().find(|d| d.lease == id).cloned();
        let all: Vec<LeaseOfDevice> =
            its.map(|l| LeaseOfDevice { lease: l.lease.clone(), closed: l.closed, delta: delta(l.lease.id) }).collect();
        outcomes.extend(all.iter().filter_map(|l| l.closed.map(|closed| closed.outcome.name())));
        assert_eq!(ledger.leases_of(of, LeaseId(u64::MAX), 1000).await.unwrap(), all);
        let (mut paged, mut before) = (vec![], LeaseId(u64::MAX));
        loop {
            let page = ledger.leases_of(of, before, 2).await.unwrap();
            let Some(last) = page.last() else { break };
            assert!(page.len() <= 2 && last.lease.id < before);
            before = last.lease.id;
            paged.extend(page);
        }
        assert_eq!(paged, all);
    }
    assert!(outcomes.len() >= 3, "{outcomes:?}");
    assert_eq!(ledger.leases_of(DeviceId([0xee; 32]), LeaseId(u64::MAX), 9).await.unwrap(), []);
}

async fn a_lease_of_samples_that_are_not_there_is_ended<P: Place>() {
    let (Some(place), at) = (P::new(), Wall { unix_ms: 9 }) else { return };
    let (ledger, _, shards) = with_a_run(&place).await;
    assert_eq!(ledger.end_unfit_leases(&shards, at).await.unwrap(), vec![]);
    let facts = ledger.facts().await.unwrap();
    let open = facts.leases.iter().rfind(|l| l.closed.is_none() && l.lease.kind.trains()).unwrap();
    let free = facts.devices.iter().find(|d| facts.leases.iter().all(|l| l.closed.is_some() || l.lease.device != d.id));
    let device = free.unwrap().id;
    // Nobody has a second shard of samples twice, nor a ninth shard.
    for (id, shard) in [(5001, open.lease.shard), (5002, 9)] {
        let lease = LeaseRecord { id: LeaseId(id), device, shard, ..open.lease.clone() };
        ledger.commit(&[Record::LeaseIssued(lease)]).await.unwrap();
        let unfit = ledger.end_unfit_leases(&shards, at).await.unwrap();
        assert_eq!(unfit.iter().map(|bad| bad.id.clone()).collect::<Vec<_>>(), [id.to_string()]);
        assert_eq!(ledger.end_unfit_leases(&shards, at).await.unwrap(), vec![]);
    }
}

/// Whatever is written is read back as it was, and what would not be is refused.
async fn what_is_written_is_read_back<P: Place>(records: Vec<Record>) {
    let Some(place) = P::new() else { return };
    let (ledger, model) = (place.open(1).await, MemoryLedger::new().open(1));
    ledger.commit(&beginning()).await.unwrap();
    model.commit(&beginning()).unwrap();
    for record in records {
        // Beside one that can be written: what is refused takes it along.
        let both = [beginning()[0].clone(), record];
        let (written, expected) = (ledger.commit(&both).await, model.commit(&both));
        match (&written, &expected) {
            (Ok(()), Ok(())) => {}
            (Err(LedgerError::Unfit { .. }), Err(LedgerError::Unfit { .. })) => {}
            (Err(LedgerError::Contradiction(_)), Err(LedgerError::Contradiction(_))) => {}
            // In memory a lease's number is only ever larger than those before.
            (Ok(()), Err(LedgerError::Contradiction(_))) if matches!(both[1], Record::LeaseIssued(_)) => return,
            _ => panic!("{written:?}, and in memory {expected:?}, for {:?}", both[1]),
        }
        let facts = ledger.facts().await.unwrap();
        assert_eq!(ledger.audit(None, 20).await.unwrap().len(), model.audit(None, 20).await.unwrap().len());
        assert_eq!(in_order(facts.clone()), in_order(model.facts()));
        assert_eq!(facts.set_aside, vec![]);
        let shards = Shards::of(&manifest(), 4);
        assert_eq!(ledger.snapshot(&shards).await.unwrap().standing, model.snapshot(&shards).standing);
    }
}

/// As SQL tells them, whatever the order in which they came.
fn in_order(mut facts: Facts) -> Facts {
    facts.lineage.deltas.sort_by_key(|d| d.seq);
    facts.lineage.versions.sort_by_key(|v| v.version);
    facts
}

const OWL: DeviceId = DeviceId([5; 32]);

/// A device with an open lease.
fn beginning() -> Vec<Record> {
    let device = DeviceRecord {
        id: OWL,
        name: "owl".into(),
        device: "flex".into(),
        role: Role::Volunteer,
        invite_nonce: vec![1],
        enrolled_at: Wall { unix_ms: 1 },
        tokens_per_s: 0.0,
        left: false,
        public_name: None,
        name_hidden: false,
    };
    let lease = LeaseRecord {
        id: LeaseId(1),
        generation: Generation(1),
        device: OWL,
        kind: LeaseKind::Train,
        base_version: Version(0),
        epoch: 0,
        shard: 0,
        first_sample: 0,
        samples: 4,
        steps: 2,
        issued_at: Wall { unix_ms: 2 },
    };
    vec![Record::Device(device), Record::LeaseIssued(lease)]
}
