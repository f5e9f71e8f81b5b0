//! The ledger in a real file, beside the one in memory.

mod bad_rows;

use super::*;
use crate::{
    engine::{
        Engine,
        record::{DeviceRecord, LeaseRecord, Squash},
    },
    store::MemoryLedger,
    world::{World, device, manifest, spec},
};
use nightjar_shared::wire::{Evaluation, LeaseKind, Leave, Role, device_message as ask};
use nightjar_shared::{ids::Version, time::Mono};

fn identity() -> RunIdentity {
    RunIdentity { run_id: RunId([1; 32]), spec_json: "{}".into(), manifest_hash: BlobHash([2; 32]) }
}

async fn open(folder: &tempfile::TempDir, unix_s: u64) -> SqliteLedger {
    SqliteLedger::create_or_open(&folder.path().join("ledger.sqlite"), &identity(), unix_s).await.unwrap()
}

/// The commits of a run in which about everything happens.
fn eventful() -> (World, Shards) {
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
        let squash =
            |span: u64| Squash { from: Version(v.version.0 - span), blob: (BlobHash([span as u8; 32]), 10 * span) };
        v.squashes = vec![squash(2), squash(3)];
    }
    record
}

#[tokio::test]
async fn it_tells_the_same_as_the_ledger_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let sqlite = open(&folder, 1).await;
    let (world, shards) = eventful();
    let memory = MemoryLedger::new();
    let generation = memory.raise(1);
    for records in &world.commits {
        let records: Vec<Record> = records.iter().map(with_squashes).collect();
        sqlite.commit(&records).await.unwrap();
        memory.commit(generation, &records).unwrap();
        assert_eq!(sqlite.snapshot(&shards).await.unwrap(), memory.snapshot(shards.samples()));
    }
    let facts = sqlite.facts().await.unwrap();
    assert_eq!(facts, memory.facts());
    assert!(facts.versions.iter().filter(|v| v.squashes.len() == 2).count() > 4);
    assert!(facts.versions.len() > 8 && facts.evaluations.len() > 4 && facts.leases.iter().any(|l| l.closed.is_none()));
    assert!(memory.snapshot(shards.samples()).epochs_opened > 2, "epochs end, too");
    sqlite.close().await;
    assert_eq!(open(&folder, 1).await.facts().await.unwrap(), facts, "and after it was closed");
}

#[tokio::test]
async fn of_two_coordinators_only_the_newest_writes() {
    let folder = tempfile::tempdir().unwrap();
    let (world, _) = eventful();
    let (old, new) = (open(&folder, 1000).await, open(&folder, 900).await);
    assert_eq!((old.generation(), new.generation()), (Generation(1000), Generation(1001)));
    assert!(matches!(old.commit(&world.commits[0]).await, Err(LedgerError::Fenced(Generation(1000)))));
    assert!(matches!(old.add_counters(1, 1).await, Err(LedgerError::Fenced(_))));
    assert_eq!(new.facts().await.unwrap(), Facts::default(), "nothing of it was written");
    new.commit(&world.commits[0]).await.unwrap();
    new.add_counters(3, 4).await.unwrap();
    new.add_counters(3, 4).await.unwrap();
    assert_eq!(old.counters().await.unwrap(), Counters { bytes_up: 6, bytes_down: 8 });
    assert_eq!(open(&folder, 2000).await.generation(), Generation(2000));
}

