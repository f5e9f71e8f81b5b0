//! The policy by example: one owner, one computer, one thing at a time.

use super::*;
use crate::preferences::{Policy, Week};
use std::time::Duration;

const NOW: &str = "2026-06-10T12:00[Europe/Berlin]";
const MINUTE: u64 = 60_000;

/// A computer that nobody has used for an hour, plugged in, cool, and with room.
fn quiet() -> Observation {
    Observation {
        idle: Reading::Known(Duration::from_secs(3600)),
        power: Reading::Known(Power { on_mains: true, charge_percent: Some(100.0) }),
        temperature_c: Reading::Known(50.0),
        metered: Reading::Known(false),
        full_screen: Reading::Known(false),
        programs: Reading::Known(vec![]),
        memory_free: Reading::Known(8 << 30),
        disk_free: Reading::Known(100 << 30),
        data_this_month: 0,
        pressure: Reading::Known(Pressure::default()),
        sleeping: false,
    }
}

/// An owner, their computer and the time, followed through the day.
struct Day {
    preferences: Preferences,
    owner: Override,
    seen: Observation,
    memory: Memory,
    start: Zoned,
    mono: Mono,
    /// Whether the network may be used.
    network: bool,
    /// How soon it is to stop.
    hurry: Hurry,
}

impl Day {
    fn new() -> Self {
        let preferences = Preferences { programs: vec!["steam".into()], ..Preferences::default() };
        // Long after the start of the computer.
        let mono = Mono { ms: 1 << 32 };
        Day {
            preferences,
            owner: Override::No,
            seen: quiet(),
            memory: Memory::default(),
            start: NOW.parse().unwrap(),
            mono,
            network: true,
            hurry: Hurry::None,
        }
    }

    fn now(&self) -> Zoned {
        self.start.checked_add(self.mono.since(Mono { ms: 1 << 32 })).unwrap()
    }

    fn after(&mut self, s: u64) -> Decision {
        self.mono = self.mono + Duration::from_secs(s);
        let outcome = decide(&self.preferences, self.owner, &self.seen, &self.memory, &self.now(), self.mono);
        (self.memory, self.network, self.hurry) = (outcome.memory, outcome.network, outcome.hurry);
        outcome.decision
    }

    /// The reason and when it ends, after so many seconds.
    fn held_after(&mut self, s: u64) -> (ReasonKind, String, Option<String>) {
        match self.after(s) {
            Decision::Hold { reason, until } => {
                (reason.kind, reason.sentence, until.map(|u| u.strftime("%Y-%m-%d %H:%M:%S").to_string()))
            }
            Decision::Run { .. } => panic!("it runs"),
        }
    }

    fn held(&mut self) -> (ReasonKind, String, Option<String>) {
        self.held_after(0)
    }

    fn runs_after(&mut self, s: u64) -> (Limits, ProfileName) {
        match self.after(s) {
            Decision::Run { limits, profile } => (limits, profile),
            Decision::Hold { reason, .. } => panic!("it holds: {reason}"),
        }
    }

    fn runs(&mut self) -> (Limits, ProfileName) {
        self.runs_after(0)
    }
}

#[test]
fn a_quiet_computer_trains_within_the_owners_limits() {
    let mut day = Day::new();
    assert_eq!(
        day.runs(),
        (Limits { duty: 1.0, threads: 0, memory_bytes: u64::MAX, tokens_per_s_max: 0.0 }, ProfileName::Away)
    );
    let Decision::Run { limits, .. } = day.after(0).on(8) else { panic!("it holds") };
    assert_eq!(limits.threads, 4, "0 is half of the cores, and no other number");
    day.preferences.away = Profile { duty_percent: Some(40), threads: 3, memory_mib_max: Some(512) };
    assert_eq!(day.runs().0, Limits { duty: 0.4, threads: 3, memory_bytes: 512 << 20, tokens_per_s_max: 0.0 });
}

