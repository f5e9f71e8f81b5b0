//! Words of a worker that somebody has taken over.

use crate::{
    journal::{Journal, Run},
    lease::Lease,
    session::{Action, Event, Permission, Profile, Report, Session, Stage, Worker},
};
use nightjar_shared::{
    delta,
    ids::{BlobHash, RunId},
    lease::LeaseKind,
    model_spec::ModelSpec,
    run_spec::RunSpec,
    time::Mono,
    wire::{
        self,
        worker::{Evaluated, Failed, Progress, Ready, Saved, Trained, from_worker::Body},
    },
};
use std::time::Duration;

fn spec_json() -> String {
    serde_json::json!({ "name": "x", "token_budget": 9, "model": ModelSpec::tiny() }).to_string()
}

fn spec() -> RunSpec {
    serde_json::from_str(&spec_json()).unwrap()
}

fn at(ms: u64) -> Mono {
    Mono { ms }
}

/// A worker at work on lease 7: 6 steps, and as many samples as they take.
struct Bench {
    session: Session,
    samples: u32,
}

impl Bench {
    fn new(kind: LeaseKind) -> Self {
        let hash = BlobHash::of(b"x");
        let samples = 6 * spec().inner.batch_samples;
        let lease = wire::Lease {
            id: 7,
            kind: kind.to_wire(),
            base_version: 3,
            base_digest: hash.0.to_vec(),
            keyframe: Some(wire::Blob::new(hash, 1)),
            shard: Some(wire::Blob::new(hash, 1)),
            shard_samples: samples,
            samples,
            steps: 6,
            codec: spec().delta.codec as u32,
            ..Default::default()
        };
        let run = Run { id: RunId([1; 32]), spec_json: spec_json(), keep_alive_ms: 20_000 };
        let lease = Lease::from_wire(&lease, false).unwrap();
        let mut session =
            Session::new(Profile::for_tests(), Journal { run: Some(run), lease: Some(lease), ..Journal::default() });
        session.course.since = Some(at(1_000));
        session.handle(Event::Permission(Permission::Allowed), at(1_000));
        for _ in 0..2 {
            session.handle(Event::Fetched { hash }, at(1_000));
        }
        assert_eq!(session.worker(), Worker::Busy);
        Bench { session, samples }
    }

    fn trained(&self) -> Trained {
        Trained {
            lease_id: 7,
            delta_file: "work/lease-7.delta".into(),
            delta_hash: vec![5; 32],
            delta_bytes: *delta::bytes_allowed(&spec().model, &spec().delta).end(),
            residual_file: "work/lease-7.residual".into(),
            optimizer_file: "work/lease-7.optimizer".into(),
            weights_file: "work/weights-3".into(),
            steps: 6,
            samples: self.samples,
            train_ms: 30_000,
            loss_first: 5.0,
            loss_last: 4.0,
            ..Trained::default()
        }
    }

    /// The worker says this 30 s after it was given its lease.
    fn hears(&mut self, body: Body) -> Vec<Action> {
        self.session.handle(Event::Worker(body), at(31_000))
    }
}

fn ends_it(actions: &[Action]) -> bool {
    let is_told =
        |action: &Action| matches!(action, Action::Report(Report::Trouble(what)) if what.contains("what cannot be"));
    actions.contains(&Action::EndWorker) && actions.iter().any(is_told)
}

#[test]
fn what_a_lease_makes_is_taken() {
    let mut bench = Bench::new(LeaseKind::Train);
    let progress = Progress { lease_id: 7, steps: 5, loss: 4.5, tokens: 9, train_ms: 20_000, ..Progress::default() };
    assert!(bench.hears(Body::Progress(progress)).is_empty());
    bench.hears(Body::Trained(bench.trained()));
    let journal = bench.session.journal();
    let delta = journal.delta.as_ref().unwrap();
    assert_eq!((delta.file.as_str(), delta.residual.as_str()), ("work/lease-7.delta", "work/lease-7.residual"));
    assert_eq!(journal.weights.as_ref().unwrap().file, "work/weights-3");
    // A run may keep neither.
    let mut bench = Bench::new(LeaseKind::Train);
    bench.hears(Body::Trained(Trained {
        residual_file: String::new(),
        optimizer_file: String::new(),
        ..bench.trained()
    }));
    assert_eq!(bench.session.journal().delta.as_ref().unwrap().optimizer, "");
}

