//! A session's scenarios, as documentation.

mod holding;
mod refusals;
mod storm;
mod trouble;
mod why;

use super::*;
use crate::{journal, lease::Lease};
use nightjar_shared::{
    blob::BlobRef,
    ids::{BlobHash, Generation, LeaseId, Version},
    model_spec::ModelSpec,
    wire::{Refusal, RefusalAction, RefusalCode, coordinator_message as answer, worker},
};
use wire::worker::{from_worker, to_worker};

/// A session with a clock, and what it wants done.
struct Bench {
    session: Session,
    now: Mono,
    wanted: Vec<Action>,
    /// The journal as it is on the disk.
    stored: Journal,
}

fn spec_json() -> String {
    let spec = serde_json::json!({ "name": "night", "token_budget": 1000, "model": ModelSpec::tiny() });
    spec.to_string()
}

fn welcome() -> answer::Body {
    answer::Body::Welcome(wire::Welcome {
        run_id: vec![1; 32],
        generation: 5,
        run_spec_json: spec_json(),
        codec: 1,
        keep_alive_ms: 20_000,
        public_keys: vec![],
    })
}

fn blob(name: &str) -> wire::Blob {
    BlobRef::of(name.as_bytes()).to_wire()
}

fn lease(id: u64) -> wire::Lease {
    wire::Lease {
        id,
        generation: 5,
        kind: LeaseKind::Train.to_wire(),
        base_version: 3,
        base_digest: vec![9; 32],
        keyframe: Some(blob("keyframe")),
        shard: Some(blob("shard")),
        shard_samples: 100,
        samples: 40,
        steps: 10,
        ahead_steps: 5,
        remaining_ms: 60_000,
        codec: 1,
        ..Default::default()
    }
}

/// The length of a delta of `lease`.
fn delta_bytes() -> u64 {
    let spec = parse_spec(&spec_json()).unwrap();
    let delta = delta_spec(&Lease::from_wire(&lease(1), false).unwrap(), &spec).unwrap();
    *nightjar_shared::delta::bytes_allowed(&spec.model, &delta).end()
}

fn trained(id: u64, steps: u32) -> from_worker::Body {
    let name = |kind: &str| if steps > 0 { format!("work/lease-{id}.{kind}") } else { String::new() };
    from_worker::Body::Trained(worker::Trained {
        lease_id: id,
        delta_file: name("delta"),
        delta_hash: BlobHash::of(&[id as u8, steps as u8]).0.to_vec(),
        delta_bytes: delta_bytes(),
        residual_file: name("residual"),
        optimizer_file: name("optimizer"),
        weights_file: "work/weights-3".into(),
        steps,
        samples: steps * 4,
        train_ms: 900,
        loss_first: 5.5,
        loss_last: 5.0,
        ..Default::default()
    })
}

fn refusal(action: RefusalAction) -> answer::Body {
    answer::Body::Refusal(Refusal::with(RefusalCode::Busy, action, "no"))
}

fn done(merged: bool) -> answer::Body {
    answer::Body::Done(wire::Done { version: 4, merged, note: if merged { "" } else { "far out" }.into() })
}

impl Bench {
    fn new(journal: Journal) -> Self {
        let session = Session::new(Profile::for_tests(), journal.clone());
        Bench { session, now: Mono { ms: 1000 }, wanted: vec![], stored: journal }
    }

    fn does(&mut self, event: Event) -> &mut Self {
        self.wanted = self.session.handle(event, self.now);
        for action in &self.wanted {
            if let Action::WriteJournal(journal) = action {
                self.stored = (**journal).clone();
            }
        }
        self
    }

    fn waits(&mut self) -> &mut Self {
        self.now = self.session.next_deadline().expect("nothing is awaited").max(self.now);
        self.does(Event::Tick)
    }

    /// Answers the request that the last event led to.
    fn answers(&mut self, body: answer::Body) -> &mut Self {
        let (request, _) = self.asked().expect("nothing is asked");
        self.does(Event::Answered { request, body })
    }

