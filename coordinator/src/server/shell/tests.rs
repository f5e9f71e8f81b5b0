//! The event loop with a ledger that a test holds back, or has fail: who is told what, and when.

use super::*;
use crate::{
    dataset::Dataset,
    engine::{
        merge::Merger,
        record::{DeltaRecord, Record, VersionRecord},
        snapshot::Snapshot,
    },
    server::{
        catalog::{self, Catalog},
        context::Present,
        disk_reserve::FolderSpace,
        feed::{Begun, Devices},
        handle,
        history::History,
        stream::StreamError,
        uploads::Uploads,
        wish::{Wish, wishes},
    },
    store::{
        BadRow, Curves, Desk, Facts, Keeping, Kept, LeaseOfDevice, Lineage, Link, MemoryLedger, Merged, Note, Point,
        Shards, Span, Standing, TokenRecord, Unnamed, Weight,
        desk::{AuditEntry, InviteFacts},
        ledger::Answer,
    },
    world::{device, hello, invite, manifest, spec},
};
use nightjar_shared::{
    disk::FolderDisk,
    ids::{BlobHash, Generation, LeaseId, RunId, Version},
    lease::LeaseKind,
    model_spec::ModelSpec,
    time::Wall,
    wire::{Lease, LeaseRequest, LeaseReturn, RefusalCode, Role, device_message as ask},
};
use std::{collections::BTreeSet, pin::Pin};
use tokio::task::JoinHandle;

/// A ledger whose commits wait for a word of the test, each: what it is to answer, before or instead of writing.
struct Gate {
    ledger: MemoryLedger,
    /// Told of each commit that begins: what it is to write.
    begun: mpsc::UnboundedSender<Vec<Record>>,
    words: tokio::sync::Mutex<mpsc::UnboundedReceiver<Result<(), LedgerError>>>,
}

/// What a gate hands on as it is.
macro_rules! handed_on {
    ($to:ident: $($name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*) => {
        $(fn $name<'a>(&'a self, $($argument: $type),*) -> Answer<'a, $answer> {
            $to::$name(&self.ledger, $($argument),*)
        })*
    };
}

impl Ledger for Gate {
    fn generation(&self) -> Generation {
        self.ledger.generation()
    }

    fn write<'a>(&'a self, records: &'a [Record], _: Counters) -> Answer<'a, ()> {
        Box::pin(async move {
            drop(self.begun.send(records.to_vec()));
            // A test that has ended lets all pass.
            self.words.lock().await.recv().await.unwrap_or(Ok(()))?;
            self.ledger.commit(records)
        })
    }

