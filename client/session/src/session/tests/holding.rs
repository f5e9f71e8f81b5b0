//! What becomes of a lease while its owner holds the device back, or the device itself cannot carry it out.

use super::*;

/// What was trained up to the last checkpoint is not lost with the worker, so the lease waits for a while.
#[test]
fn a_worker_that_does_not_stop_is_ended_and_its_lease_kept_for_a_while() {
    let mut bench = Bench::new(Journal::default());
    bench.training().does(Event::Permission(Permission::Held("schedule".into()))).waits();
    assert!(bench.wants(&Action::EndWorker));
    assert!(bench.stored.lease.is_some());
    bench.is_returned_after_a_while("schedule");
}

#[test]
fn whoever_must_yield_at_once_keeps_the_lease_renews_it_and_goes_on_from_the_checkpoint() {
    for free_memory in [true, false] {
        let mut bench = Bench::new(Journal::default());
        bench.training().does(Event::Permission(Permission::Yield { reason: "in use".into(), free_memory }));
        assert!(!bench.wants(&Action::StopWork), "a frozen worker hears nothing");
        assert_eq!(bench.wants(&Action::EndWorker), free_memory);
        assert!(!bench.session.is_at_work());
        while bench.asked().is_none() {
            bench.waits();
        }
        assert!(matches!(bench.asked(), Some((_, ask::Body::LeaseRenew(_)))));
        // It has become another reason, in no hurry; the worker is as frozen as before.
        bench.answers(done(false)).does(Event::Permission(Permission::Held("schedule".into())));
        assert!(!bench.wants(&Action::StopWork));
        bench.does(Event::Permission(Permission::Allowed));
        // A worker that was ended is given the lease again; one that was frozen was thawed by whoever froze it.
        assert_eq!(bench.wants_work(), free_memory);
        assert!(bench.session.is_at_work());
        assert_eq!(bench.session.journal().lease.as_ref().unwrap().id, LeaseId(1));
        bench.delivers(10);
        assert_eq!(bench.offer().unwrap().steps, 10);
    }
}

#[test]
fn a_lease_that_its_owner_holds_back_for_long_goes_back() {
    for free_memory in [true, false] {
        let mut bench = Bench::new(Journal::default());
        bench.training().does(Event::Permission(Permission::Yield { reason: "in use".into(), free_memory }));
        bench.is_returned_after_a_while("in use");
    }
    // One that was never begun has nothing to keep.
    let mut bench = Bench::new(Journal::default());
    bench.online().answers(answer::Body::Lease(lease(1)));
    bench.does(Event::Permission(Permission::Yield { reason: "in use".into(), free_memory: true }));
    assert!(matches!(bench.asked(), Some((_, ask::Body::LeaseReturn(_)))));
}

/// Hours of checkpoints are worth more than a base that is fresh.
#[test]
fn a_long_lease_is_kept_for_longer() {
    let mut bench = Bench::new(Journal::default());
    bench.training();
    assert_eq!(bench.session.keep(), Duration::from_secs(900));
    let spec = bench.session.spec.as_mut().unwrap();
    (spec.lease.wall_s, spec.lease.deadline_factor) = (1800.0, 4.0);
    assert_eq!(bench.session.keep(), Duration::from_secs(7200));
}

/// A sensor that has not answered yet holds at every start; that must not cost what was trained before a reboot.
#[test]
fn after_a_restart_a_held_device_keeps_its_lease_for_a_while() {
    let mut bench = Bench::new(Journal::default());
    bench.training();
    let mut again = Bench::new(bench.stored.clone());
    again.does(Event::Permission(Permission::Held("starting".into()))).does(Event::Connected).answers(welcome());
    assert!(matches!(again.asked(), Some((_, ask::Body::LeaseRenew(_)))));
    again.answers(done(false)).does(Event::Permission(Permission::Allowed));
    for name in ["keyframe", "shard"] {
        again.does(Event::Fetched { hash: BlobHash::of(name.as_bytes()) });
    }
    assert!(again.wants_work());
}