    fn asked(&self) -> Option<(u64, ask::Body)> {
        self.wanted.iter().find_map(|a| match a {
            Action::Ask { request, body } => Some((*request, body.clone())),
            _ => None,
        })
    }

    fn offer(&self) -> Option<wire::DeltaOffer> {
        match self.asked() {
            Some((_, ask::Body::DeltaOffer(offer))) => Some(offer),
            _ => None,
        }
    }

    /// The worker reports so many steps, and what it made goes up.
    fn delivers(&mut self, steps: u32) -> &mut Self {
        self.does(Event::Worker(trained(1, steps)));
        assert!(self.wanted.iter().any(|a| matches!(a, Action::Upload { .. })));
        self.does(Event::Uploaded)
    }

    fn wants(&self, action: &Action) -> bool {
        self.wanted.contains(action)
    }

    fn wants_work(&self) -> bool {
        self.wanted.iter().any(|a| matches!(a, Action::Work(to_worker::Body::Train(_))))
    }

    /// Until then it is renewed.
    fn is_returned_after_a_while(&mut self, why: &str) {
        let since = self.now;
        let back = loop {
            match self.asked() {
                Some((_, ask::Body::LeaseReturn(back))) => break back,
                Some((_, ask::Body::LeaseRenew(_))) => drop(self.answers(done(false))),
                _ => drop(self.waits()),
            }
        };
        assert_eq!(back.why, why);
        assert!((600..=1800).contains(&self.now.since(since).as_secs()));
        self.answers(done(false));
        assert_eq!(self.stored.lease, None);
        assert_eq!(self.session.worker(), Worker::Off);
    }

    /// Allowed, connected and welcome.
    fn online(&mut self) -> &mut Self {
        self.does(Event::Permission(Permission::Allowed));
        assert!(self.wants(&Action::Connect));
        self.does(Event::Connected).answers(welcome())
    }

    /// With the worker at work on lease 1.
    fn training(&mut self) -> &mut Self {
        self.online().answers(answer::Body::Lease(lease(1)));
        for name in ["keyframe", "shard"] {
            let hash = BlobHash::of(name.as_bytes());
            assert!(self.wanted.iter().any(|a| matches!(a, Action::Fetch(b) if b.hash == hash)), "{name}");
            self.does(Event::Fetched { hash });
        }
        assert!(self.wants_work());
        self
    }
}

#[test]
fn a_lease_from_end_to_end() {
    let mut bench = Bench::new(Journal::default());
    bench.training().does(Event::Worker(trained(1, 10)));
    // The journal names the delta before the first byte of it goes out.
    let kinds: Vec<_> = bench.wanted.iter().map(Action::fail_point).collect();
    assert_eq!(kinds, ["agent.journal", "agent.tidy", "agent.upload"]);
    bench.does(Event::Uploaded);
    let offer = bench.offer().unwrap();
    assert_eq!((offer.lease_id, offer.generation, offer.steps, offer.samples), (1, 5, 10, 40));
    // A coordinator that has lost it in the meantime asks again.
    bench.answers(answer::Body::Upload(wire::UploadFrom { offset: 0 }));
    assert!(bench.wanted.iter().any(|a| matches!(a, Action::Upload { .. })));
    bench.does(Event::Uploaded);
    assert_eq!(bench.offer().unwrap(), offer);
    bench.answers(done(true));
    let journal = &bench.stored;
    assert_eq!((journal.lease.as_ref(), journal.delta.as_ref()), (None, None));
    assert_eq!(journal.residual.as_deref(), Some("work/lease-1.residual"));
    assert_eq!(journal.residual_version, Version(3));
    assert_eq!(journal.optimizer.as_deref(), Some("work/lease-1.optimizer"));
    assert_eq!(journal.totals, journal::Totals { leases: 1, merged: 1, samples: 40, evaluations: 0 });
    // The next request names the weights and the shard that are on the disk now.
    let Some((_, ask::Body::LeaseRequest(next))) = bench.asked() else { panic!() };
    assert_eq!((next.held.unwrap().version, next.shards.len()), (3, 1));
}

