//! The history over days, crashes and clocks that jump.

use super::*;
use crate::policy::{Cause, ReasonKind};
use energy::Joules;
use nightjar_shared::{disk::Disk, lease::LeaseKind};

struct Fixture {
    _folder: tempfile::TempDir,
    disk: Arc<FolderDisk>,
}

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(FolderDisk::open(folder.path()).unwrap());
    Fixture { _folder: folder, disk }
}

/// A time in Berlin.
fn at(text: &str) -> Zoned {
    format!("{text}[Europe/Berlin]").parse().unwrap()
}

fn mono(minutes: u64) -> Mono {
    Mono { ms: minutes * 60_000 }
}

fn spans(day: &DayView) -> Vec<(State, &str, &str)> {
    day.spans.iter().map(|s| (s.state, &s.from[11..16], &s.to[11..16])).collect()
}

fn delivery(lease: u64, merged: bool) -> Delivery {
    Delivery {
        at: "2026-11-24T03:00:00+01:00".into(),
        run: "night".into(),
        lease,
        kind: LeaseKind::Train,
        version: 3,
        steps: 10,
        samples: 40,
        tokens: 5120,
        loss_first: Some(3.5),
        loss_last: Some(3.25),
        merged,
        why_not: if merged { String::new() } else { "too stale".into() },
    }
}

#[test]
fn a_day_is_told_in_spans_with_their_reasons() {
    let Fixture { disk, _folder } = fixture();
    let mut history = History::open(disk, &at("2026-11-24T08:00"));
    history.note(State::Hold, Some(ReasonKind::InUse), "somebody is at it", &at("2026-11-24T08:00"));
    // The same thing in other words is no change.
    history.note(State::Hold, Some(ReasonKind::InUse), "somebody is still at it", &at("2026-11-24T08:30"));
    history.note(State::Run, None, "training is allowed", &at("2026-11-24T12:00"));
    let day = history.day(None, &at("2026-11-24T13:00"));
    assert_eq!((day.from.as_str(), day.to.as_str()), ("2026-11-24T00:00:00+01:00", "2026-11-25T00:00:00+01:00"));
    assert_eq!(spans(&day), [(State::Hold, "08:00", "12:00"), (State::Run, "12:00", "13:00")]);
    assert_eq!((day.spans[0].kind, day.spans[0].sentence.as_str()), (Some(ReasonKind::InUse), "somebody is at it"));
    assert_eq!((day.spans[0].cause, day.spans[1].cause), (Some(Cause::Use), None));
}

/// One state may have several reasons one after the other; only figures, and words that stand for a moment, are none.
#[test]
fn a_state_with_another_reason_is_another_span() {
    let Fixture { disk, _folder } = fixture();
    let mut history = History::open(disk, &at("2026-11-24T08:00"));
    for (time, state, kind, sentence) in [
        ("08:00:00", State::Ready, None, "it may train; connecting"),
        ("08:00:20", State::Ready, None, "it may train; the coordinator cannot be reached"),
        ("08:05:00", State::Ready, None, "it may train; waiting for work, in 30 s"),
        ("08:06:00", State::Ready, None, "it may train; waiting for work, in 10 s"),
        ("09:00:00", State::Run, None, "it trains because you asked for it"),
        ("10:00:00", State::Run, None, "it trains, since nobody uses the computer"),
        ("11:00:00", State::Hold, Some(ReasonKind::Program), "steam is running"),
        ("12:00:00", State::Hold, Some(ReasonKind::Program), "blender is running"),
    ] {
        history.note(state, kind, sentence, &at(&format!("2026-11-24T{time}")));
    }
    let told: Vec<String> =
        history.day(None, &at("2026-11-24T13:00")).spans.into_iter().map(|span| span.sentence).collect();
    assert_eq!(
        told,
        [
            "it may train; connecting",
            "it may train; waiting for work, in 30 s",
            "it trains because you asked for it",
            "it trains, since nobody uses the computer",
            "steam is running",
            "blender is running"
        ]
    );
}

#[test]
fn what_goes_on_over_midnight_is_in_both_days_and_a_short_day_has_23_hours() {
    let Fixture { disk, _folder } = fixture();
    let mut history = History::open(disk, &at("2026-03-28T22:00"));
    history.note(State::Run, None, "allowed", &at("2026-03-28T22:00"));
    history.note(State::Run, None, "allowed", &at("2026-03-29T00:00"));
    let now = at("2026-03-29T05:00");
    let yesterday = history.day(Some("2026-03-28".parse().unwrap()), &now);
    assert_eq!(spans(&yesterday), [(State::Run, "22:00", "00:00")]);
    let today = history.day(None, &now);
    assert_eq!(spans(&today), [(State::Run, "00:00", "05:00")]);
    assert_eq!((today.from.as_str(), today.to.as_str()), ("2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"));
}