#[test]
fn input_decides_which_profile_holds() {
    let mut day = Day::new();
    day.seen.idle = Reading::Known(Duration::from_secs(200));
    let (kind, told, until) = day.held();
    assert_eq!(kind, ReasonKind::InUse);
    assert_eq!(told, "the computer was used 3 minutes ago; training starts after 10 minutes without input");
    assert_eq!(until.unwrap(), "2026-06-10 12:06:40");
    day.preferences.in_use.duty_percent = Some(10);
    assert_eq!(
        day.runs(),
        (Limits { duty: 0.1, threads: 1, memory_bytes: u64::MAX, tokens_per_s_max: 0.0 }, ProfileName::InUse)
    );
    day.seen.idle = Reading::Known(Duration::MAX);
    assert_eq!(day.runs_after(400).1, ProfileName::Away);
    day.preferences.idle_minutes = None;
    day.seen.idle = Reading::Known(Duration::ZERO);
    assert_eq!(day.runs().1, ProfileName::Away, "the owner has switched this off");
}

/// When the sensor that saw input gives way to one that did not, the input still counts.
#[test]
fn input_is_not_forgotten() {
    let mut day = Day::new();
    day.seen.idle = Reading::Known(Duration::ZERO);
    day.held();
    day.seen.idle = Reading::Known(Duration::MAX);
    assert_eq!(day.held_after(300).0, ReasonKind::InUse);
    day.seen.idle = Reading::Unknown("it fell silent".into());
    day.preferences.waive = [crate::preferences::Sensor::Idle].into();
    assert_eq!(day.held_after(299).0, ReasonKind::InUse);
    day.runs_after(1);
}

#[test]
fn unknown_counts_as_in_use_and_can_be_waived() {
    let mut day = Day::new();
    day.seen.idle = Reading::Unknown("nobody answers.".into());
    let (kind, told, until) = day.held();
    assert_eq!((kind, until), (ReasonKind::UnknownIdle, None));
    assert_eq!(
        told,
        "it is unknown whether the computer is in use: nobody answers; `nightjar prefs set waive idle` lets it train \
        all the same"
    );
    day.preferences.in_use.duty_percent = Some(10);
    assert_eq!(day.runs().1, ProfileName::InUse);
    day.preferences.in_use.duty_percent = None;
    day.preferences.waive = [crate::preferences::Sensor::Idle].into();
    day.memory = Memory::default();
    assert_eq!(day.runs().1, ProfileName::Away);
    // The next silent sensor's sentence keeps what is waived already.
    day.seen.temperature_c = Reading::Known(f64::NAN);
    let (kind, told, _) = day.held();
    assert_eq!(kind, ReasonKind::UnknownTemperature);
    assert!(told.contains("`nightjar prefs set waive idle,temperature`"), "{told}");
}

#[test]
fn the_owners_word_wins_over_everything_but_safety() {
    let mut day = Day::new();
    day.owner = Override::Pause(Some(day.mono + Duration::from_secs(6 * 3600)));
    let (kind, told, until) = day.held();
    assert_eq!((kind, until.as_deref()), (ReasonKind::Paused, Some("2026-06-10 18:00:00")));
    assert_eq!(told, "you paused it; `nightjar resume` lets it go on", "its one time is told beside it");
    day.runs_after(6 * 3600);
    day.owner = Override::Pause(None);
    assert_eq!(day.held().1, "you paused it; `nightjar resume` lets it go on");

    day.owner = Override::RunNow(Some(day.mono + Duration::from_secs(60)));
    day.seen.idle = Reading::Known(Duration::ZERO);
    day.seen.power = Reading::Known(Power { on_mains: false, charge_percent: Some(1.0) });
    day.seen.full_screen = Reading::Known(true);
    day.seen.metered = Reading::Unknown("no".into());
    day.preferences.schedule = Week::parse("22:00-23:00").unwrap();
    assert_eq!(day.runs().1, ProfileName::Away);
    for (unsafe_, kind) in [
        (Observation { temperature_c: Reading::Known(99.0), ..day.seen.clone() }, ReasonKind::Temperature),
        (
            Observation { temperature_c: Reading::Unknown("no".into()), ..day.seen.clone() },
            ReasonKind::UnknownTemperature,
        ),
        (Observation { memory_free: Reading::Known(1), ..day.seen.clone() }, ReasonKind::Memory),
        (Observation { disk_free: Reading::Known(1), ..day.seen.clone() }, ReasonKind::Disk),
        (Observation { sleeping: true, ..day.seen.clone() }, ReasonKind::Asleep),
    ] {
        let before = (day.seen.clone(), day.memory.clone());
        day.seen = unsafe_;
        assert_eq!(day.held().0, kind);
        (day.seen, day.memory) = before;
    }
    assert!(matches!(day.after(60), Decision::Hold { .. }), "its time is over");
}

