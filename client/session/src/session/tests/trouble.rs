//! What goes wrong beyond the session's reach: the disk refuses, nobody takes what is trained, the run is over, a
//! cleaner was at work. It waits, says why, and goes on by itself.

use super::*;

/// Does what the loop does with a disk that refuses: of what comes after the journal, only what does not rest on it.
fn refuse(bench: &mut Bench, event: Event) -> Vec<Action> {
    let (stored, actions) = (bench.stored.clone(), bench.session.handle(event, bench.now));
    let at = actions.iter().position(|a| matches!(a, Action::WriteJournal(_)));
    let Some(at) = at else {
        bench.wanted.clone_from(&actions);
        return actions;
    };
    let mut done: Vec<Action> = actions[..at].to_vec();
    done.extend(actions[at..].iter().filter(|a| !a.rests_on_journal()).cloned());
    done.extend(bench.session.handle(Event::DiskRefused { why: "the disk is full".into() }, bench.now));
    bench.stored = stored;
    bench.wanted.clone_from(&done);
    done
}

#[test]
fn a_delta_is_kept_and_not_offered_while_the_disk_does_not_take_the_journal() {
    let mut bench = Bench::new(Journal::default());
    bench.training();
    let performed = refuse(&mut bench, Event::Worker(trained(1, 10)));
    assert!(!performed.iter().any(|a| matches!(a, Action::Upload { .. } | Action::Tidy { .. })), "{performed:?}");
    assert!(performed.iter().any(|a| matches!(a, Action::Report(Report::Trouble(why)) if why == "the disk is full")));
    assert_eq!(bench.session.disk_refuses().map(|(why, _)| why), Some("the disk is full"));
    assert_eq!(bench.session.status().trouble.as_deref(), Some("the disk is full"));
    // The owner is held for that, and it is tried again and again, whatever else happens.
    refuse(&mut bench, Event::Permission(Permission::Held("the disk is full".into())));
    let mut waits = vec![];
    for _ in 0..5 {
        let before = bench.now;
        loop {
            bench.now = bench.session.next_deadline().expect("it tries again").max(bench.now);
            let done = refuse(&mut bench, Event::Tick);
            for action in &done {
                if let Action::Ask { request, body } = action {
                    assert!(matches!(body, ask::Body::LeaseRenew(_)), "nothing is given away: {body:?}");
                    bench.session.handle(Event::Answered { request: *request, body: done_nothing() }, bench.now);
                }
            }
            let again = bench.session.timers.at(Timer::Disk).filter(|at| *at > bench.now && bench.now > before);
            if let Some(at) = again {
                waits.push(at.since(bench.now));
                break;
            }
        }
        assert!(bench.session.disk_refuses().is_some());
    }
    assert!(waits.iter().max() > Some(&Duration::from_secs(5)), "ever more slowly: {waits:?}");
    // There is room again.
    while bench.session.disk_refuses().is_some() {
        bench.waits();
        while let Some((_, ask::Body::LeaseRenew(_))) = bench.asked() {
            bench.answers(done_nothing());
        }
    }
    assert_eq!(bench.stored.delta.as_ref().map(|delta| delta.trained.steps), Some(10), "it is on the disk now");
    let offered = loop {
        match bench.asked() {
            Some((_, ask::Body::DeltaOffer(offer))) => break offer,
            Some((_, ask::Body::LeaseRenew(_))) => drop(bench.answers(done_nothing())),
            _ => drop(bench.waits()),
        }
    };
    assert_eq!(offered.steps, 10);
    bench.answers(done(true)).does(Event::Permission(Permission::Allowed));
    assert_eq!((bench.session.status().trouble, bench.stored.totals.merged), (None, 1));
}

fn done_nothing() -> answer::Body {
    done(false)
}

#[test]
fn a_worker_or_a_download_that_the_disk_refuses_costs_no_lease() {
    let full = || worker::Failed {
        sentence: "cannot write work/x: No space left".into(),
        disk_failed: true,
        ..Default::default()
    };
    let mut bench = Bench::new(Journal::default());
    bench.training().does(Event::Worker(from_worker::Body::Failed(full())));
    assert!(bench.wants(&Action::EndWorker) && bench.asked().is_none());
    assert!(bench.session.disk_refuses().is_some() && !bench.session.computes());
    while !bench.wants_work() {
        if bench.asked().is_some() {
            bench.answers(done_nothing())
        } else {
            bench.waits()
        };
    }
    assert_eq!(bench.session.journal().lease.as_ref().unwrap().id, LeaseId(1));
    bench.delivers(10).answers(done(true));
    assert_eq!(bench.stored.totals.merged, 1);

    let mut bench = Bench::new(Journal::default());
    bench.online().answers(answer::Body::Lease(lease(1)));
    let hash = BlobHash::of(b"keyframe");
    bench.does(Event::FetchFailed { hash, fault: Fault::Disk("the disk is read-only".into()) });
    assert_eq!(bench.session.disk_refuses().map(|(why, _)| why), Some("the disk is read-only"));
    assert!(!bench.wanted.iter().any(|a| matches!(a, Action::Fetch(_))));
    while !bench.wanted.iter().any(|a| matches!(a, Action::Fetch(blob) if blob.hash == hash)) {
        if bench.asked().is_some() {
            bench.answers(done_nothing())
        } else {
            bench.waits()
        };
    }
}