    handed_on! { Ledger:
        note_losses(restart: Option<Version>, deltas: &'a [u64]) -> ();
        change_spec(spec_json: &'a str) -> ();
        counters() -> Counters;
        catch_up(shards: &'a Shards, told: &'a (dyn Fn(u64, u64) + Sync)) -> ();
        check_sums() -> Result<String, String>;
        end_unfit_leases(shards: &'a Shards, at: Wall) -> Vec<BadRow>;
        snapshot(shards: &'a Shards) -> Snapshot;
        lineage(since: Version) -> Lineage;
        curves() -> Curves;
        unnamed(blobs: BTreeSet<BlobHash>, now: Wall) -> Unnamed;
        leases_of(device: DeviceId, before: LeaseId, most: u32) -> Vec<LeaseOfDevice>;
        merged(after_seq: u64, through_seq: u64) -> Merged;
        go_through(hear: &'a mut (dyn FnMut(Facts) + Send)) -> ();
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.ledger.close()
    }
}

impl Desk for Gate {
    handed_on! { Desk:
        note(notes: &'a [Note]) -> ();
        token(hash: [u8; 32]) -> Option<TokenRecord>;
        tokens() -> Vec<TokenRecord>;
        invites(after: &'a [u8], most: u32) -> Vec<InviteFacts>;
        audit(before: Option<u64>, most: u32) -> Vec<AuditEntry>;
    }
}

impl Keeping for Gate {
    handed_on! { Keeping:
        kept() -> Kept;
        standing() -> Standing;
        give_up(first_version: Version, after_seq: u64) -> ();
        note_removed(before: Version, through_seq: u64) -> ();
        add_link(link: &'a Link) -> ();
        links(from: Version, most: usize) -> Vec<Link>;
        versions_from(from: Version, most: usize) -> Vec<VersionRecord>;
        given_from(from: Version, blobs: BTreeSet<BlobHash>) -> BTreeSet<BlobHash>;
        keyframe_upto(upto: Version) -> Option<Point>;
        deltas_after(seq: u64, most: usize) -> Vec<DeltaRecord>;
        named_after(seq: u64, blobs: BTreeSet<BlobHash>) -> BTreeSet<BlobHash>;
        losses() -> (Vec<Version>, Vec<u64>);
        weight(span: Span) -> Weight;
    }
}

/// A running loop.
struct Bed {
    handle: ShellHandle,
    ledger: MemoryLedger,
    begun: mpsc::UnboundedReceiver<Vec<Record>>,
    words: mpsc::UnboundedSender<Result<(), LedgerError>>,
    stop: mpsc::Sender<Wish>,
    running: JoinHandle<Result<(), ShellError>>,
    _folder: tempfile::TempDir,
}

impl Bed {
    /// A loop whose run has its version 0.
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut spec = spec();
        spec.model = ModelSpec { hidden_size: 8, intermediate_size: 5, num_hidden_layers: 1, ..spec.model };
        let data = folder.path().join("data");
        std::fs::create_dir_all(data.join("blobs")).unwrap();
        std::fs::write(data.join("manifest.json"), serde_json::to_vec(&manifest()).unwrap()).unwrap();
        let dataset = Dataset::open(data).unwrap();
        let disk = Arc::new(FolderDisk::open(folder.path().join("state")).unwrap());
        let blobs = Blobs::new(disk.clone());
        let ledger = MemoryLedger::new().open(1);
        let shards = Shards::of(&manifest(), spec.inner.batch_samples);
        let (engine, first) = Engine::restore(
            spec.clone(),
            manifest(),
            RunId([7; 32]),
            ledger.generation(),
            ledger.snapshot(&shards),
            Mono::default(),
        );
        let (begin, begun) = mpsc::unbounded_channel();
        let (words, told) = mpsc::unbounded_channel();
        let gate = Gate { ledger: ledger.clone(), begun: begin, words: told.into() };
        let (handle, questions) = handle::open();
        let (report, _damaged) = mpsc::channel(catalog::DAMAGED_MAX);
        let publisher = Publisher::new(Merger::start(spec.clone(), &spec.model.draw_all(1)), blobs.clone());
        let ledger_of_parts: Arc<dyn Ledger> = Arc::new(gate);
        let devices = Arc::new(Devices::default());
        let knowledge = Knowledge {
            members: Arc::default(),
            catalog: Arc::new(Catalog::new(&dataset, blobs.clone(), report).unwrap()),
            uploads: Arc::new(Uploads::new([].into_iter(), 1 << 20)),
            present: Arc::new(Present::new(devices.clone())),
        };
        let (traffic, troubles, spec, origin) = (Arc::default(), Arc::default(), Arc::new(spec), Instant::now());
        let reserve = Arc::new(DiskReserve::open(disk.clone(), Box::new(FolderSpace(disk)), &spec));
        let feed = Feed::begin(Begun {
            spec: spec.clone(),
            ledger: ledger_of_parts.clone(),
            devices: devices.clone(),
            history: History::default(),
            status: engine.status(),
            counters: Counters::default(),
            traffic: Arc::clone(&traffic),
            reserve: reserve.clone(),
            troubles: Arc::clone(&troubles),
        });
        let parts = Parts {
            engine,
            ledger: ledger_of_parts,
            blobs,
            knowledge,
            doors: Arc::new(Doors::new(devices)),
            traffic,
            feed: Arc::new(feed),
            tracker: Tracker::default(),
            origin,
            say: Arc::new(|_| {}),
            handle: handle.clone(),
            health: Arc::new(Health::new(reserve.clone(), Arc::clone(&troubles), origin.into_std())),
            reserve,
            files: Arc::new(Semaphore::new(1)),
            troubles,
            metrics: Arc::default(),
            traces: Traces::default(),
            keep: watch::channel(spec.keep.clone()).0,
            spec,
        };
        let (stop, mut stopped) = wishes();
        let running =
            tokio::spawn(async move { run(parts, publisher, first, questions, String::new(), &mut stopped).await });
        let mut bed = Bed { handle, ledger, begun, words, stop, running, _folder: folder };
        assert!(matches!(bed.next_commit().await[..], [Record::Version(_)]));
        bed.let_pass();
        bed
    }

    fn ask(&self, who: u8, body: ask::Body) -> JoinHandle<Result<answer::Body, StreamError>> {
        let handle = self.handle.clone();
        let invite = matches!(body, ask::Body::Hello(_)).then(|| invite(Role::Volunteer));
        tokio::spawn(async move { handle.request(device(who), body, invite).await })
    }

    fn hello(&self, who: u8) -> JoinHandle<Result<answer::Body, StreamError>> {
        self.ask(who, ask::Body::Hello(hello(Role::Volunteer, &[LeaseKind::Train])))
    }

    fn asks_for_lease(&self, who: u8) -> JoinHandle<Result<answer::Body, StreamError>> {
        self.ask(who, ask::Body::LeaseRequest(LeaseRequest::default()))
    }

    /// What the next commit is to write. It waits.
    async fn next_commit(&mut self) -> Vec<Record> {
        self.begun.recv().await.unwrap()
    }

    /// The next commit is written.
    fn let_pass(&self) {
        self.words.send(Ok(())).unwrap();
    }

    /// A lease that a device holds, by the ledger.
    async fn lease(&mut self, who: u8) -> Lease {
        let asked = self.asks_for_lease(who);
        self.next_commit().await;
        self.let_pass();
        let answer::Body::Lease(lease) = asked.await.unwrap().unwrap() else { panic!("no lease") };
        lease
    }

    async fn end(self) -> Result<(), ShellError> {
        drop((self.stop, self.words));
        self.running.await.unwrap()
    }
}

/// Lets all others run until they wait: on this one thread they have had their turn by then.
async fn everybody_else() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// All that is asked while a commit is on its way shares the next, and none is answered before its own.
#[tokio::test]
async fn turns_share_the_next_commit_and_are_answered_after_it() {
    let mut bed = Bed::new().await;
    let first = bed.hello(0);
    assert_eq!(bed.next_commit().await.len(), 1);
    let others: Vec<_> = (1..=20).map(|who| bed.hello(who)).collect();
    // Answers that need no commit of their own: but what they rest on is not written yet.
    let unknown = bed.asks_for_lease(99);
    let handle = bed.handle.clone();
    let overview = tokio::spawn(async move { handle.status().await });
    everybody_else().await;
    assert!(!overview.is_finished(), "what a page shows outlasts a kill");
    assert!(!first.is_finished() && !unknown.is_finished() && others.iter().all(|asked| !asked.is_finished()));
    bed.let_pass();
    assert!(matches!(first.await.unwrap().unwrap(), answer::Body::Welcome(_)));
    assert_eq!(bed.next_commit().await.len(), 20, "one commit of all that came meanwhile");
    assert!(others.iter().all(|asked| !asked.is_finished()));
    bed.let_pass();
    for asked in others {
        assert!(matches!(asked.await.unwrap().unwrap(), answer::Body::Welcome(_)));
    }
    let answer::Body::Refusal(refusal) = unknown.await.unwrap().unwrap() else { panic!("a stranger has a lease") };
    assert_eq!(refusal.code(), RefusalCode::Invite);
    assert_eq!(bed.ledger.facts().devices.len(), 21);
    bed.end().await.unwrap();
}

/// Turns of one device, each resting on the one before, are written and answered in order, though they share a commit.
#[tokio::test]
async fn what_rests_on_a_turn_of_the_same_commit_comes_after_it() {
    let mut bed = Bed::new().await;
    let (held_up, _) = (bed.hello(1), bed.next_commit().await);
    let greeted = bed.hello(2);
    tokio::task::yield_now().await;
    let leased = bed.asks_for_lease(2);
    everybody_else().await;
    bed.let_pass();
    held_up.await.unwrap().unwrap();
    let records = bed.next_commit().await;
    assert!(matches!(records[..], [Record::Device(_), Record::LeaseIssued(_)]), "{records:?}");
    bed.let_pass();
    assert!(matches!(greeted.await.unwrap().unwrap(), answer::Body::Welcome(_)));
    let answer::Body::Lease(lease) = leased.await.unwrap().unwrap() else { panic!("no lease") };
    // An upload for a lease that has ended, though that is not written yet, is turned away only once it is.
    let back = LeaseReturn { lease_id: lease.id, generation: lease.generation, why: String::new() };
    let returned = bed.ask(2, ask::Body::LeaseReturn(back));
    assert!(matches!(bed.next_commit().await[..], [Record::LeaseClosed { .. }]));
    let handle = bed.handle.clone();
    let may = tokio::spawn(async move { handle.may_upload(device(2), LeaseId(lease.id), 1).await });
    everybody_else().await;
    assert!(!may.is_finished() && !returned.is_finished());
    bed.let_pass();
    assert!(matches!(returned.await.unwrap().unwrap(), answer::Body::Done(_)));
    assert_eq!(may.await.unwrap().unwrap().unwrap_err().code(), RefusalCode::LeaseGone);
    bed.end().await.unwrap();
}

/// After a commit that failed for good nobody is told of success: neither for what it held, nor for what was decided
/// after it.
#[tokio::test]
async fn a_commit_that_fails_answers_nobody() {
    let mut bed = Bed::new().await;
    let (held_up, _) = (bed.hello(0), bed.next_commit().await);
    let shared: Vec<_> = (1..=5).map(|who| bed.hello(who)).collect();
    everybody_else().await;
    bed.let_pass();
    held_up.await.unwrap().unwrap();
    assert_eq!(bed.next_commit().await.len(), 5);
    let after: Vec<_> = (6..=9).map(|who| bed.hello(who)).collect();
    everybody_else().await;
    bed.words.send(Err(LedgerError::Contradiction("told by the test".into()))).unwrap();
    for asked in shared.into_iter().chain(after) {
        assert!(asked.await.unwrap().is_err(), "nobody is told anything");
    }
    assert_eq!(bed.ledger.facts().devices.len(), 1, "nothing was written");
    let ended = bed.running.await.unwrap();
    assert!(matches!(ended, Err(ShellError::Ledger(LedgerError::Contradiction(_)))), "{ended:?}");
}

/// What stood in a commit's way passes: it is written as it was, before anything that came after it.
#[tokio::test]
async fn a_commit_that_may_pass_is_tried_again_and_stays_the_first() {
    let mut bed = Bed::new().await;
    let asked = bed.hello(1);
    let records = bed.next_commit().await;
    let after = bed.hello(2);
    everybody_else().await;
    bed.words.send(Err(LedgerError::Locked)).unwrap();
    assert_eq!(bed.next_commit().await, records);
    assert!(!asked.is_finished() && !after.is_finished());
    bed.let_pass();
    assert!(matches!(asked.await.unwrap().unwrap(), answer::Body::Welcome(_)));
    assert!(matches!(bed.next_commit().await[..], [Record::Device(_)]));
    bed.let_pass();
    assert!(matches!(after.await.unwrap().unwrap(), answer::Body::Welcome(_)));
    bed.lease(1).await;
    bed.end().await.unwrap();
}