#[test]
fn off_is_off() {
    let mut day = Day::new();
    day.preferences.away.duty_percent = None;
    assert!(day.held().1.starts_with("training is switched off; `nightjar prefs set away_duty_percent 100`"));
    day.preferences.in_use.duty_percent = Some(20);
    assert!(day.held().1.starts_with("training is switched off while nobody uses the computer"));
    day.seen.idle = Reading::Known(Duration::ZERO);
    assert_eq!(day.runs().1, ProfileName::InUse);
    day.owner = Override::RunNow(None);
    assert_eq!(day.runs().0.duty, 0.2);
}

#[test]
fn the_hours_of_the_week() {
    let mut day = Day::new();
    day.preferences.schedule = Week::parse("mon-fri 22:00-07:00").unwrap();
    let (kind, told, until) = day.held();
    assert_eq!((kind, until.as_deref()), (ReasonKind::Schedule, Some("2026-06-10 22:00:00")));
    assert_eq!(told, "it is outside your hours (mon-fri 22:00-07:00); the next begin at 22:00");
    day.runs_after(10 * 3600);
    // Saturday's small hours are Friday's; then it is Monday's turn.
    day.start = "2026-06-13T07:00[Europe/Berlin]".parse().unwrap();
    day.mono = Mono { ms: 1 << 32 };
    let (_, told, until) = day.held();
    assert_eq!(until.as_deref(), Some("2026-06-15 22:00:00"));
    assert!(told.ends_with("the next begin on Monday at 22:00"), "{told}");
}

#[test]
fn mains_and_charge() {
    let mut day = Day::new();
    let battery = |charge| Reading::Known(Power { on_mains: false, charge_percent: charge });
    day.seen.power = battery(Some(100.0));
    assert_eq!(day.held().1, "the computer runs on battery; training goes on when it is plugged in");
    day.preferences.on_battery = true;
    day.memory = Memory::default();
    day.runs();
    day.seen.power = battery(Some(80.0));
    day.runs();
    day.seen.power = battery(Some(79.0));
    assert_eq!(day.held().1, "the battery is at 79 %; training goes on at 85 %, or when it is plugged in");
    day.seen.power = battery(Some(84.0));
    assert_eq!(
        day.held_after(3600).1,
        "the battery is at 84 %; after a hold training goes on at 85 %, or when it is plugged in"
    );
    day.seen.power = battery(Some(85.0));
    let (kind, told, until) = day.held_after(60);
    assert_eq!((kind, until.as_deref()), (ReasonKind::Charge, Some("2026-06-10 13:01:30")));
    assert_eq!(told, "the battery was too low before; training goes on after 30 seconds without that");
    // Back within the margin, it has not been full enough for a while.
    day.seen.power = battery(Some(84.0));
    day.held_after(20);
    day.seen.power = battery(Some(85.0));
    day.held_after(5);
    day.held_after(29);
    day.runs_after(1);
    day.seen.power = battery(None);
    assert_eq!(day.held().0, ReasonKind::UnknownPower);
    day.preferences.charge_percent_min = None;
    day.runs();
}

#[test]
fn heat_steps_the_duty_down_before_it_holds() {
    let mut day = Day::new();
    day.runs();
    day.seen.temperature_c = Reading::Known(81.0);
    let duties: Vec<f64> = [0, 10, 5, 15, 15, 15].map(|s| day.runs_after(s).0.duty).into();
    assert_eq!(duties, [0.75, 0.75, 0.5, 0.25, 0.25, 0.25]);
    assert_eq!(day.memory.slowed(), Some("the computer is warm"));
    day.seen.temperature_c = Reading::Known(85.5);
    assert_eq!(day.held_after(1).1, "the computer is at 85.5 °C, above 85 °C; training goes on at 80 °C");
    day.seen.temperature_c = Reading::Known(81.0);
    assert!(day.held_after(600).1.starts_with("the computer is at 81.0 °C; after a hold training goes on at"));
    day.seen.temperature_c = Reading::Known(76.0);
    assert_eq!(day.held_after(1).0, ReasonKind::Temperature);
    assert_eq!(day.runs_after(60).0.duty, 0.25, "between, it neither falls nor rises");
    day.seen.temperature_c = Reading::Known(60.0);
    let duties: Vec<f64> = [1, 60, 60, 60].map(|s| day.runs_after(s).0.duty).into();
    assert_eq!(duties, [0.5, 0.75, 1.0, 1.0]);
    assert_eq!(day.memory.slowed(), None);
}