#[test]
fn a_name_for_everybody_is_told_by_a_hello_at_once_and_so_is_its_end() {
    let name = || PublicName::parse("Ada").ok();
    let mut bench = Bench::new(Journal::default());
    bench.training();
    for wanted in [name(), None] {
        bench.session.set_public_name(wanted.clone());
        bench.does(Event::Tick);
        let Some((_, ask::Body::Hello(hello))) = bench.asked() else { panic!("{:?}", bench.wanted) };
        assert_eq!(PublicName::parse(&hello.public_name).ok(), wanted);
        // Then, as after every hello, whether the lease still stands.
        bench.answers(welcome()).answers(done(true));
        assert!(bench.session.working());
    }
    bench.session.set_public_name(None);
    bench.does(Event::Tick);
    assert!(!matches!(bench.asked(), Some((_, ask::Body::Hello(_)))), "nothing has changed");
}

/// It came sooner than the coordinator believes: that is no new lease with nothing done.
#[test]
fn a_delta_that_is_taken_later_keeps_its_figures() {
    let mut bench = Bench::new(Journal::default());
    let ahead_over = from_worker::Body::AheadOver(worker::AheadOver { lease_id: 1 });
    bench.training().does(Event::Worker(trained(1, 10))).does(Event::Worker(ahead_over)).does(Event::Uploaded);
    let wait = Refusal::retry(RefusalCode::Busy, "This lease came back too soon.", Duration::from_secs(30));
    bench.answers(answer::Body::Refusal(wait));
    let status = bench.session.status();
    assert_eq!((status.training.steps, status.training.loss > 0.0), (10, true), "{status:?}");
    let (what, at) = bench.session.waits_for().unwrap();
    assert!(
        what.starts_with("its delta is done, and is taken a little later; the coordinator says: This lease"),
        "{what}"
    );
    assert!(at.is_some_and(|at| at >= bench.now + Duration::from_secs(30)));
}

#[test]
fn a_held_device_gives_back_what_it_has_trained_and_asks_for_nothing() {
    let mut bench = Bench::new(Journal::default());
    bench.training().does(Event::Permission(Permission::Held("in use".into())));
    assert!(bench.wants(&Action::StopWork));
    bench.does(Event::Worker(trained(1, 4)));
    assert!(bench.wants(&Action::EndWorker), "the memory is the owner's too");
    bench.does(Event::Uploaded);
    assert_eq!(bench.offer().unwrap().steps, 4);
    bench.answers(done(true));
    assert!(bench.asked().is_none());
    bench.does(Event::Permission(Permission::Allowed));
    assert!(matches!(bench.asked(), Some((_, ask::Body::LeaseRequest(_)))));
}

#[test]
fn a_lease_stopped_before_its_first_step_goes_back_whole() {
    let mut bench = Bench::new(Journal::default());
    bench.training().does(Event::Permission(Permission::Held("in use".into()))).does(Event::Worker(trained(1, 0)));
    assert!(matches!(bench.asked(), Some((_, ask::Body::LeaseReturn(_)))));
}

#[test]
fn after_a_restart_the_same_delta_is_offered() {
    let mut bench = Bench::new(Journal::default());
    bench.training().delivers(10);
    let offer = bench.offer().unwrap();
    let mut again = Bench::new(bench.stored.clone());
    again.online();
    assert_eq!(again.offer(), Some(offer));
}

#[test]
fn after_a_restart_a_lease_goes_on_and_the_coordinator_is_asked_whether_it_stands() {
    let mut bench = Bench::new(Journal::default());
    bench.training();
    let mut again = Bench::new(bench.stored.clone());
    again.online();
    assert!(matches!(again.asked(), Some((_, ask::Body::LeaseRenew(_)))));
    // Its blobs are on the disk; work begins without waiting for the answer.
    let (renewal, _) = again.asked().unwrap();
    again
        .does(Event::Fetched { hash: BlobHash::of(b"keyframe") })
        .does(Event::Fetched { hash: BlobHash::of(b"shard") });
    assert!(again.wants_work());
    again.does(Event::Answered { request: renewal, body: refusal(RefusalAction::DropLease) });
    assert!(again.wants(&Action::EndWorker));
    assert_eq!(again.stored.lease, None);
    assert!(matches!(again.asked(), Some((_, ask::Body::LeaseRequest(_)))));
}