#[tokio::test]
async fn a_contradiction_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let sqlite = open(&folder, 1).await;
    let memory = MemoryLedger::new();
    let generation = memory.raise(1);
    let (world, shards) = eventful();
    for records in &world.commits {
        sqlite.commit(records).await.unwrap();
        memory.commit(generation, records).unwrap();
    }
    let before = memory.facts();
    let device = Record::Device(before.devices[0].clone());
    let open_lease = before.leases.last().unwrap().lease.clone();
    let contradictions = [
        Record::Delta(before.deltas[0].clone()),
        Record::Version(before.versions[0].clone()),
        Record::Evaluation(before.evaluations[0].clone()),
        Record::LeaseClosed { id: LeaseId(1), outcome: LeaseOutcome::Expired, samples_used: 0, at: Default::default() },
        Record::LeaseClosed {
            id: LeaseId(9999),
            outcome: LeaseOutcome::Expired,
            samples_used: 0,
            at: Default::default(),
        },
        Record::LeaseIssued(open_lease.clone()),
        Record::LeaseIssued(LeaseRecord { id: LeaseId(9999), ..open_lease }),
    ];
    for record in contradictions {
        let both = [device.clone(), record];
        assert!(matches!(sqlite.commit(&both).await, Err(LedgerError::Contradiction(_))), "{:?}", both[1]);
        assert!(matches!(memory.commit(generation, &both), Err(LedgerError::Contradiction(_))), "{:?}", both[1]);
    }
    assert_eq!((sqlite.facts().await.unwrap(), memory.facts()), (before.clone(), before));
    assert_eq!(sqlite.snapshot(&shards).await.unwrap(), memory.snapshot(shards.samples()));
}

#[tokio::test]
async fn what_may_change_in_a_run_is_taken_over_and_its_name_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    let of = |more: &str, id: u8| RunIdentity {
        run_id: RunId([id; 32]),
        spec_json: format!("{{\"name\": \"x\", \"token_budget\": 1000{more}}}"),
        ..identity()
    };
    let first = SqliteLedger::create_or_open(&path, &of("", 1), 1).await.unwrap();
    assert_eq!(first.changes(), [""; 0]);
    first.close().await;
    // Its name would be another, made of what is there now.
    let described = of(", \"description\": \"d\"", 2);
    for changes in [1, 0] {
        let again = SqliteLedger::create_or_open(&path, &described, 1).await.unwrap();
        assert_eq!(again.changes().len(), changes);
        assert_eq!(again.identity(), &RunIdentity { run_id: RunId([1; 32]), ..described.clone() });
        again.close().await;
    }
    let read = SqliteLedger::open_to_read(&path).await.unwrap();
    assert_eq!(read.identity().spec_json, described.spec_json);
    read.close().await;
    let reseeded = SqliteLedger::create_or_open(&path, &of(", \"seed\": 2", 3), 1).await;
    let Err(LedgerError::OtherSpec(why)) = reseeded else { panic!("another seed was taken") };
    assert!(why.contains("seed is 2, was 1"), "{why}");
    // A refusal changes nothing.
    assert_eq!(SqliteLedger::open_to_read(&path).await.unwrap().identity().spec_json, described.spec_json);
}

#[tokio::test]
async fn another_runs_ledger_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    open(&folder, 1).await.close().await;
    let other_spec = RunIdentity { spec_json: "{ }".into(), ..identity() };
    assert!(matches!(SqliteLedger::create_or_open(&path, &other_spec, 1).await, Err(LedgerError::OtherSpec(_))));
    let other_data = RunIdentity { manifest_hash: BlobHash([3; 32]), ..identity() };
    assert!(matches!(SqliteLedger::create_or_open(&path, &other_data, 1).await, Err(LedgerError::OtherData)));
    assert_eq!(SqliteLedger::open_to_read(&path).await.unwrap().identity(), &identity());
    let nowhere = folder.path().join("nowhere.sqlite");
    assert!(matches!(SqliteLedger::open_to_read(&nowhere).await, Err(LedgerError::NotFound(_))));
    assert!(!nowhere.exists(), "looking for it does not create it");
    std::fs::write(&nowhere, vec![7; 8192]).unwrap();
    assert!(matches!(SqliteLedger::create_or_open(&nowhere, &identity(), 1).await, Err(LedgerError::Damaged(_))));
}

#[tokio::test]
async fn the_coordinators_key_is_taken_once_and_then_known() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    let sqlite = open(&folder, 1).await;
    for _ in 0..2 {
        sqlite.adopt_key(DeviceId([7; 32])).await.unwrap();
    }
    let other = sqlite.adopt_key(DeviceId([8; 32])).await;
    assert!(matches!(&other, Err(LedgerError::OtherKey(known)) if known == "07070707"), "{other:?}");
    let newer = open(&folder, 1).await;
    assert!(matches!(sqlite.adopt_key(DeviceId([8; 32])).await, Err(LedgerError::OtherKey(_))));
    newer.close().await;
    sqlite.close().await;
    let looked = look::look(&path).await.unwrap();
    assert_eq!(looked, look::Look { has_run: true, key: Some([7; 32]), versions: 0 });
}

