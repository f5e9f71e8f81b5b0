//! What contradicts an invariant is noticed: each of these records was made wrong on purpose.

use super::*;
use crate::scale;
use nightjar_coordinator::engine::record::{DeltaRecord, LeaseRecord};
use nightjar_shared::{lease::LeaseKind, time::Wall};

fn tally() -> Tally {
    let spec = scale::spec(10);
    Tally::new(&spec, &crate::dataset::Dataset::of_sizes(&spec, 2, 64).manifest)
}

fn issued(id: u64, device: u8, first_sample: u32) -> Record {
    Record::LeaseIssued(LeaseRecord {
        id: LeaseId(id),
        generation: Generation(1),
        device: DeviceId([device; 32]),
        kind: LeaseKind::Train,
        base_version: Version(0),
        epoch: 0,
        shard: 0,
        first_sample,
        samples: 8,
        steps: 1,
        issued_at: Wall::default(),
    })
}

fn delta(seq: u64, lease: u64, device: u8) -> Record {
    Record::Delta(DeltaRecord {
        seq,
        lease: LeaseId(lease),
        device: DeviceId([device; 32]),
        blob: BlobRef::of(b"d"),
        steps: 1,
        tokens: 8,
        staleness: 0,
        weight: 1.0,
        norm: 1.0,
        train_ms: 1,
        wall_ms: 1,
        loss_first: 1.0,
        loss_last: 1.0,
        merged_at: Wall::default(),
    })
}

fn closed(id: u64, outcome: LeaseOutcome, samples_used: u32) -> Record {
    Record::LeaseClosed { id: LeaseId(id), outcome, samples_used, at: Wall::default() }
}

fn faults(records: &[Record]) -> String {
    let mut tally = tally();
    tally.commit(records);
    tally.examine().join("; ")
}

#[test]
fn a_sound_run_has_no_fault() {
    let mut tally = tally();
    tally.commit(&[issued(1, 1, 0), issued(2, 2, 8), delta(1, 2, 2), closed(2, LeaseOutcome::Merged, 8)]);
    tally.commit(&[
        closed(1, LeaseOutcome::Expired, 0),
        issued(3, 2, 0),
        delta(2, 3, 2),
        closed(3, LeaseOutcome::Merged, 4),
    ]);
    assert_eq!(tally.examine(), Vec::<String>::new());
    assert_eq!(tally.leases(), BTreeMap::from([("merged".to_owned(), 2), ("expired".to_owned(), 1)]));
    assert!(tally.was_merged(LeaseId(2)) && !tally.was_merged(LeaseId(1)) && !tally.was_merged(LeaseId(900)));
}

#[test]
fn each_contradiction_is_told() {
    let merged = |id| closed(id, LeaseOutcome::Merged, 8);
    let twice = [issued(1, 1, 0), delta(1, 1, 1), delta(2, 1, 1)];
    assert!(faults(&twice).contains("delta 2 has no lease of its own"), "{}", faults(&twice));
    assert!(faults(&[issued(1, 1, 0), delta(1, 1, 9)]).contains("has no lease of its own"), "another device's lease");
    assert!(faults(&[issued(1, 1, 0), delta(5, 1, 1)]).contains("delta 5 follows 0"));
    assert!(faults(&[issued(1, 1, 0), merged(1)]).contains("does not fit it"), "merged without a delta");
    assert!(faults(&[issued(1, 1, 0), delta(1, 1, 1), merged(1), merged(1)]).contains("ended twice"));
    let more = [issued(1, 1, 0), delta(1, 1, 1), closed(1, LeaseOutcome::Merged, 9)];
    assert!(faults(&more).contains("does not fit it"), "more samples than leased");
    let again = [issued(1, 1, 0), delta(1, 1, 1), merged(1), issued(2, 2, 4), delta(2, 2, 2), merged(2)];
    assert!(faults(&again).contains("1 ranges of samples were merged twice"), "{}", faults(&again));
}

#[test]
fn squashes_shorten_the_way_and_stop_at_a_keyframe() {
    let mut tally = tally();
    let published: Vec<Published> = (0..=12).map(|v| tally.publish(Version(v), v == 6, v)).collect();
    let spans = |v: usize| published[v].squashes.iter().map(|s| v as u64 - s.from.0).collect::<Vec<_>>();
    assert_eq!((spans(3), spans(4), spans(6)), (vec![], vec![4], vec![4]));
    // The 4 updates to version 9 lead over version 6, which is redefined.
    assert_eq!((spans(9), spans(10)), (vec![], vec![4]));
    let bits = |bytes: u64| bytes as f64 * 8.0 / scale::model().parameters() as f64;
    let (update, squash) = (published[4].update.unwrap().bytes, published[4].squashes[0].blob);
    assert!((2.0..2.1).contains(&bits(update)) && (4.4..4.7).contains(&bits(squash.bytes)));
    assert_eq!(tally.length(squash.hash), Some(squash.bytes));
}
