//! What a run's records come to as spans, told to somebody who keeps them.

use super::*;
use crate::{engine::record::VersionRecord, world::device};
use nightjar_shared::{
    blob::BlobRef,
    ids::{BlobHash, Generation, Version},
    lease::LeaseKind,
};

/// Keeps what it is told, of the traces that it wants.
#[derive(Default)]
struct Kept {
    spans: Mutex<Vec<Span>>,
    wants_none: bool,
}

impl Spans for Kept {
    fn wants(&self, _: Trace) -> bool {
        !self.wants_none
    }

    fn take(&self, span: Span) {
        self.spans.lock().unwrap().push(span);
    }
}

impl Kept {
    /// The names and faults of those that came since this was asked last.
    fn told(&self) -> Vec<(&'static str, Option<String>)> {
        self.spans.lock().unwrap().drain(..).map(|span| (span.name, span.fault)).collect()
    }
}

const RUN: RunId = RunId([7; 32]);

fn bed() -> (Traces, Arc<Kept>) {
    let kept = Arc::new(Kept::default());
    (Traces::new(Some(kept.clone()), RUN), kept)
}

fn issued(id: u64, who: u8) -> LeaseRecord {
    LeaseRecord {
        id: LeaseId(id),
        generation: Generation(1),
        device: device(who),
        kind: LeaseKind::Train,
        base_version: Version(3),
        epoch: 0,
        shard: 0,
        first_sample: 0,
        samples: 8,
        steps: 2,
        issued_at: Wall { unix_ms: 1_000_000 },
    }
}

fn delta(seq: u64, lease: u64, who: u8) -> DeltaRecord {
    DeltaRecord {
        seq,
        lease: LeaseId(lease),
        device: device(who),
        blob: BlobRef { hash: BlobHash([1; 32]), bytes: 1 },
        steps: 2,
        tokens: 64,
        staleness: 0,
        weight: 1.0,
        norm: 1.0,
        train_ms: 1,
        wall_ms: 4000,
        loss_first: 1.0,
        loss_last: 1.0,
        merged_at: Wall { unix_ms: 1_010_000 },
    }
}

fn closed(id: u64, outcome: LeaseOutcome) -> Record {
    Record::LeaseClosed { id: LeaseId(id), outcome, samples_used: 0, at: Wall::default() }
}

fn version(number: u64, through_seq: u64) -> VersionRecord {
    VersionRecord {
        version: Version(number),
        update: None,
        given: None,
        keyframe: None,
        digest: [0; 32],
        through_seq,
        published_at: Wall::default(),
        squashes: vec![],
    }
}

#[test]
fn a_version_ends_the_traces_of_the_deltas_in_it_and_no_others() {
    let (traces, kept) = bed();
    for id in 1..=3 {
        traces.recorded(&Record::LeaseIssued(issued(id, id as u8)));
        traces.screens(LeaseId(id));
        traces.recorded(&Record::Delta(delta(id, id, id as u8)));
        traces.recorded(&closed(id, LeaseOutcome::Merged));
        traces.merged(id, Instant::now());
    }
    assert_eq!(kept.told(), vec![[("screen", None), ("merge", None)]; 3].concat());
    traces.publishes(Instant::now());
    traces.recorded(&Record::Version(version(4, 2)));
    assert_eq!(kept.told(), vec![[("publish", None), ("lease", None)]; 2].concat());
    traces.recorded(&Record::Version(version(5, 3)));
    assert_eq!(kept.told(), [("publish", None), ("lease", None)]);
}

