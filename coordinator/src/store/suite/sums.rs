//! What every ledger promises of the sums that a start goes by, and of runs that are longer than a start tells.

use super::*;

/// At every step of a run a start adds up what there is, and comes to the same as the facts.
pub(super) async fn sums_are_made_anew_and_are_those_of_the_rows<P: Place>() {
    let Some(place) = P::new() else { return };
    let (ledger, model) = (place.open(1).await, MemoryLedger::new().open(1));
    let (world, shards) = eventful();
    for records in &world.commits {
        ledger.commit(records).await.unwrap();
        model.commit(records).unwrap();
        assert!(ledger.check_sums().await.unwrap().is_ok());
    }
    let heard = Mutex::new(vec![]);
    let told = |done, all| heard.lock().unwrap().push((done, all));
    ledger.catch_up(&shards, &told).await.unwrap();
    assert_eq!(ledger.check_sums().await.unwrap().err(), None);
    assert_eq!(ledger.snapshot(&shards).await.unwrap(), model.snapshot(&shards), "finished epochs are known as such");
    let last = model.snapshot(&shards).last_seq;
    assert!(heard.lock().unwrap().iter().all(|(done, all)| done <= all && *all == last));
}

/// More versions and measurements than a start tells.
pub(super) async fn a_long_run_is_told_in_little<P: Place>() {
    let Some(place) = P::new() else { return };
    let (ledger, model) = (place.open(1).await, MemoryLedger::new().open(1));
    let all: Vec<Record> = beginning()[..1].iter().cloned().chain((0..2100).flat_map(version_of_one_delta)).collect();
    for records in all.chunks(700) {
        ledger.commit(records).await.unwrap();
        model.commit(records).unwrap();
    }
    let shards = Shards::of(&manifest(), 4);
    ledger.catch_up(&shards, &|_, _| ()).await.unwrap();
    for since in [0, 3, 2000, 2099].map(Version) {
        let lineage = ledger.lineage(since).await.unwrap();
        assert_eq!(lineage, *Ledger::lineage(&model, since).await.as_ref().unwrap());
        assert_eq!(lineage.is_cut, since > Version(0), "since {since}");
    }
    let curves = ledger.curves().await.unwrap();
    assert_eq!(curves, Ledger::curves(&model).await.unwrap());
    assert_eq!(ledger.snapshot(&shards).await.unwrap(), model.snapshot(&shards));
    assert_eq!(ledger.facts().await.unwrap(), model.facts(), "and as a whole, page by page");
    assert_eq!(ledger.check_sums().await.unwrap().err(), None);
}

/// A lease, its delta, the version made of it, and a measurement of that.
fn version_of_one_delta(n: u64) -> Vec<Record> {
    let (issued_at, blob) = (Wall { unix_ms: n }, BlobRef { hash: BlobHash([n as u8; 32]), bytes: n });
    let lease = |id, kind| LeaseRecord {
        id: LeaseId(id),
        generation: Generation(1),
        device: OWL,
        kind,
        base_version: Version(n),
        epoch: (n / 48) as u32,
        shard: (n % 48 / 24) as u32,
        first_sample: (n % 24 * 4) as u32,
        samples: 4,
        steps: 1,
        issued_at,
    };
    let closed =
        |id, outcome, samples_used| Record::LeaseClosed { id: LeaseId(id), outcome, samples_used, at: issued_at };
    let delta = DeltaRecord {
        seq: n + 1,
        lease: LeaseId(2 * n + 1),
        device: OWL,
        blob,
        steps: 1,
        tokens: 16 + n,
        staleness: 0,
        weight: 1.0,
        norm: 1.0,
        train_ms: n,
        wall_ms: n,
        loss_first: 2.0,
        loss_last: 1.0,
        merged_at: issued_at,
    };
    let version = VersionRecord {
        version: Version(n),
        update: Some(blob),
        given: None,
        keyframe: None,
        digest: [n as u8; 32],
        through_seq: n + 1,
        published_at: issued_at,
        squashes: vec![],
    };
    let measured = EvaluationRecord {
        version: Version(n),
        lease: LeaseId(2 * n + 2),
        nats: n as f64,
        tokens: 10,
        text_bytes: 10,
        measured_at: issued_at,
    };
    vec![
        Record::LeaseIssued(lease(2 * n + 1, LeaseKind::Train)),
        closed(2 * n + 1, LeaseOutcome::Merged, 4),
        Record::Delta(delta),
        Record::Version(version),
        Record::LeaseIssued(lease(2 * n + 2, LeaseKind::Evaluate)),
        closed(2 * n + 2, LeaseOutcome::Evaluated, 0),
        Record::Evaluation(measured),
    ]
}