#[test]
fn a_delta_that_does_not_count_leaves_no_trace() {
    for answer in [refusal(RefusalAction::DropLease), done(false)] {
        let (residual, optimizer) = (Some("work/r".to_owned()), Some("work/o".to_owned()));
        let mut bench = Bench::new(Journal { residual, residual_version: Version(2), optimizer, ..Journal::default() });
        bench.training().delivers(10).answers(answer);
        assert_eq!((bench.stored.residual.as_deref(), bench.stored.residual_version), (Some("work/r"), Version(2)));
        assert_eq!(bench.stored.optimizer.as_deref(), Some("work/o"));
        assert_eq!((&bench.stored.lease, &bench.stored.delta), (&None, &None));
        assert_eq!(bench.stored.weights.as_ref().unwrap().version, Version(3), "its base was checked all the same");
    }
}

#[test]
fn a_lost_connection_is_tried_again_ever_more_slowly_while_the_worker_goes_on() {
    let mut bench = Bench::new(Journal::default());
    bench.training().does(Event::Disconnected { why: "gone".into() });
    assert!(!bench.wants(&Action::EndWorker) && !bench.wants(&Action::StopWork));
    let mut delays = vec![];
    for _ in 0..6 {
        let before = bench.now;
        while !bench.wants(&Action::Connect) {
            bench.waits();
        }
        delays.push(bench.now.since(before));
        bench.does(Event::Disconnected { why: "gone".into() });
    }
    assert!(delays[5] > 8 * delays[0], "{delays:?}");
}

#[test]
fn wrong_base_weights_are_forgotten_so_that_a_keyframe_comes() {
    let mut bench = Bench::new(Journal::default());
    bench.training().delivers(10).answers(done(true));
    let next = wire::Lease { id: 2, keyframe: None, ..lease(2) };
    bench.answers(answer::Body::Lease(next)).does(Event::Fetched { hash: BlobHash::of(b"shard") });
    assert!(bench.wants_work());
    let failed = worker::Failed { sentence: "the digest differs".into(), base_is_wrong: true, ..Default::default() };
    bench.does(Event::Worker(from_worker::Body::Failed(failed))).answers(done(false));
    let Some((_, ask::Body::LeaseRequest(request))) = bench.asked() else { panic!() };
    assert_eq!(request.held, None);
}

/// A worker that goes on behind its lease is told where the next begins; one that is gone, or stopped early, does not.
#[test]
fn a_lease_begins_where_the_worker_has_trained_ahead() {
    let request = |bench: &Bench| match bench.asked() {
        Some((_, ask::Body::LeaseRequest(request))) => request,
        other => panic!("{other:?}"),
    };
    let mut bench = Bench::new(Journal::default());
    bench.training().delivers(10);
    assert!(bench.session.computes() && !bench.session.is_at_work());
    bench.answers(done(true));
    assert_eq!(request(&bench).ahead_of, 1);
    let next = wire::Lease { keyframe: None, ahead_of: 1, ..lease(2) };
    bench.answers(answer::Body::Lease(next)).does(Event::Fetched { hash: BlobHash::of(b"shard") });
    let work = bench.wanted.iter().find_map(|a| match a {
        Action::Work(to_worker::Body::Train(train)) => Some((train.ahead_of, train.ahead_steps)),
        _ => None,
    });
    assert_eq!(work, Some((1, 5)));

    let mut early = Bench::new(Journal::default());
    early.training().delivers(9).answers(done(true));
    assert_eq!(request(&early).ahead_of, 0);

    let mut gone = Bench::new(Journal::default());
    gone.training().delivers(10).does(Event::WorkerExited { why: "signal 9".into() });
    assert!(!gone.session.computes());
    gone.does(Event::Uploaded);
    let offered = gone.session.line.asked.unwrap().0;
    gone.does(Event::Answered { request: offered, body: done(true) });
    assert_eq!(request(&gone).ahead_of, 0);

    let mut held = Bench::new(Journal::default());
    held.training().delivers(10).does(Event::Permission(Permission::Held("in use".into())));
    assert!(held.wants(&Action::EndWorker) && !held.session.computes(), "what is ahead is given up at once");
}