#[test]
fn pressure_slows_down_and_never_holds() {
    let mut day = Day::new();
    day.seen.pressure = Reading::Known(Pressure { cpu: 0.0, memory: 0.0, io: 95.0 });
    for _ in 0..10 {
        day.runs_after(60);
    }
    assert_eq!((day.runs().0.duty, day.memory.slowed()), (0.25, Some("other programs have to wait")));
    day.owner = Override::RunNow(None);
    day.runs_after(300);
    day.seen.pressure = Reading::Unknown("no".into());
    for _ in 0..4 {
        day.runs_after(60);
    }
    assert_eq!(day.runs().0.duty, 1.0);
}

/// No data at all is not no limit.
#[test]
fn who_may_use_no_data_uses_none() {
    let mut day = Day::new();
    day.preferences.data_mib_month_max = Some(0);
    let (kind, told, until) = day.held();
    assert_eq!((kind, until, day.network), (ReasonKind::DataCap, None, false), "no month helps: {told}");
    day.preferences.data_mib_month_max = None;
    day.runs();
}

/// Whoever said "now" hears why not.
#[test]
fn run_now_that_goes_on_holding_says_why() {
    let mut day = Day::new();
    day.owner = Override::RunNow(None);
    day.runs();
    day.seen.memory_free = Reading::Known(1 << 20);
    let (kind, told, _) = day.held();
    assert_eq!(kind, ReasonKind::Memory);
    assert!(told.starts_with("you asked it to train now, but it is not safe: only 1 MiB of memory are free"), "{told}");
    day.owner = Override::No;
    assert!(day.held().1.starts_with("only 1 MiB"));
}

#[test]
fn what_is_seen_on_the_screen_and_beside_it() {
    let mut day = Day::new();
    day.seen.full_screen = Reading::Known(true);
    assert_eq!(
        day.held().1,
        "a window covers a whole screen, or a program keeps the screen on; training goes on when that is over"
    );
    day.seen.full_screen = Reading::Known(false);
    let (_, told, until) = day.held_after(100);
    assert_eq!(
        told,
        "a window covered the screen, or a program kept it on before; training goes on after 30 seconds without that"
    );
    assert_eq!(until.as_deref(), Some("2026-06-10 12:02:10"));
    assert!(day.held_after(12).1.contains("without that, 12 seconds so far"));
    day.runs_after(18);
    day.seen.programs = Reading::Known(vec!["steam".into()]);
    assert_eq!(day.held().1, "steam is running; training goes on when it is closed");
    day.seen.programs = Reading::Known(vec!["blender".into()]);
    day.memory = Memory::default();
    day.runs();
    day.seen.programs = Reading::Unknown("no".into());
    day.preferences.programs.clear();
    day.runs();
}

#[test]
fn floors_and_the_months_data() {
    let mut day = Day::new();
    day.seen.memory_free = Reading::Known(256 << 20);
    day.runs();
    day.seen.memory_free = Reading::Known(100 << 20);
    assert_eq!(
        day.held().1,
        "only 100 MiB of memory are free, and 256 MiB must stay so; training goes on with 320 MiB"
    );
    day.seen.memory_free = Reading::Known(300 << 20);
    assert!(day.held_after(600).1.contains("after a hold training goes on with"));
    day.seen.memory_free = Reading::Known(320 << 20);
    assert_eq!(day.held_after(1).0, ReasonKind::Memory);
    day.runs_after(300);
    day.preferences.data_mib_month_max = Some(5 << 10);
    day.seen.data_this_month = 5 << 30;
    let (kind, told, until) = day.held();
    assert_eq!((kind, until.as_deref()), (ReasonKind::DataCap, Some("2026-07-01 00:00:00")));
    assert_eq!(
        told,
        "this month's 5 GiB of data are used up; they are counted anew on 1 July, and a higher data_mib_month_max \
        helps at once"
    );
}