#[tokio::test]
async fn losses_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let sqlite = open(&folder, 1).await;
    for records in &eventful().0.commits {
        sqlite.commit(records).await.unwrap();
    }
    sqlite.note_losses(Some(Version(3)), &[5, 2]).await.unwrap();
    sqlite.note_losses(Some(Version(3)), &[2]).await.unwrap();
    let facts = sqlite.facts().await.unwrap();
    assert_eq!((facts.restarts, facts.lost_deltas), (vec![Version(3)], vec![2, 5]));
    open(&folder, 1).await;
    assert!(matches!(sqlite.note_losses(None, &[1]).await, Err(LedgerError::Fenced(_))));
}

#[tokio::test]
async fn a_file_is_looked_at_before_it_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    assert!(matches!(look::look(&path).await, Err(LedgerError::NotFound(_))));
    let nothing = look::Look { has_run: false, key: None, versions: 0 };
    std::fs::write(&path, "").unwrap();
    assert_eq!(look::look(&path).await.unwrap(), nothing);
    look::check(&path, look::Depth::Quick).await.unwrap();

    // As an older version left it, and as another program's.
    let pool = connect(&path).await.unwrap();
    sqlx::raw_sql(include_str!("../migrations/0001_first.sql")).execute(&pool).await.unwrap();
    pool.close().await;
    assert_eq!(look::look(&path).await.unwrap(), nothing);
    let pool = connect(&path).await.unwrap();
    sqlx::raw_sql("INSERT INTO run VALUES (1, x'00', '{}', x'00', 1)").execute(&pool).await.unwrap();
    pool.close().await;
    assert_eq!(look::look(&path).await.unwrap(), look::Look { has_run: true, ..nothing });
    let others = folder.path().join("others.sqlite");
    let pool = connect(&others).await.unwrap();
    sqlx::raw_sql("CREATE TABLE run (kilometres INTEGER)").execute(&pool).await.unwrap();
    pool.close().await;
    let before = std::fs::read_dir(folder.path()).unwrap().count();
    assert!(matches!(look::look(&others).await, Err(LedgerError::Foreign(_))));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), before, "looking leaves nothing behind");
}