#[test]
fn between_a_kill_and_the_next_start_it_was_off() {
    let Fixture { disk, _folder } = fixture();
    let mut history = History::open(disk.clone(), &at("2026-11-24T08:00"));
    history.note(State::Run, None, "allowed", &at("2026-11-24T08:00"));
    history.tick(&at("2026-11-24T09:00"), mono(60));
    // Killed soon after nine, started at eleven.
    let mut history = History::open(disk.clone(), &at("2026-11-24T11:00"));
    history.note(State::Run, None, "allowed", &at("2026-11-24T11:00"));
    let day = history.day(None, &at("2026-11-24T12:00"));
    assert_eq!(
        spans(&day),
        [(State::Run, "08:00", "09:00"), (State::Off, "09:00", "11:00"), (State::Run, "11:00", "12:00")]
    );
    // One that ends in order says so itself, and is not told off twice.
    history.close(&at("2026-11-24T12:30"));
    let history = History::open(disk, &at("2026-11-25T10:00"));
    let day = history.day(Some("2026-11-24".parse().unwrap()), &at("2026-11-25T10:00"));
    assert_eq!(spans(&day).last(), Some(&(State::Off, "12:30", "00:00")));
}

#[test]
fn a_torn_line_costs_that_line_and_a_clock_set_back_no_order() {
    let Fixture { disk, _folder } = fixture();
    let mut history = History::open(disk.clone(), &at("2026-11-24T08:00"));
    history.note(State::Run, None, "allowed", &at("2026-11-24T08:00"));
    history.note(State::Hold, Some(ReasonKind::Metered), "metered", &at("2026-11-24T09:00"));
    let file = "history/2026-11-24.jsonl";
    let whole = disk.read(file).unwrap().unwrap();
    disk.write(file, &whole[..whole.len() - 7]).unwrap();
    let mut history = History::open(disk, &at("2026-11-24T10:00"));
    history.note(State::Paused, Some(ReasonKind::Paused), "paused", &at("2026-11-24T10:00"));
    history.note(State::Run, None, "allowed", &at("2026-11-24T07:00"));
    let day = history.day(None, &at("2026-11-24T11:00"));
    assert_eq!(spans(&day), [(State::Run, "08:00", "10:00"), (State::Run, "10:00", "11:00")]);
}

#[test]
fn a_restless_day_stays_bounded_and_keeps_its_long_spans() {
    let Fixture { disk, _folder } = fixture();
    let mut now = at("2026-11-24T00:00");
    let mut history = History::open(disk.clone(), &now);
    for i in 0..4000 {
        let (state, seconds) = if i % 2 == 0 { (State::Run, 20) } else { (State::Hold, 1) };
        history.note(state, None, "", &now);
        now = now.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap();
    }
    assert!(disk.length("history/2026-11-24.jsonl").unwrap().unwrap() < 64 << 10);
    let day = history.day(None, &now);
    assert!(day.spans.iter().any(|s| s.state == State::Run), "what it mostly did is still there");
}

#[test]
fn figures_add_up_over_days_months_and_kills() {
    let Fixture { disk, _folder } = fixture();
    let november = at("2026-11-30T23:00");
    let mut history = History::open(disk.clone(), &november);
    history.trained(1, 1000, &november);
    history.moved(10, 200, &november);
    history.used(Joules { measured: 50.0, estimated: 0.0 }, &november);
    history.delivered(&delivery(1, true), &november);
    assert!(history.today(&november).energy_measured);
    history.tick(&november, mono(10));
    // Killed: what was not flushed since is lost, what was is there.
    history.trained(1, 9000, &november);
    let december = at("2026-12-01T01:00");
    let mut history = History::open(disk.clone(), &december);
    assert_eq!(history.data_this_month(&december), 0);
    // The lease goes on from its checkpoint: tokens that were counted are not counted again.
    history.trained(1, 900, &december);
    history.trained(1, 1500, &december);
    history.used(Joules { measured: 1.0, estimated: 2.0 }, &december);
    history.moved(1, 2, &december);
    history.delivered(&delivery(2, false), &december);
    let (today, totals) = (history.today(&december), history.totals());
    assert_eq!((today.tokens, today.deltas, today.merged), (500, 1, 0));
    assert_eq!((totals.tokens, totals.deltas, totals.merged), (1500, 2, 1));
    assert_eq!((totals.energy_joules, totals.energy_measured), (53.0, false));
    assert_eq!((history.data_this_month(&december), totals.bytes_down), (3, 202));
    history.flush();
    assert_eq!(History::open(disk, &december).totals(), totals);
}

#[test]
fn damaged_figures_are_put_aside() {
    let Fixture { disk, _folder } = fixture();
    disk.write("history/2026-11.json", b"{\"before\": 7").unwrap();
    let now = at("2026-11-24T08:00");
    let mut history = History::open(disk.clone(), &now);
    history.moved(1, 1, &now);
    history.flush();
    assert_eq!(history.data_this_month(&now), 2);
    assert_eq!(disk.read("history/2026-11.json.damaged").unwrap().unwrap(), b"{\"before\": 7");
}

