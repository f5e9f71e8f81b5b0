//! The feed after facts that came one by one.

use super::*;
use crate::{
    engine::record::{DeltaRecord, EvaluationRecord, VersionRecord},
    server::disk_reserve::FolderSpace,
    store::MemoryLedger,
};
use nightjar_shared::{
    blob::BlobRef,
    disk::FolderDisk,
    ids::{DeviceId, LeaseId, Version},
    run_spec::RunSpec,
    wire::Done,
};

pub fn status(agreement: Option<f64>) -> Status {
    Status {
        generation: Generation(3),
        version: Some(Version(2)),
        evaluation: None,
        tokens: 40,
        token_budget: 100,
        tokens_per_s: 5.0,
        merged: 2,
        leases_open: 1,
        agreement,
        finished: false,
        paused_at: None,
        series: None,
        refused: Default::default(),
    }
}

pub fn feed(folder: &std::path::Path) -> Feed {
    let disk = Arc::new(FolderDisk::open(folder).unwrap());
    let spec = RunSpec::new("x", 100);
    Feed::begin(Begun {
        ledger: Arc::new(MemoryLedger::new()),
        devices: Arc::default(),
        history: History::default(),
        status: status(None),
        counters: Counters { bytes_up: 7, bytes_down: 8 },
        traffic: Arc::default(),
        reserve: Arc::new(DiskReserve::open(disk.clone(), Box::new(FolderSpace(disk)), &spec)),
        troubles: Arc::default(),
        spec: Arc::new(spec),
    })
}

fn version(n: u64, through_seq: u64, unix_ms: u64) -> Record {
    Record::Version(VersionRecord {
        version: Version(n),
        update: None,
        given: None,
        keyframe: None,
        digest: [0; 32],
        through_seq,
        published_at: Wall { unix_ms },
        squashes: vec![],
    })
}

fn delta(seq: u64, tokens: u64, train_ms: u64, wall_ms: u64) -> Record {
    Record::Delta(DeltaRecord {
        seq,
        lease: LeaseId(seq),
        device: DeviceId([0; 32]),
        blob: BlobRef::of(b"delta"),
        steps: 1,
        tokens,
        staleness: 0,
        weight: 1.0,
        norm: 1.0,
        train_ms,
        wall_ms,
        loss_first: 1.0,
        loss_last: 1.0,
        merged_at: Wall::default(),
    })
}

#[test]
fn figures_and_curves_follow_what_is_committed() {
    let folder = tempfile::tempdir().unwrap();
    let feed = feed(folder.path());
    let evaluation = EvaluationRecord {
        version: Version(1),
        lease: LeaseId(9),
        nats: 6.0,
        tokens: 3,
        text_bytes: 4,
        measured_at: Wall { unix_ms: 5 },
    };
    feed.committed(&[version(0, 0, 1000), delta(1, 30, 500, 1000), version(1, 1, 3000)], status(Some(0.25)));
    feed.committed(&[Record::Evaluation(evaluation)], status(Some(0.25)));
    feed.traffic.count_for_tests(10, 20);
    let figures = feed.figures();
    assert_eq!((figures.round_s, figures.utilisation, figures.agreement), (Some(2.0), Some(0.5), Some(0.25)));
    assert_eq!((figures.bytes_up, figures.bytes_down), (17, 28));
    feed.traffic.take();
    assert_eq!(feed.figures().bytes_up, 17, "what was written down is not lost to those who read");
    let drawn = feed.drawn();
    assert_eq!((drawn.losses[0].newest.tokens, drawn.losses[0].newest.loss), (30, 1.5));
    let rounds: Vec<_> = drawn.versions.iter().map(|span| (span.round_ms, span.agreement)).collect();
    assert_eq!(rounds, [(None, Some(0.25)), (Some(2000), Some(0.25))]);
    let newest: Vec<_> = feed.newest_versions().iter().map(|point| point.version).collect();
    assert_eq!(newest, [1, 0]);
}

#[test]
fn reasons_are_counted_without_their_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let feed = feed(folder.path());
    let done = |note: &str, merged| answer::Body::Done(Done { merged, note: note.into(), ..Done::default() });
    for norm in ["2.5", "17", "1.2e-3"] {
        feed.answered(&done(&format!("Its norm, {norm}, is too large."), false));
    }
    feed.answered(&done("Its norm, 2.5, is too large.", true));
    feed.answered(&done("", false));
    assert_eq!(feed.figures().reasons, BTreeMap::from([("Its norm, …, is too large.".to_owned(), 3)]));
    for letter in 'a'..='z' {
        feed.answered(&done(&format!("{letter} is wrong"), false));
    }
    let reasons = feed.figures().reasons;
    assert_eq!((reasons.len(), reasons["another reason"]), (REASONS_MAX + 1, 3));
}