#[tokio::test]
async fn damaged_pages_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    let sqlite = open(&folder, 1).await;
    for records in &eventful().0.commits {
        sqlite.commit(records).await.unwrap();
    }
    sqlite.close().await;
    let whole = std::fs::read(&path).unwrap();
    for depth in [look::Depth::Quick, look::Depth::Full] {
        look::check(&path, depth).await.unwrap();
        for page in 1..whole.len() / 4096 {
            let mut bytes = whole.clone();
            bytes[page * 4096..(page + 1) * 4096].fill(0xa5);
            std::fs::write(&path, bytes).unwrap();
            let found = look::check(&path, depth).await;
            assert!(matches!(found, Err(LedgerError::Broken(_) | LedgerError::Damaged(_))), "page {page}: {found:?}");
        }
        std::fs::write(&path, &whole).unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_and_a_locked_file_are_said_plainly() {
    let folder = tempfile::tempdir().unwrap();
    let (sqlite, other) = (open(&folder, 1).await, open(&folder, 1).await);
    let (world, _) = eventful();
    let all: Vec<Record> = world.commits.concat();
    sqlx::query("PRAGMA max_page_count = 1").fetch_all(&other.pool).await.unwrap();
    let wide = Record::Device(DeviceRecord { name: "x".repeat(1 << 20), ..world.ledger.facts().devices[0].clone() });
    let full = other.commit(&[all.clone(), vec![wide]].concat()).await;
    assert!(matches!(full, Err(LedgerError::DiskFull)), "{full:?}");
    assert_eq!(other.facts().await.unwrap(), Facts::default());
    other.commit(&world.commits[0]).await.expect("it goes on as soon as there is space");
    sqlx::query("PRAGMA busy_timeout = 0").fetch_all(&other.pool).await.unwrap();
    let writer = sqlite.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let locked = other.add_counters(1, 1).await;
    assert!(matches!(locked, Err(LedgerError::Locked)), "{locked:?}");
    drop(writer);
}

mod whole {
    //! Whatever is written is read back as it was, and what would not be is refused.

    use super::*;
    use crate::engine::record::{DeltaRecord, EvaluationRecord, LeaseKind as Kind, VersionRecord};
    use nightjar_shared::{ids::DeviceId, time::Wall};
    use proptest::prelude::*;

    fn integer() -> impl Strategy<Value = u64> {
        let edges = vec![0, 1, i64::MAX as u64 - 1, i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX - 1, u64::MAX];
        prop_oneof![6 => 0u64..1000, 3 => any::<i64>().prop_map(|n| n.unsigned_abs()), 1 => prop::sample::select(edges)]
    }

    fn small() -> impl Strategy<Value = u32> {
        prop_oneof![Just(0), Just(u32::MAX), any::<u32>()]
    }

    fn real() -> impl Strategy<Value = f64> {
        let edges =
            vec![0.0, -0.0, f64::MIN_POSITIVE, 5e-324, f64::MAX, f64::MIN, f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
        prop_oneof![6 => -1e3..1e3, 2 => any::<f64>(), 1 => prop::sample::select(edges)]
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![any::<String>(), Just("\0 between".into()), Just(String::new())]
    }

    fn wall() -> impl Strategy<Value = Wall> {
        integer().prop_map(|unix_ms| Wall { unix_ms })
    }

    fn blob() -> impl Strategy<Value = (BlobHash, u64)> {
        (any::<[u8; 32]>().prop_map(BlobHash), integer())
    }

    const OWL: DeviceId = DeviceId([5; 32]);

    /// A record of any kind about one device and its first lease.
    fn record() -> impl Strategy<Value = Record> {
        let role = prop::sample::select(vec![Role::Unspecified, Role::Volunteer, Role::Anchor]);
        let outcomes = <LeaseOutcome as rows::Word>::ALL.iter().map(|(outcome, _)| *outcome).collect::<Vec<_>>();
        let device = (text(), text(), role, any::<Vec<u8>>(), wall(), real(), any::<bool>()).prop_map(
            |(name, device, role, invite_nonce, enrolled_at, tokens_per_s, left)| {
                Record::Device(DeviceRecord {
                    id: OWL,
                    name,
                    device,
                    role,
                    invite_nonce,
                    enrolled_at,
                    tokens_per_s,
                    left,
                })
            },
        );
        let issued =
            ([integer(), integer(), integer()], [small(), small(), small(), small(), small()], any::<bool>(), wall());
        let issued =
            issued.prop_map(|([id, generation, version], [epoch, shard, first_sample, samples, steps], trains, at)| {
                Record::LeaseIssued(LeaseRecord {
                    id: LeaseId(id),
                    generation: Generation(generation),
                    device: OWL,
                    kind: if trains { Kind::Train } else { Kind::Evaluate },
                    base_version: Version(version),
                    epoch,
                    shard,
                    first_sample,
                    samples,
                    steps,
                    issued_at: at,
                })
            });
        let closed = (prop::sample::select(outcomes), small(), wall())
            .prop_map(|(outcome, samples_used, at)| Record::LeaseClosed { id: LeaseId(1), outcome, samples_used, at });
        let numbers = [integer(), integer(), integer(), integer(), integer()];
        let delta = (integer(), blob(), small(), numbers, [real(), real(), real(), real()], wall());
        let delta = delta.prop_map(
            |(seq, (blob, bytes), steps, [tokens, staleness, train_ms, wall_ms, _], reals, merged_at)| {
                let [weight, norm, loss_first, loss_last] = reals;
                let (lease, device) = (LeaseId(1), OWL);
                let times = (train_ms, wall_ms, merged_at);
                Record::Delta(DeltaRecord {
                    seq,
                    lease,
                    device,
                    blob,
                    bytes,
                    steps,
                    tokens,
                    staleness,
                    weight,
                    norm,
                    train_ms: times.0,
                    wall_ms: times.1,
                    loss_first,
                    loss_last,
                    merged_at: times.2,
                })
            },
        );
        let squash = (integer(), blob()).prop_map(|(from, blob)| Squash { from: Version(from), blob });
        let version = (
            integer(),
            prop::option::of(blob()),
            prop::option::of(blob()),
            any::<[u8; 32]>(),
            integer(),
            wall(),
            prop::collection::vec(squash, 0..4),
        );
        let version = version.prop_map(|(version, update, keyframe, digest, through_seq, published_at, squashes)| {
            let version = Version(version);
            Record::Version(VersionRecord { version, update, keyframe, digest, through_seq, published_at, squashes })
        });
        let evaluation =
            (integer(), real(), integer(), integer(), wall()).prop_map(|(version, nats, tokens, text_bytes, at)| {
                let (version, lease) = (Version(version), LeaseId(1));
                Record::Evaluation(EvaluationRecord { version, lease, nats, tokens, text_bytes, measured_at: at })
            });
        prop_oneof![device, issued, closed, delta, version, evaluation]
    }

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
        };
        let lease = LeaseRecord {
            id: LeaseId(1),
            generation: Generation(1),
            device: OWL,
            kind: Kind::Train,
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

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
        #[test]
        fn what_is_written_is_read_back(records in prop::collection::vec(record(), 1..12)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let folder = tempfile::tempdir().unwrap();
                let (sqlite, memory) = (open(&folder, 1).await, MemoryLedger::new());
                let generation = memory.raise(1);
                sqlite.commit(&beginning()).await.unwrap();
                memory.commit(generation, &beginning()).unwrap();
                for record in records {
                    // Beside one that can be written: what is refused takes it along.
                    let both = [beginning()[0].clone(), record];
                    let (written, expected) = (sqlite.commit(&both).await, memory.commit(generation, &both));
                    match (&written, &expected) {
                        (Ok(()), Ok(())) => {}
                        (Err(LedgerError::Unfit { .. }), Err(LedgerError::Unfit { .. })) => {}
                        (Err(LedgerError::Contradiction(_)), Err(LedgerError::Contradiction(_))) => {}
                        // In memory a lease's number is only ever larger than those before.
                        (Ok(()), Err(LedgerError::Contradiction(_))) if matches!(both[1], Record::LeaseIssued(_)) => return,
                        _ => panic!("{written:?}, and in memory {expected:?}, for {:?}", both[1]),
                    }
                    let facts = sqlite.facts().await.unwrap();
                    assert_eq!(facts, in_order(memory.facts()));
                    assert_eq!(facts.set_aside, vec![]);
                    sqlite.snapshot(&Shards::of(&manifest(), 4)).await.unwrap();
                }
            });
        }
    }

    /// As SQL tells them, whatever the order in which they came.
    fn in_order(mut facts: Facts) -> Facts {
        facts.deltas.sort_by_key(|d| d.seq);
        facts.versions.sort_by_key(|v| v.version);
        facts
    }
}