/// What is wrong with a message, and how it becomes so.
type Spoilt<M> = (&'static str, fn(&mut M));

#[test]
fn a_result_that_cannot_be_ends_the_worker_and_changes_nothing() {
    let far = "work/lease-7.delta/../../../../etc/passwd";
    let spoil: [Spoilt<Trained>; 24] = [
        ("an absolute path", |t| t.delta_file = "/etc/passwd".into()),
        ("a way out", |t| t.delta_file = "work/../identity.pk8".into()),
        ("the owner's file", |t| t.delta_file = "identity.pk8".into()),
        ("no delta", |t| t.delta_file.clear()),
        ("another lease's delta", |t| t.delta_file = "work/lease-8.delta".into()),
        ("a residual elsewhere", |t| t.residual_file = "../../.ssh/id_ed25519".into()),
        ("an optimizer elsewhere", |t| t.optimizer_file = "/home/owner/thesis".into()),
        ("weights elsewhere", |t| t.weights_file = "journal.json".into()),
        ("weights of another version", |t| t.weights_file = "work/weights-4".into()),
        ("no hash", |t| t.delta_hash.clear()),
        ("a long hash", |t| t.delta_hash = vec![0; 33]),
        ("a huge delta", |t| t.delta_bytes = u64::MAX),
        ("an empty delta", |t| t.delta_bytes = 0),
        ("too many steps", |t| t.steps = 7),
        ("absurdly many steps", |t| t.steps = u32::MAX),
        ("too many samples", |t| t.samples += 1),
        ("absurdly many samples", |t| t.samples = u32::MAX),
        ("no samples", |t| t.samples = 0),
        ("fewer steps than samples take", |t| t.steps = 1),
        ("an age of training", |t| t.train_ms = u64::MAX),
        ("more time than there was", |t| t.train_ms = 95_000),
        ("a loss that is no number", |t| t.loss_first = f64::NAN),
        ("an infinite loss", |t| t.loss_last = f64::INFINITY),
        ("another lease", |t| t.lease_id = 8),
    ];
    for (what, spoil) in spoil
        .into_iter()
        .chain([("a long way out", (|t: &mut Trained| t.delta_file = String::new()) as fn(&mut Trained))])
    {
        let mut bench = Bench::new(LeaseKind::Train);
        let before = bench.session.journal().clone();
        let mut trained = bench.trained();
        spoil(&mut trained);
        if what == "a long way out" {
            trained.delta_file = far.into();
        }
        assert!(bench.session.vet(&Body::Trained(trained.clone()), at(31_000)).is_err(), "{what}");
        assert!(ends_it(&bench.hears(Body::Trained(trained))), "{what}");
        assert_eq!(bench.session.journal(), &before, "{what}");
        assert_eq!(bench.session.worker(), Worker::Off, "{what}");
    }
}

#[test]
fn progress_that_cannot_be_ends_the_worker() {
    let good = Progress { lease_id: 7, steps: 5, loss: 4.5, tokens: 9, train_ms: 20_000, ..Progress::default() };
    let spoil: [Spoilt<Progress>; 7] = [
        ("too many steps", |p| p.steps = 7),
        ("too many tokens", |p| p.tokens = u64::MAX),
        ("a loss that is no number", |p| p.loss = f64::NAN),
        ("an infinite loss", |p| p.loss = f64::NEG_INFINITY),
        ("more time than there was", |p| p.train_ms = 95_000),
        ("another lease", |p| p.lease_id = 6),
        ("none", |p| p.lease_id = 0),
    ];
    for (what, spoil) in spoil {
        let mut bench = Bench::new(LeaseKind::Train);
        let mut progress = good;
        spoil(&mut progress);
        assert!(ends_it(&bench.hears(Body::Progress(progress))), "{what}");
        assert_eq!(bench.session.course.training.steps, 0, "{what}");
    }
}

/// Of a lease that an earlier process was given nobody knows how long ago that was; but no lease is a year old.
#[test]
fn a_lease_from_before_the_start_has_had_all_the_time_that_leases_have() {
    let mut bench = Bench::new(LeaseKind::Train);
    bench.session.course.since = None;
    let day = |days: u64| 24 * 3_600_000 * days;
    assert!(bench.session.vet(&Body::Trained(Trained { train_ms: day(9), ..bench.trained() }), at(31_000)).is_ok());
    assert!(bench.session.vet(&Body::Trained(Trained { train_ms: day(365), ..bench.trained() }), at(31_000)).is_err());
}

#[test]
fn measurements_are_of_their_lease() {
    let bench = Bench::new(LeaseKind::Evaluate);
    let tokens = u64::from(bench.samples) * spec().tokens_per_sample();
    let good = Evaluated { lease_id: 7, nats: 9.0, tokens, weights_file: "work/weights-3".into() };
    let is_measured = |bench: &Bench| matches!(bench.session.stage, Stage::Measured { .. });
    let mut taken = Bench::new(LeaseKind::Evaluate);
    taken.hears(Body::Evaluated(good.clone()));
    assert_eq!(taken.session.stage, Stage::Measured { nats: 9.0, tokens });
    for bad in [
        Evaluated { tokens: tokens + 1, ..good.clone() },
        Evaluated { tokens: 0, ..good.clone() },
        Evaluated { weights_file: "/etc/passwd".into(), ..good.clone() },
        Evaluated { lease_id: 8, ..good.clone() },
    ] {
        let mut bench = Bench::new(LeaseKind::Evaluate);
        assert!(ends_it(&bench.hears(Body::Evaluated(bad.clone()))), "{bad:?}");
        assert!(!is_measured(&bench));
        assert_eq!(bench.session.journal().weights, None);
    }
    // Weights that blew up have no loss: that is no lie.
    let mut bench = Bench::new(LeaseKind::Evaluate);
    let said = Body::Evaluated(Evaluated { nats: f64::NAN, ..good.clone() });
    assert!(bench.session.vet(&said, at(31_000)).is_ok());
    bench.hears(said);
    assert!(!is_measured(&bench));
    // One kind of result for another kind of lease.
    let mut bench = Bench::new(LeaseKind::Evaluate);
    assert!(ends_it(&bench.hears(Body::Trained(bench.trained()))));
    let mut bench = Bench::new(LeaseKind::Train);
    assert!(ends_it(&bench.hears(Body::Evaluated(good))));
}

/// Whatever comes out of turn ends the worker, and what it has done rightly before stands.
#[test]
fn a_second_result_ends_the_worker_and_the_first_counts() {
    let mut bench = Bench::new(LeaseKind::Train);
    bench.hears(Body::Trained(bench.trained()));
    let before = bench.session.journal().clone();
    assert!(ends_it(&bench.hears(Body::Trained(Trained { delta_hash: vec![6; 32], ..bench.trained() }))));
    assert_eq!(bench.session.journal(), &before);
    for body in [
        Body::Trained(bench.trained()),
        Body::Progress(Progress { lease_id: 7, ..Progress::default() }),
        Body::Evaluated(Evaluated::default()),
        Body::Failed(Failed { sentence: "no".into(), base_is_wrong: true, ..Failed::default() }),
        Body::Saved(Saved { lease_id: u64::MAX, steps: u32::MAX }),
    ] {
        bench.hears(body);
        assert_eq!(bench.session.journal(), &before, "there is no worker any more");
    }
}

#[test]
fn texts_are_tamed() {
    let mut bench = Bench::new(LeaseKind::Train);
    let device = format!("\u{1b}[2J{}", "x".repeat(10_000));
    bench.hears(Body::Ready(Ready { device, ..Ready::default() }));
    assert!(bench.session.profile.hardware.len() <= 256 && bench.session.profile.hardware.starts_with("[2J"));
    let sentence = format!("\u{7}{}\n", "y".repeat(10_000));
    let actions = bench.hears(Body::Failed(Failed { sentence, ..Failed::default() }));
    let told: Vec<&str> = actions
        .iter()
        .filter_map(
            |action| if let Action::Report(Report::Trouble(what)) = action { Some(what.as_str()) } else { None },
        )
        .collect();
    assert!(told.len() == 1 && told[0].len() < 300 && !told[0].contains(['\u{7}', '\n']), "{told:?}");
}

/// A delta that is not what its worker said is not sent, and not tried again: the lease goes back.
#[test]
fn what_proves_untrue_goes_back_whole() {
    let mut bench = Bench::new(LeaseKind::Train);
    bench.session.handle(Event::Connected, at(31_000));
    let welcome = wire::Welcome {
        run_id: vec![1; 32],
        generation: 5,
        run_spec_json: spec_json(),
        codec: spec().delta.codec as u32,
        keep_alive_ms: 20_000,
        public_keys: vec![],
    };
    let body = wire::coordinator_message::Body::Welcome(welcome);
    bench.session.handle(Event::Answered { request: 1, body }, at(31_000));
    let actions = bench.hears(Body::Trained(bench.trained()));
    assert!(actions.iter().any(|action| matches!(action, Action::Upload { .. })), "{actions:?}");
    let why = crate::session::Fault::Untrue("work/lease-7.delta is no plain file".into());
    let actions = bench.session.handle(Event::UploadFailed(why), at(31_000));
    assert!(actions.contains(&Action::EndWorker), "{actions:?}");
    assert_eq!(bench.session.journal().delta, None);
    let mut asked: Vec<_> = vec![actions];
    asked.push(bench.session.handle(
        Event::Answered { request: 2, body: wire::coordinator_message::Body::Done(wire::Done::default()) },
        at(31_000) + Duration::from_millis(1),
    ));
    let is_return = |action: &Action| match action {
        Action::Ask { body: wire::device_message::Body::LeaseReturn(back), .. } => back.why.contains("no plain file"),
        _ => false,
    };
    assert!(asked.iter().flatten().any(is_return), "{asked:?}");
}
