//! Each state has its sentence and its buttons.

use super::*;

fn may(reason: &str) -> Why {
    Why { allowed: true, kind: None, reason: reason.into(), until: None }
}

fn holds(kind: ReasonKind, reason: &str) -> Why {
    Why { allowed: false, kind: Some(kind), reason: reason.into(), until: None }
}

/// In a run, with nothing wrong.
fn facts(why: &Why) -> Facts<'_> {
    Facts {
        why,
        in_run: true,
        is_new: false,
        computes: false,
        offline: None,
        wrong_key: false,
        failures: 0,
        trouble: None,
        left_alone: &[],
        config_error: None,
        word: None,
        ends: Ends::AsItsKind,
        capped: None,
    }
}

fn deeds(summary: &Summary) -> Vec<Deed> {
    summary.offers.iter().map(|offer| offer.deed).collect()
}

#[test]
fn all_well_is_told_from_all_that_is_not() {
    let why = may("it may train; waiting for work");
    let well = Summary::of(&facts(&why));
    assert_eq!((well.state, well.headline.as_str(), well.trouble()), (State::Ready, why.reason.as_str(), None));
    assert_eq!(Summary::of(&Facts { computes: true, ..facts(&why) }).state, State::Training);

    let offline =
        Summary::of(&Facts { offline: Some("no connection to the coordinator at x:1: nobody answers"), ..facts(&why) });
    assert_eq!((offline.state, deeds(&offline)), (State::Offline, vec![Deed::Retry]));
    assert!(offline.headline == "the coordinator cannot be reached" && offline.detail.contains("x:1: nobody answers."));

    let wrong = Facts { offline: Some("its key is another"), wrong_key: true, ..facts(&why) };
    let wrong = Summary::of(&wrong);
    assert_eq!((wrong.state, deeds(&wrong)), (State::NeedsYou, vec![Deed::Retry, Deed::Leave]));
    assert!(wrong.trouble().is_some_and(|words| words.contains("somebody else answers")));

    let crash = may("it may train, but cannot yet: the worker failed: signal 11");
    let once = Summary::of(&Facts { failures: 1, ..facts(&crash) });
    assert_eq!(once.state, State::Ready, "one may be chance");
    let broken = Summary::of(&Facts { failures: 3, ..facts(&crash) });
    assert_eq!((broken.state, deeds(&broken)), (State::NeedsYou, vec![Deed::Retry]));
    assert_eq!(broken.headline, "the worker failed: signal 11");
    let trouble = "a lease needs 9 MiB; it lacks 2 MiB: `nightjar prefs set quota_mib_max 9` lets it";
    let full = Summary::of(&Facts { trouble: Some(trouble), ..facts(&why) });
    assert_eq!((full.state, full.headline.as_str()), (State::NeedsYou, "a lease needs 9 MiB"));
}

#[test]
fn a_hold_that_only_the_owner_ends_is_not_said_to_end_by_itself() {
    let none = holds(ReasonKind::DataCap, "it may use no data at all");
    let none = Summary::of(&Facts { ends: Ends::Preference, ..facts(&none) });
    assert_eq!(
        (none.detail.as_str(), deeds(&none)),
        ("It stays so until you change this preference.", vec![Deed::Preferences])
    );
    let full = holds(ReasonKind::Disk, "the disk is full");
    let full = Summary::of(&Facts { ends: Ends::Elsewhere, ..facts(&full) });
    assert_eq!((full.detail.as_str(), deeds(&full)), ("It goes on by itself once that is over.", vec![]));
    let why = may("it may train; waiting for work; the coordinator says: it takes 300 MiB");
    let capped = Summary::of(&Facts { capped: Some("away_memory_mib_max"), ..facts(&why) });
    assert_eq!((capped.state, capped.offers[0].key.as_deref()), (State::NeedsYou, Some("away_memory_mib_max")));
}

#[test]
fn out_of_a_run_it_is_told_why_and_asks_for_an_invite() {
    let none = holds(
        ReasonKind::NotJoined,
        "this computer has not joined a run yet; paste an invite on its page (`nightjar open`), or use `nightjar join \
        INVITE`",
    );
    let never = Summary::of(&Facts { in_run: false, is_new: true, ..facts(&none) });
    assert_eq!((never.state, never.headline.as_str()), (State::NotJoined, "this computer has not joined a run yet"));
    assert_eq!((deeds(&never), never.trouble()), (vec![Deed::Join], None));
    for (reason, headline) in [
        (
            "the run is over: the budget is used up. `nightjar leave` forgets it",
            "the run is over: the budget is used up",
        ),
        (
            "the coordinator refused this device: no; `nightjar leave` forgets that run",
            "the coordinator refused this device: no",
        ),
        ("/h/membership.json is damaged; `nightjar join INVITE` writes it anew", "/h/membership.json is damaged"),
    ] {
        let why = holds(ReasonKind::NotJoined, reason);
        let out = Summary::of(&Facts { in_run: false, ..facts(&why) });
        assert_eq!((out.state, out.headline.as_str(), deeds(&out)), (State::NeedsYou, headline, vec![Deed::Join]));
    }
}