async fn open_ledger(folder: &tempfile::TempDir, world: &World) -> SqliteLedger {
    let sqlite = open(folder, 1).await;
    for records in &world.commits {
        sqlite.commit(records).await.unwrap();
    }
    sqlite
}

#[cfg(unix)]
#[tokio::test]
async fn a_ledger_is_read_where_nothing_can_be_written() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (world, _) = eventful();
    let sqlite = open_ledger(&folder, &world).await;
    let facts = sqlite.facts().await.unwrap();
    sqlite.close().await;
    let path = folder.path().join("ledger.sqlite");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o444)).unwrap();
    let before = std::fs::read(&path).unwrap();
    let reader = SqliteLedger::open_to_read(&path).await.unwrap();
    assert_eq!(reader.facts().await.unwrap(), facts);
    assert!(!folder.path().join("ledger.sqlite-wal").exists() && !folder.path().join("ledger.sqlite-shm").exists());
    assert_eq!(std::fs::read(&path).unwrap(), before);
    // A folder in its place: no database opens it.
    let taken = folder.path().join("taken.sqlite");
    std::fs::create_dir(&taken).unwrap();
    let told = SqliteLedger::open_to_read(&taken).await.err().unwrap().to_string();
    assert!(told.contains("taken.sqlite") && !told.contains("(code"), "{told}");
}