/// The reason that is told may wait, and the owner does not.
#[test]
fn the_most_urgent_reason_decides_how_soon_it_stops() {
    let mut day = Day::new();
    day.preferences.on_battery = true;
    day.runs();
    day.seen.power = Reading::Known(Power { on_mains: false, charge_percent: Some(50.0) });
    assert_eq!((day.held().0, day.hurry), (ReasonKind::Charge, Hurry::None));
    day.seen.idle = Reading::Known(Duration::ZERO);
    assert_eq!((day.held().0, day.hurry), (ReasonKind::Charge, Hurry::Now));
    day.seen.memory_free = Reading::Known(1);
    assert_eq!((day.held().0, day.hurry), (ReasonKind::Charge, Hurry::NowWithMemory));
    day.seen.sleeping = true;
    assert_eq!((day.held().0, day.hurry), (ReasonKind::Asleep, Hurry::Sleep));
}

/// The reason that is told is another, and the network costs all the same.
#[test]
fn a_network_that_costs_is_spared_whatever_else_holds() {
    let mut day = Day::new();
    day.runs();
    assert!(day.network);
    day.owner = Override::Pause(None);
    assert_eq!((day.held().0, day.network), (ReasonKind::Paused, true));
    for unwanted in [Reading::Known(true), Reading::Unknown("nobody says".into())] {
        day.seen.metered = unwanted;
        assert_eq!((day.held().0, day.network), (ReasonKind::Paused, false));
    }
    day.owner = Override::RunNow(None);
    day.runs();
    assert!(day.network, "the owner asked for it");
    (day.owner, day.seen.metered, day.memory) = (Override::No, Reading::Known(false), Memory::default());
    day.preferences.data_mib_month_max = Some(1);
    day.seen.data_this_month = 1 << 20;
    day.seen.power = Reading::Unknown("nobody says".into());
    assert_eq!((day.held().0, day.network), (ReasonKind::UnknownPower, false));
}

#[test]
fn always_asks_only_for_what_is_known_to_be_unsafe() {
    let mut day = Day::new();
    day.preferences.policy = Policy::Always;
    day.preferences.schedule = Week::parse("22:00-23:00").unwrap();
    day.seen = Observation::unknown("there are no sensors");
    assert_eq!(day.runs().1, ProfileName::Away);
    day.seen.temperature_c = Reading::Known(90.0);
    assert_eq!(day.held().0, ReasonKind::Temperature);
}

/// Of several reasons the one is told that outlasts the others.
#[test]
fn the_most_useful_reason_comes_first() {
    let mut day = Day::new();
    day.seen.idle = Reading::Known(Duration::ZERO);
    assert_eq!(day.held().0, ReasonKind::InUse);
    day.seen.full_screen = Reading::Known(true);
    assert_eq!(day.held().0, ReasonKind::FullScreen);
    day.preferences.schedule = Week::parse("22:00-23:00").unwrap();
    assert_eq!(day.held().0, ReasonKind::Schedule);
    day.seen.disk_free = Reading::Unknown("no".into());
    assert_eq!(day.held().0, ReasonKind::UnknownDisk);
    day.preferences.away.duty_percent = None;
    assert_eq!(day.held().0, ReasonKind::Off);
    day.owner = Override::Pause(None);
    assert_eq!(day.held().0, ReasonKind::Paused);
}

#[test]
fn a_reboot_leaves_no_times_in_the_future() {
    let mut day = Day::new();
    day.seen.idle = Reading::Known(Duration::ZERO);
    day.seen.full_screen = Reading::Known(true);
    day.held();
    day.seen.full_screen = Reading::Known(false);
    day.held_after(1);
    let kept = serde_json::to_vec(&day.memory).unwrap();
    day.memory = serde_json::from_slice(&kept).unwrap();
    day.mono = Mono { ms: 10 * MINUTE };
    day.start = day.start.checked_add(Duration::from_secs((1 << 32) / 1000)).unwrap();
    day.seen.idle = Reading::Known(Duration::from_secs(600));
    assert_eq!(day.held().0, ReasonKind::FullScreen);
    day.runs_after(30);
    assert_eq!(serde_json::from_str::<Memory>("{}").unwrap(), Memory::default());
}