#[test]
fn a_hold_is_no_trouble_and_says_what_ends_it() {
    let why =
        holds(ReasonKind::Off, "training is switched off; `nightjar prefs set away_duty_percent 100` switches it on");
    let off = Summary::of(&facts(&why));
    assert_eq!((off.state, off.headline.as_str()), (State::Holding, "training is switched off"));
    assert_eq!((deeds(&off), off.offers[0].key.as_deref()), (vec![Deed::Preferences], Some("away_duty_percent")));
    let in_use =
        Why { until: Some("2026-11-24T18:32:00+00:00".into()), ..holds(ReasonKind::InUse, "somebody is there") };
    let held = Summary::of(&facts(&in_use));
    assert_eq!((held.state, held.detail.as_str(), deeds(&held)), (State::Holding, "", vec![]));
    let paused = holds(ReasonKind::Paused, "you paused it; `nightjar resume` lets it go on");
    let paused = Summary::of(&Facts { wrong_key: true, offline: Some("x"), failures: 9, ..facts(&paused) });
    assert_eq!(
        (paused.state, paused.headline.as_str(), deeds(&paused)),
        (State::Paused, "you paused it", vec![Deed::Resume])
    );
}

#[test]
fn a_run_that_is_over_and_work_that_nobody_takes_need_the_owner() {
    let over = holds(ReasonKind::RunOver, "the run is over: Thank you");
    let over = Summary::of(&facts(&over));
    assert_eq!((over.state, deeds(&over)), (State::NeedsYou, vec![Deed::Leave, Deed::Retry]));
    assert_eq!(over.trouble(), Some("the run is over: Thank you"));
    let fruitless = holds(ReasonKind::Fruitless, "the last 5 leases came to nothing (x)");
    let fruitless = Summary::of(&facts(&fruitless));
    assert_eq!((fruitless.state, deeds(&fruitless)), (State::NeedsYou, vec![Deed::Retry]));
    let disk = holds(ReasonKind::Disk, "the disk is full; training goes on by itself");
    let disk = Summary::of(&Facts { trouble: Some("the disk is full"), ..facts(&disk) });
    assert_eq!((disk.state, disk.notices.len()), (State::Holding, 0), "it is told once");
}

#[test]
fn what_waits_for_the_owner_besides_is_told_whatever_the_state() {
    let left = [LeftAlone {
        device: "A".into(),
        reason: "A is left alone after 3 crashes (x); `nightjar devices --retry` helps".into(),
    }];
    let word = Word { kind: super::super::WordKind::RunNow, until: None, kept: false };
    let why = may("it trains");
    let summary = Summary::of(&Facts {
        computes: true,
        config_error: Some("prefs.toml, line 1: bad"),
        left_alone: &left,
        word: Some(&word),
        trouble: Some("no room"),
        ..facts(&why)
    });
    assert_eq!(summary.state, State::Training);
    let told: Vec<&str> = summary.notices.iter().map(|notice| notice.sentence.as_str()).collect();
    assert!(
        told.len() == 4 && told[0].contains("last good") && told[2] == "A is left alone after 3 crashes (x)",
        "{told:?}"
    );
    assert_eq!((summary.trouble(), told[3]), (Some(told[0]), "no room"));
}

/// Whatever is the case, there is a headline that asks for no terminal.
#[test]
fn no_headline_has_a_command_in_it() {
    let kinds = [
        ReasonKind::NotJoined,
        ReasonKind::Paused,
        ReasonKind::Off,
        ReasonKind::UnknownMetered,
        ReasonKind::Disk,
        ReasonKind::InUse,
    ];
    let reasons = [
        "x; `nightjar a` b",
        "x: `nightjar a`",
        "x (`nightjar a`) or y",
        "x. `nightjar a` forgets it; y",
        "x, or with `nightjar a`",
    ];
    for reason in reasons {
        assert_eq!(without_commands(reason), "x", "{reason}");
        for why in kinds.iter().map(|kind| holds(*kind, reason)).chain([may(reason)]) {
            for in_run in [true, false] {
                let summary = Summary::of(&Facts { in_run, trouble: Some(reason), ..facts(&why) });
                assert!(!summary.headline.is_empty() && !summary.headline.contains("nightjar"), "{summary:?}");
            }
        }
    }
    assert_eq!(without_commands("it trains"), "it trains");
}