#[test]
fn what_comes_to_nothing_says_why() {
    let (traces, kept) = bed();
    (1..=4).for_each(|id| traces.recorded(&Record::LeaseIssued(issued(id, id as u8))));
    traces.screens(LeaseId(2));
    for (id, outcome) in
        [LeaseOutcome::Expired, LeaseOutcome::ScreenedOut, LeaseOutcome::Returned].into_iter().enumerate()
    {
        traces.recorded(&closed(id as u64 + 1, outcome));
    }
    let refused = Some("its delta was not accepted".to_owned());
    let late = Some("its deadline passed".to_owned());
    assert_eq!(kept.told(), [("lease", late), ("screen", refused.clone()), ("lease", refused), ("lease", None)]);

    // A device tells of its own leases alone; what is dropped in the midst was broken off.
    drop(traces.uploads(device(9), LeaseId(4), 10));
    assert_eq!(kept.told(), []);
    drop(traces.uploads(device(4), LeaseId(4), 10));
    let mut upload = traces.uploads(device(4), LeaseId(4), 10).from(3);
    upload.refused("not now");
    drop(upload);
    traces.uploads(device(4), LeaseId(4), 10).done();
    let faults = [Some("it was broken off".to_owned()), Some("not now".to_owned()), None];
    assert_eq!(kept.told(), faults.map(|fault| ("upload", fault)));
}

#[test]
fn a_lease_begins_with_its_request_and_is_granted_once() {
    let (traces, kept) = bed();
    traces.recorded(&Record::LeaseIssued(issued(1, 1)));
    let came = Instant::now() - Duration::from_secs(5);
    traces.granted(LeaseId(1), came);
    traces.granted(LeaseId(1), Instant::now());
    traces.recorded(&closed(1, LeaseOutcome::Returned));
    let spans = kept.spans.lock().unwrap();
    let [grant, whole] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!((grant.name, whole.name, grant.began), ("grant", "lease", whole.began));
    assert!(grant.ended.duration_since(grant.began).unwrap() >= Duration::from_secs(5));
    assert_eq!((grant.trace, whole.trace), (Trace::of(RUN, LeaseId(1), device(1)), grant.trace));
    let others = [(RunId([8; 32]), 1, 1), (RUN, 2, 1), (RUN, 1, 2)];
    assert!(others.iter().all(|(run, id, who)| Trace::of(*run, LeaseId(*id), device(*who)) != grant.trace));
}

/// What a start finds goes on under the same ids, from when the ledger says that it began.
#[test]
fn a_start_takes_up_what_goes_on() {
    let (traces, kept) = bed();
    let lineage =
        Lineage { versions: vec![version(3, 6)], deltas: vec![delta(6, 1, 1), delta(7, 2, 3)], ..Lineage::default() };
    traces.take_up(&[issued(3, 3)], &lineage);
    traces.granted(LeaseId(3), Instant::now());
    assert_eq!(kept.told(), [], "it was told before");
    assert_eq!(traces.0.as_ref().unwrap().lock().of_device, HashMap::from([(device(3), LeaseId(3))]));
    traces.recorded(&Record::Version(version(4, 7)));
    traces.recorded(&closed(3, LeaseOutcome::Returned));
    let spans = kept.spans.lock().unwrap();
    let wholes: Vec<_> = spans.iter().filter(|span| span.is_whole()).map(|span| (span.trace, span.began)).collect();
    let ms = |unix_ms| at(Wall { unix_ms });
    let expected = [(2, 3, ms(1_006_000)), (3, 3, ms(1_000_000))];
    assert_eq!(wholes, expected.map(|(id, who, began)| (Trace::of(RUN, LeaseId(id), device(who)), began)));
}

#[test]
fn of_a_trace_that_nobody_wants_nothing_is_kept() {
    let kept = Arc::new(Kept { wants_none: true, ..Kept::default() });
    let traces = Traces::new(Some(kept.clone()), RUN);
    traces.recorded(&Record::LeaseIssued(issued(1, 1)));
    traces.granted(LeaseId(1), Instant::now());
    traces.uploads(device(1), LeaseId(1), 1).done();
    traces.recorded(&Record::Delta(delta(1, 1, 1)));
    traces.recorded(&Record::Version(version(4, 1)));
    assert_eq!(kept.told(), []);
    let leases = traces.0.as_ref().unwrap().lock();
    assert!(leases.open.is_empty() && leases.of_device.is_empty() && leases.merged.is_empty());
}