#[test]
fn a_worker_that_is_replaced_goes_on_with_its_lease_and_that_is_no_failure() {
    let mut bench = Bench::new(Journal::default());
    bench.training();
    for _ in 0..5 {
        bench.does(Event::WorkerReplaced);
        assert!(bench.wants_work());
    }
    // Nor is one that cannot be started yet, or at all.
    bench.does(Event::WorkerRefused { why: "back-off".into(), until: Some(bench.now + Duration::from_secs(30)) });
    assert!(!bench.wants_work() && bench.asked().is_none());
    let later = bench.now + Duration::from_secs(30);
    while bench.now < later {
        assert!(!bench.wants_work());
        if bench.asked().is_some() {
            bench.answers(done(false))
        } else {
            bench.waits()
        };
    }
    assert!(bench.wants_work());
    bench.does(Event::WorkerRefused { why: "the GPU is left alone".into(), until: None });
    // The renewal that is under way comes first.
    bench.does(Event::Disconnected { why: "cut".into() });
    while !bench.wants(&Action::Connect) {
        bench.waits();
    }
    bench.does(Event::Connected).answers(welcome());
    assert!(matches!(bench.asked(), Some((_, ask::Body::LeaseReturn(_)))), "{:?}", bench.asked());
    bench.answers(done(false));
    assert!(bench.asked().is_none(), "another lease would fare no better");
    assert_eq!(bench.session.status().trouble.as_deref(), Some("the GPU is left alone"));
    bench.does(Event::Retry);
    assert!(matches!(bench.asked(), Some((_, ask::Body::LeaseRequest(_)))));
}

#[test]
fn a_lease_without_room_goes_back_with_the_reason_and_spare_shards_are_forgotten() {
    let mut bench = Bench::new(Journal::default());
    bench.online().answers(answer::Body::Lease(lease(1)));
    let fault = Fault::NoRoom("it lacks 9 MiB".into());
    bench.does(Event::FetchFailed { hash: BlobHash::of(b"keyframe"), fault });
    let Some((_, ask::Body::LeaseReturn(back))) = bench.asked() else { panic!("{:?}", bench.wanted) };
    assert_eq!(back.why, "it lacks 9 MiB");
    bench.answers(done(false));
    assert!(bench.asked().is_none() && bench.session.status().trouble.is_some());

    let shard = |name: &str| BlobRef::of(name.as_bytes());
    let journal = Journal { shards: vec![shard("shard"), shard("old")], ..Journal::default() };
    let mut bench = Bench::new(journal);
    bench.online().answers(answer::Body::Lease(lease(1)));
    bench.does(Event::Evicted(vec![shard("old").hash, shard("shard").hash]));
    assert_eq!(bench.stored.shards, [shard("shard")], "the lease at hand needs it");
    assert!(bench.wanted.iter().any(|a| matches!(a, Action::Tidy { keep } if !keep.contains(&shard("old").file()))));
}

/// It may train and does not: the reason is on this device, and it says when it tries again.
#[test]
fn what_stands_in_the_way_is_told_until_it_is_tried_again() {
    let mut bench = Bench::new(Journal::default());
    bench.training();
    assert_eq!(bench.session.obstacle(), None);
    bench.does(Event::WorkerExited { why: "signal: 9".into() });
    let (why, until) = bench.session.obstacle().expect("it waits before it tries again");
    assert!(why.contains("signal: 9") && until > bench.now, "{why}");
    assert_eq!(bench.session.status().doing, "waiting until this device can train");
    let again = bench.now + Duration::from_secs(20);
    bench.does(Event::WorkerRefused { why: "the worker crashed (9)".into(), until: Some(again) });
    assert_eq!(bench.session.obstacle(), Some(("the worker crashed (9)", again)));
    bench.does(Event::Retry);
    assert_eq!(bench.session.obstacle(), None);

    let mut bench = Bench::new(Journal::default());
    bench.online().answers(answer::Body::Lease(lease(1)));
    bench.does(Event::FetchFailed { hash: BlobHash::of(b"keyframe"), fault: Fault::NoRoom("it lacks 9 MiB".into()) });
    assert_eq!(bench.session.obstacle().map(|(why, _)| why), Some("it lacks 9 MiB"));
}

#[test]
fn a_held_device_with_nothing_to_say_hangs_up_and_a_metered_one_at_once() {
    let mut bench = Bench::new(Journal::default());
    bench.online().answers(refusal(RefusalAction::Retry)).does(Event::Permission(Permission::Held("in use".into())));
    assert!(!bench.wants(&Action::Disconnect));
    let before = bench.now;
    while !bench.wants(&Action::Disconnect) {
        bench.waits();
    }
    assert_eq!(bench.now.since(before), LINGER);
    bench.does(Event::Tick);
    assert!(!bench.wants(&Action::Connect));
    bench.does(Event::Permission(Permission::Allowed));
    assert!(bench.wants(&Action::Connect));

    let mut metered = Bench::new(Journal::default());
    metered.training().does(Event::Network(false)).does(Event::Permission(Permission::Held("metered".into())));
    assert!(!metered.wants(&Action::Connect));
    metered.does(Event::Worker(trained(1, 4)));
    assert!(!metered.wanted.iter().any(|a| matches!(a, Action::Upload { .. } | Action::Connect)), "it costs");
    metered.does(Event::Network(true));
    assert!(metered.wants(&Action::Connect), "what was trained is delivered once it is free");
}