#[test]
fn a_worker_that_keeps_crashing_costs_its_lease() {
    let mut bench = Bench::new(Journal::default());
    bench.training();
    for _ in 0..2 {
        bench.does(Event::WorkerExited { why: "signal 11".into() });
        // A blob may have been removed under its hands.
        for name in ["keyframe", "shard"] {
            let hash = BlobHash::of(name.as_bytes());
            assert!(bench.wanted.iter().any(|a| matches!(a, Action::Fetch(b) if b.hash == hash)), "{name}");
            bench.does(Event::Fetched { hash });
        }
        while !bench.wants_work() {
            bench.waits();
        }
    }
    bench.does(Event::WorkerExited { why: "signal 11".into() });
    let Some((_, ask::Body::LeaseReturn(back))) = bench.asked() else { panic!("{:?}", bench.wanted) };
    assert_eq!(back.why, "signal 11");
}

#[test]
fn a_shutdown_commits_what_is_trained_and_never_takes_long() {
    let mut bench = Bench::new(Journal::default());
    bench.training().does(Event::Shutdown);
    assert!(bench.wants(&Action::StopWork));
    bench.does(Event::Worker(trained(1, 6)));
    assert_eq!(bench.stored.delta.as_ref().unwrap().trained.steps, 6);
    bench.does(Event::Uploaded);
    assert!(bench.offer().is_some());
    bench.waits();
    assert!(bench.wants(&Action::Exit(Ending::Asked)));
    assert!(bench.now.since(Mono { ms: 1000 }) <= CLOSE_MAX);

    let mut stuck = Bench::new(Journal::default());
    stuck.training().does(Event::Shutdown).waits();
    assert!(stuck.wants(&Action::EndWorker) && stuck.wants(&Action::Exit(Ending::Asked)));
    assert!(stuck.stored.lease.is_some(), "it goes on from its checkpoint at the next start");
}

#[test]
fn leaving_forgets_the_run_even_if_nobody_answers() {
    let mut bench = Bench::new(Journal::default());
    bench.training().does(Event::Leave);
    assert!(bench.wants(&Action::EndWorker));
    assert!(matches!(bench.asked(), Some((_, ask::Body::Leave(_)))));
    bench.answers(done(false));
    assert!(bench.wants(&Action::Forget));

    let mut alone = Bench::new(Journal::default());
    alone.does(Event::Leave);
    while !alone.wants(&Action::Forget) {
        alone.waits();
    }
    assert!(alone.now.since(Mono { ms: 1000 }) <= 5 * CLOSE_MAX);
}

#[test]
fn a_senseless_lease_is_not_carried_out() {
    let bad: [fn(&mut wire::Lease); 6] = [
        |l| l.kind = 9,
        |l| l.samples = 101,
        |l| l.keyframe = None,
        |l| l.steps = 0,
        |l| l.base_digest = vec![1],
        |l| l.codec = 99,
    ];
    for spoil in bad {
        let mut message = lease(1);
        spoil(&mut message);
        let mut bench = Bench::new(Journal::default());
        bench.online().answers(answer::Body::Lease(message));
        assert_eq!(bench.session.journal().lease, None);
        assert!(bench.asked().is_none(), "it waits before it asks again");
    }
    assert_eq!(Lease::from_wire(&lease(4), false).unwrap().id, LeaseId(4));
    assert_eq!(Lease::from_wire(&lease(4), false).unwrap().generation, Generation(5));
}