/// Fetches what the lease needs, and has the worker begin.
fn begins(bench: &mut Bench) -> &mut Bench {
    while !bench.wants_work() {
        let fetch = bench.wanted.iter().find_map(|a| if let Action::Fetch(blob) = a { Some(blob.hash) } else { None });
        match fetch {
            Some(hash) => bench.does(Event::Fetched { hash }),
            None if bench.asked().is_some() => bench.answers(done_nothing()),
            None => bench.waits(),
        };
    }
    bench
}

/// Whatever its leases come to nothing for, a device does not spin.
#[test]
fn leases_that_come_to_nothing_come_ever_more_slowly_and_then_not_for_a_while() {
    let ways: [fn(&mut Bench); 6] = [
        |bench| {
            begins(bench).does(Event::Worker(trained(9, 10))).does(Event::Uploaded).answers(done(false));
        },
        |bench| {
            begins(bench)
                .does(Event::Worker(trained(9, 10)))
                .does(Event::Uploaded)
                .answers(refusal(RefusalAction::DropLease));
        },
        |bench| {
            begins(bench).does(Event::Worker(trained(9, 10)));
            bench.does(Event::UploadFailed(Fault::Refused(Refusal::lease_gone("no"))));
        },
        |bench| {
            begins(bench).does(Event::Worker(trained(9, 10))).does(Event::UploadFailed(Fault::FileGone));
        },
        |bench| {
            let failed = worker::Failed { sentence: "no".into(), base_is_wrong: true, ..Default::default() };
            begins(bench).does(Event::Worker(from_worker::Body::Failed(failed))).answers(done(false));
        },
        |bench| {
            let gone = Refusal::with(RefusalCode::NotFound, RefusalAction::Retry, "there is no such blob");
            bench.does(Event::FetchFailed { hash: BlobHash::of(b"keyframe"), fault: Fault::Refused(gone) });
        },
    ];
    for (number, way) in ways.into_iter().enumerate() {
        let mut bench = Bench::new(Journal::default());
        bench.online();
        let (begun, mut leases) = (bench.now, 0);
        while !bench.session.setback().is_some_and(|setback| setback.holds) {
            match bench.asked() {
                Some((_, ask::Body::LeaseRequest(_))) => {
                    leases += 1;
                    bench.answers(answer::Body::Lease(lease(9)));
                    way(&mut bench);
                }
                Some(_) => drop(bench.answers(done_nothing())),
                None => drop(bench.waits()),
            }
            assert!(leases < 100, "way {number} spins");
        }
        let took = bench.now.since(begun);
        assert!(leases == 5 && took >= Duration::from_secs(7), "way {number}: {leases} leases in {took:?}");
        let setback = bench.session.setback().unwrap();
        assert!(
            setback.count == 5 && setback.until >= bench.now + Duration::from_secs(60),
            "way {number}: {setback:?}"
        );
        assert!(
            !setback.why.is_empty() && bench.session.waits_for().is_some_and(|(what, _)| what.contains(&setback.why))
        );
        // It tries one more, holds twice as long, and is itself again once one counts.
        while !matches!(bench.asked(), Some((_, ask::Body::LeaseRequest(_)))) {
            if bench.asked().is_some() {
                bench.answers(done_nothing())
            } else {
                bench.waits()
            };
        }
        bench.answers(answer::Body::Lease(lease(9)));
        way(&mut bench);
        let setback = bench.session.setback().expect("it was refused again");
        assert!(setback.until >= bench.now + Duration::from_secs(120), "way {number}: {setback:?}");
        bench.does(Event::Retry);
        assert_eq!(bench.session.setback(), None, "the owner has changed something");
    }
}

/// A delta that is refused now and then is no reason to hold, and a lease that took its time need not wait.
/// Disks wear out by what is written: a day's checkpoints stay within the owner's bytes.
#[test]
fn a_lease_comes_with_checkpoints_as_far_apart_as_the_owner_wants() {
    let apart_ms = |day_max: Option<u64>| {
        let mut bench = Bench::new(Journal::default());
        bench.session.set_wishes(20_000, day_max);
        bench.training();
        let train = bench.wanted.iter().find_map(|action| match action {
            Action::Work(to_worker::Body::Train(train)) => Some(train.checkpoint_ms),
            _ => None,
        });
        train.unwrap()
    };
    let checkpoint_bytes = 12 * ModelSpec::tiny().parameters() as u64;
    assert_eq!(apart_ms(Some(24 * checkpoint_bytes)), 3_600_000, "24 a day");
    assert_eq!([apart_ms(Some(u64::MAX)), apart_ms(None)], [20_000; 2]);
}

