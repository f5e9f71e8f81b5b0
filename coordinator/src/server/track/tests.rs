//! Files after kills at any byte, and points after a start.

use super::*;
use crate::{
    engine::record::{DeltaRecord, EvaluationRecord, VersionRecord},
    server::history::History,
    store::{Curves, Lineage},
};
use nightjar_shared::{
    blob::BlobRef,
    ids::{DeviceId, LeaseId, Version},
    time::Wall,
};
use std::{collections::BTreeSet, fs, path::Path};

fn delta(seq: u64, tokens: u64, loss: f64) -> DeltaRecord {
    DeltaRecord {
        seq,
        lease: LeaseId(seq),
        device: DeviceId([0; 32]),
        blob: BlobRef::of(b"delta"),
        steps: 1,
        tokens,
        staleness: seq % 2,
        weight: 1.0,
        norm: 1.0,
        train_ms: 1,
        wall_ms: 1,
        loss_first: 9.0,
        loss_last: loss,
        merged_at: Wall::default(),
    }
}

fn version(n: u64, through_seq: u64) -> VersionRecord {
    let update = (n > 0).then_some(BlobRef::of(b"update"));
    let published_at = Wall { unix_ms: 1_000_000 + 2000 * n };
    VersionRecord {
        version: Version(n),
        update,
        keyframe: None,
        digest: [0; 32],
        through_seq,
        published_at,
        squashes: vec![],
        given: None,
    }
}

fn evaluation(version: u64, nats: f64) -> EvaluationRecord {
    let measured_at = Wall { unix_ms: 1_000_500 + 2000 * version };
    EvaluationRecord { version: Version(version), lease: LeaseId(99), nats, tokens: 10, text_bytes: 10, measured_at }
}

/// Three versions of two deltas each.
fn records() -> Vec<Record> {
    let mut records = vec![Record::Version(version(0, 0)), Record::Evaluation(evaluation(0, 50.0))];
    for n in 1..=3 {
        records.push(Record::Delta(delta(2 * n - 1, 100, 4.0)));
        records.push(Record::Delta(delta(2 * n, 300, 2.0)));
        records.push(Record::Version(version(n, 2 * n)));
        records.push(Record::Evaluation(evaluation(n, 50.0 - n as f64)));
    }
    records
}

/// What a start knows after so many of the records.
fn started(records: &[Record]) -> Points {
    let (mut history, mut lineage) = (History::default(), Lineage::default());
    for record in records {
        history.add(record);
        match record {
            Record::Delta(delta) => lineage.deltas.push(delta.clone()),
            Record::Version(version) => lineage.versions.push(version.clone()),
            _ => {}
        }
    }
    Points::taken_up(&history, &lineage)
}

#[test]
fn what_a_start_tells_is_what_was_told_as_it_happened() {
    let mut live = started(&[]);
    let mut told = live.take(&records());
    let mut known = started(&records()).so_far();
    let order = |a: &Point, b: &Point| (a.tokens, a.name).cmp(&(b.tokens, b.name));
    told.sort_by(order);
    known.sort_by(order);
    assert_eq!(told, known);
    let value = |name: &str, tokens: u64| told.iter().find(|p| p.name == name && p.tokens == tokens).map(|p| p.value);
    assert_eq!((value("train/loss", 400), value("version/deltas", 400)), (Some(2.5), Some(2.0)));
    assert_eq!((value("version/round_s", 800), value("train/tokens_per_s", 800)), (Some(2.0), Some(200.0)));
    assert_eq!((value("heldout/loss", 0), value("heldout/loss", 1200)), (Some(5.0), Some(4.7)));
    assert_eq!((value("version/staleness", 400), value("version/round_s", 0)), (Some(0.5), None));
    // Of a long run the deltas are not read, and the curves are.
    let curves = Curves { versions: vec![(version(7, 90), 5000)], evaluations: vec![] };
    let cut = Lineage { after_seq: 90, is_cut: true, versions: vec![version(7, 90)], ..Lineage::default() };
    let names: Vec<_> =
        Points::taken_up(&History::taken_up(&cut, &curves), &cut).so_far().iter().map(|p| p.name).collect();
    assert_eq!(names, ["version/update_bytes"]);
}

fn event_file(folder: &Path) -> PathBuf {
    let mut names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let file = names.next().unwrap();
    assert!(names.next().is_none(), "one file a run");
    file
}

/// Served until some records, killed with so many bytes of each file written, and started again for all of them.
fn after_a_kill(until: usize, cut: impl Fn(u64) -> u64) -> (Vec<u8>, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let places =
        Places { tensorboard: Some(folder.path().join("board")), csv: Some(folder.path().join("deep/run.csv")) };
    let (board, csv) = (places.tensorboard.clone().unwrap(), places.csv.clone().unwrap());
    let all = records();
    drop(Tracker::open(&places, "owl", started(&all[..until])).unwrap());
    for file in [event_file(&board), csv.clone()] {
        let file = fs::OpenOptions::new().write(true).open(file).unwrap();
        file.set_len(cut(file.metadata().unwrap().len())).unwrap();
    }
    drop(Tracker::open(&places, "owl", started(&all)).unwrap());
    (fs::read(event_file(&board)).unwrap(), fs::read(csv).unwrap())
}

#[test]
fn a_kill_at_any_byte_leaves_neither_gaps_nor_doubles() {
    let lines = |csv: &[u8]| String::from_utf8(csv.to_vec()).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
    let (board, csv) = after_a_kill(records().len(), |bytes| bytes);
    let right: BTreeSet<String> = lines(&csv).into_iter().collect();
    assert_eq!(right.len(), lines(&csv).len());
    for cut in 0..400 {
        let (again, csv) = after_a_kill(9, |bytes| bytes.saturating_sub(cut));
        assert_eq!(again.len(), board.len(), "cut {cut}");
        assert_eq!((lines(&csv).len(), lines(&csv).into_iter().collect()), (right.len(), right.clone()), "cut {cut}");
    }
}

#[test]
fn what_happens_while_it_is_served_is_written_down() {
    let folder = tempfile::tempdir().unwrap();
    let csv = folder.path().join("run.csv");
    let places = Places { tensorboard: None, csv: Some(csv.clone()) };
    let mut tracker = Tracker::open(&places, "owl", started(&[])).unwrap();
    records().iter().for_each(|record| tracker.committed(std::slice::from_ref(record)));
    drop(tracker);
    let written = fs::read_to_string(&csv).unwrap();
    assert_eq!(written.lines().count(), started(&records()).so_far().len() + 1, "{written}");
}

#[test]
fn a_file_of_somebody_else_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let csv = folder.path().join("thesis.csv");
    fs::write(&csv, "name,age\nowl,3").unwrap();
    let places = Places { tensorboard: None, csv: Some(csv.clone()) };
    let refused = Tracker::open(&places, "owl", started(&[])).err().unwrap().to_string();
    assert!(refused.contains("thesis.csv is not what this coordinator writes"), "{refused}");
    assert_eq!(fs::read_to_string(&csv).unwrap(), "name,age\nowl,3");
    // TensorBoard's folder may hold other files, which are not looked at.
    let places = Places { tensorboard: Some(folder.path().to_owned()), csv: None };
    fs::write(folder.path().join("events.out.tfevents.1.host"), "other").unwrap();
    drop(Tracker::open(&places, "owl", started(&records())).unwrap());
    assert_eq!(fs::read_to_string(folder.path().join("events.out.tfevents.1.host")).unwrap(), "other");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
}