#[test]
fn a_delivery_told_twice_is_one_and_a_torn_line_none() {
    let Fixture { disk, _folder } = fixture();
    let now = at("2026-11-24T08:00");
    let mut history = History::open(disk.clone(), &now);
    history.delivered(&delivery(1, true), &now);
    let length = disk.length("history/ledger.jsonl").unwrap().unwrap();
    disk.write_at("history/ledger.jsonl", length, b"{\"at\":\"20").unwrap();
    history.delivered(&delivery(2, false), &now);
    history.delivered(&delivery(2, true), &now);
    let all = deliveries(&*disk);
    assert_eq!(all.iter().map(|d| (d.lease, d.merged)).collect::<Vec<_>>(), [(1, true), (2, true)]);
}

#[test]
fn the_ledger_and_the_log_stay_bounded_with_the_newest_in_them() {
    let Fixture { disk, _folder } = fixture();
    let log = Log::of(&*disk);
    for i in 0..5000 {
        ledger::append(&*disk, &Delivery { why_not: "x".repeat(300), ..delivery(i, false) }).unwrap();
        log.write("2026-11-24T08:00:00+01:00", &format!("line {i} {}", "y".repeat(150)));
    }
    let all = deliveries(&*disk);
    assert!(all.len() > 500 && all.last().unwrap().lease == 4999);
    assert!(disk.length("history/ledger.jsonl").unwrap().unwrap() < 2 << 20);
    assert!(disk.length(LOG_FILE).unwrap().unwrap() <= 256 << 10);
    let lines = log_lines(&*disk, 3);
    assert_eq!(lines.len(), 3);
    assert!(lines[2].starts_with("2026-11-24T08:00:00+01:00 line 4999 "));
}

#[test]
fn estimates_are_called_so_and_meters_are_read_where_there_are() {
    let root = tempfile::tempdir().unwrap();
    let mut meters = energy::Meters::new(root.path().into());
    let load = energy::Load { device: "flex".into(), threads: 2, duty: 0.5, ..energy::Load::default() };
    let now = |s: u64| Mono { ms: s * 1000 };
    assert_eq!(meters.sample(Some(&load), now(0)), Joules::default());
    assert_eq!(meters.sample(Some(&load), now(10)), Joules { measured: 0.0, estimated: 100.0 });
    assert!(meters.source().unwrap().contains("estimate: 10 W a thread"));
    assert_eq!(meters.sample(None, now(20)), Joules::default());

    let package = root.path().join("sys/class/powercap/intel-rapl:0");
    std::fs::create_dir_all(&package).unwrap();
    std::fs::write(package.join("max_energy_range_uj"), "262143328850").unwrap();
    let counts = |uj: &str| std::fs::write(package.join("energy_uj"), uj).unwrap();
    counts("1000000");
    meters.sample(Some(&load), now(30));
    counts("61000000");
    assert_eq!(meters.sample(Some(&load), now(32)), Joules { measured: 60.0, estimated: 0.0 });
    assert_eq!(meters.source(), Some("RAPL, for the whole processor"));
    // The computer slept: nobody trained in the meantime.
    counts("99000000");
    assert_eq!(meters.sample(Some(&load), now(3600)), Joules::default());
}

/// A computer without a battery for its clock starts in 1970, and is put right once it is online.
#[test]
fn a_clock_that_jumps_over_months_costs_no_figures_and_no_cap() {
    let Fixture { disk, _folder } = fixture();
    let (november, december) = (at("2026-11-20T12:00"), at("2026-12-02T12:00"));
    let mut history = History::open(disk.clone(), &november);
    history.moved(0, 500, &november);
    history.trained(1, 1000, &november);
    history.flush();
    // Forward by a month and back again, before anything is written.
    history.moved(0, 30, &december);
    assert_eq!(history.data_this_month(&december), 30);
    assert_eq!(history.data_this_month(&november), 500, "before the first byte is counted too");
    history.moved(0, 7, &november);
    assert_eq!((history.data_this_month(&november), history.totals().bytes_down), (507, 537));
    assert_eq!(history.data_this_month(&december), 30);
    history.flush();

    let early = at("1970-01-01T01:00");
    let mut history = History::open(disk.clone(), &early);
    assert_eq!((history.totals().bytes_down, history.totals().tokens), (537, 1000));
    history.moved(0, 5, &early);
    assert_eq!(history.data_this_month(&november), 507, "the month's own file is opened, and not begun anew");
    history.moved(0, 1, &november);
    history.flush();
    let mut history = History::open(disk, &november);
    assert_eq!((history.data_this_month(&november), history.totals().bytes_down), (508, 543));
}