#[test]
fn a_device_whose_deltas_count_waits_for_nothing() {
    let mut bench = Bench::new(Journal::default());
    bench.online();
    for round in 0..20 {
        while !matches!(bench.asked(), Some((_, ask::Body::LeaseRequest(_)))) {
            if bench.asked().is_some() {
                bench.answers(done_nothing())
            } else {
                bench.waits()
            };
        }
        bench.answers(answer::Body::Lease(lease(9)));
        begins(&mut bench);
        bench.now = bench.now + Duration::from_secs(60);
        bench.does(Event::Worker(trained(9, 10))).does(Event::Uploaded);
        while !matches!(bench.asked(), Some((_, ask::Body::DeltaOffer(_)))) {
            bench.answers(done_nothing());
        }
        bench.answers(done(round % 5 == 4));
        assert_eq!(bench.session.setback(), None, "in round {round}");
    }
}

/// The end is told at once, nothing trains ahead of a lease that does not come, and no time is named for it.
#[test]
fn the_end_of_a_run_is_its_end() {
    let mut bench = Bench::new(Journal::default());
    bench.training().delivers(10).answers(done(true));
    assert!(bench.session.computes(), "it trains ahead");
    let over = Refusal::retry(RefusalCode::RunOver, "The run is over. Thank you.", Duration::from_secs(3600));
    bench.answers(answer::Body::Refusal(over.clone()));
    assert!(bench.wants(&Action::EndWorker));
    assert!(bench.wants(&Action::Report(Report::RunOver("The run is over. Thank you.".into()))));
    assert_eq!(bench.session.run_over(), Some("The run is over. Thank you."));
    assert!(!bench.session.computes() && bench.session.status().doing == "the run is over");
    // It hangs up, and asks again after a while: the run may have been given a larger budget.
    while !bench.wants(&Action::Disconnect) {
        bench.waits();
    }
    while !bench.wants(&Action::Connect) {
        bench.waits();
    }
    bench.does(Event::Connected).answers(welcome()).answers(answer::Body::Refusal(over));
    assert!(!bench.wanted.iter().any(|a| matches!(a, Action::Report(Report::RunOver(_)))), "once");
    while !bench.wants(&Action::Connect) {
        bench.waits();
    }
    bench.does(Event::Connected).answers(welcome()).answers(answer::Body::Lease(lease(2)));
    assert_eq!(bench.session.run_over(), None, "it goes on");
}

#[test]
fn what_is_trained_ahead_has_an_end() {
    let mut bench = Bench::new(Journal::default());
    bench.training().delivers(10).answers(done(true));
    bench.does(Event::Worker(from_worker::Body::AheadOver(worker::AheadOver { lease_id: 9 })));
    assert!(bench.session.computes(), "that was about another lease");
    bench.does(Event::Worker(from_worker::Body::AheadOver(worker::AheadOver { lease_id: 1 })));
    assert!(!bench.session.computes());
    assert_eq!(bench.session.status().doing, "asking for a lease");
    assert_eq!(bench.session.lease_request().ahead_of, 1, "what was trained so counts all the same");
}

#[test]
fn a_lost_connection_is_known_while_it_trains() {
    let mut bench = Bench::new(Journal::default());
    bench.training();
    assert_eq!(bench.session.is_cut_off(), None);
    bench.delivers(10).answers(done(true)).does(Event::Disconnected { why: "nobody answers.".into() });
    assert!(bench.session.computes(), "it trains ahead");
    assert!(matches!(bench.session.is_cut_off(), Some(("nobody answers", Some(_)))));
}

/// A cleaner was at work: what was lost is said once, and again only if it is something else.
#[test]
fn state_that_was_lost_is_said_once() {
    let lost = |bench: &mut Bench, id: u64, what: &[&str]| {
        let from_worker::Body::Trained(report) = trained(id, 10) else { panic!() };
        let lost = what.iter().map(|what| (*what).to_owned()).collect();
        bench.does(Event::Worker(from_worker::Body::Trained(worker::Trained { lost, ..report })));
        let said = bench.wanted.iter().filter(|a| matches!(a, Action::Report(Report::Trouble(_)))).count();
        bench.does(Event::Uploaded).answers(done(true));
        said
    };
    let mut bench = Bench::new(Journal::default());
    bench.training();
    assert_eq!(lost(&mut bench, 1, &["the optimizer's state began anew"]), 1);
    assert_eq!(bench.session.status().lost_state.as_deref(), Some("the optimizer's state began anew"));
    let next = wire::Lease { keyframe: None, ..lease(2) };
    bench.answers(answer::Body::Lease(next)).does(Event::Fetched { hash: BlobHash::of(b"shard") });
    assert_eq!(lost(&mut bench, 2, &[]), 0);
    assert_eq!(bench.session.status().lost_state, None, "it has healed");
}
