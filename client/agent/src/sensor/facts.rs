//! The facts that sensors gather, and how they are put together and shown.

use super::{
    Seen, SleepDelay, Wants,
    readings::{Fact, Sourced},
    system::{FULL_SCREEN_SOURCES, IDLE_SOURCES, METERED_SOURCES, OTHERS_SOURCES, POWER_SOURCES},
};
use crate::{
    clock,
    policy::{Observation, Power, Pressure, Reading},
};
use nightjar_shared::time::Mono;
use std::time::Duration;

/// When the owner last did something.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Input {
    /// Just now: they are at it.
    Now,
    /// At this time.
    At(Mono),
    /// Nobody can.
    Never,
}

impl Input {
    /// `idle` ago.
    pub fn ago(idle: Duration) -> Self {
        Input::At(clock::mono_now() - idle)
    }

    /// Time since then.
    pub fn idle(self, now: Mono) -> Duration {
        match self {
            Input::Now => Duration::ZERO,
            Input::At(at) => now.since(at),
            Input::Never => Duration::MAX,
        }
    }
}

impl Fact for Input {
    /// The first input after a time that let something run. Where that is hours, one after a minute is told as well.
    fn alarms(&self, before: &Self, wants: &Wants) -> bool {
        let now = clock::mono_now();
        let long = wants.idle.min(Duration::from_secs(60));
        before.idle(now) >= long && self.idle(now) < long
    }
}

impl Fact for Power {
    fn alarms(&self, before: &Self, _: &Wants) -> bool {
        let whole = |power: &Power| power.charge_percent.map(|percent| percent.floor() as i64);
        self.on_mains != before.on_mains || whole(self) != whole(before)
    }
}

impl Fact for bool {
    fn alarms(&self, before: &Self, _: &Wants) -> bool {
        self != before
    }
}

/// Degrees Celsius.
impl Fact for f64 {
    fn alarms(&self, before: &Self, _: &Wants) -> bool {
        self - before >= 1.0
    }
}

/// Bytes that are free.
impl Fact for u64 {
    fn alarms(&self, before: &Self, _: &Wants) -> bool {
        *self < before / 2
    }
}

impl Fact for Vec<String> {
    fn alarms(&self, before: &Self, _: &Wants) -> bool {
        self != before
    }
}

impl Fact for Pressure {
    /// It never forbids.
    fn alarms(&self, _: &Self, _: &Wants) -> bool {
        false
    }
}

/// All that is gathered.
pub(super) struct Facts {
    pub idle: Sourced<Input>,
    /// Those whom the best source of `idle` may not see.
    pub others: Sourced<Input>,
    pub power: Sourced<Power>,
    pub temperature: Sourced<f64>,
    pub metered: Sourced<bool>,
    pub full_screen: Sourced<bool>,
    pub programs: Sourced<Vec<String>>,
    pub memory: Sourced<u64>,
    pub disk: Sourced<u64>,
    pub pressure: Sourced<Pressure>,
    /// Whether the system has announced that it goes to sleep.
    pub sleeping: bool,
    /// Holds sleep up, once it is announced, until it is dropped.
    pub sleep_delay: Option<SleepDelay>,
}

impl Facts {
    /// Nothing known yet.
    pub fn new() -> Self {
        Facts {
            idle: Sourced::from(IDLE_SOURCES),
            others: Sourced::from(OTHERS_SOURCES),
            power: Sourced::from(POWER_SOURCES),
            temperature: Sourced::from(&["the hardware's sensors"]),
            metered: Sourced::from(METERED_SOURCES),
            full_screen: Sourced::from(FULL_SCREEN_SOURCES),
            programs: Sourced::from(&["the list of processes"]),
            memory: Sourced::from(&["the system"]),
            disk: Sourced::from(&["the file system"]),
            pressure: Sourced::from(&["/proc/pressure"]),
            sleeping: false,
            sleep_delay: None,
        }
    }

    /// The observation that they make at this time.
    pub fn observation(&self, now: Mono) -> Observation {
        let idle = match self.input(now).0 {
            Reading::Known(input) => Reading::Known(input.idle(now)),
            Reading::Unknown(why) => Reading::Unknown(why),
        };
        Observation {
            idle,
            power: self.power.read().0,
            temperature_c: self.temperature.read().0,
            metered: self.metered.read().0,
            full_screen: self.full_screen.read().0,
            programs: self.programs.read().0,
            memory_free: self.memory.read().0,
            disk_free: self.disk.read().0,
            data_this_month: 0,
            pressure: self.pressure.read().0,
            sleeping: self.sleeping,
        }
    }

    /// When somebody last did something. Whoever has seen the latest input is right: the best source decides only where
    /// nobody else has seen any.
    fn input(&self, now: Mono) -> (Reading<Input>, Option<&'static str>) {
        let best = self.idle.read();
        if self.others.is_empty() {
            return best;
        }
        match (&best.0, self.others.read()) {
            (Reading::Unknown(_), _) => best,
            (Reading::Known(input), (Reading::Known(other), source)) if other.idle(now) < input.idle(now) => {
                (Reading::Known(other), source)
            }
            (Reading::Known(_), (Reading::Known(_), _)) => best,
            (Reading::Known(_), others @ (Reading::Unknown(_), _)) => others,
        }
    }

    /// Whether no fact waits for its first answer.
    pub fn ready(&self) -> bool {
        self.idle.ready()
            && (self.others.is_empty() || self.others.ready())
            && self.power.ready()
            && self.temperature.ready()
            && self.metered.ready()
            && self.full_screen.ready()
            && self.programs.ready()
            && self.memory.ready()
            && self.disk.ready()
            && self.pressure.ready()
    }

    /// Who says each fact, in the order of [`seen`].
    pub fn sources(&self) -> [Option<&'static str>; 9] {
        [
            self.input(clock::mono_now()).1,
            self.power.read().1,
            self.temperature.read().1,
            self.metered.read().1,
            self.full_screen.read().1,
            self.programs.read().1,
            self.memory.read().1,
            self.disk.read().1,
            self.pressure.read().1,
        ]
    }
}

/// An observation in words.
pub(super) fn seen(facts: &Observation, sources: [Option<&'static str>; 9]) -> Vec<Seen> {
    let yes_or_no = |yes: &bool| if *yes { "yes" } else { "no" }.to_owned();
    let power = |power: &Power| {
        let from = if power.on_mains { "on mains" } else { "on battery" };
        power.charge_percent.map_or(from.to_owned(), |percent| format!("{from}, {percent:.0} %"))
    };
    let programs = |names: &Vec<String>| if names.is_empty() { "none".into() } else { names.join(", ") };
    let pressure = |p: &Pressure| format!("cpu {:.0} %, memory {:.0} %, disk {:.0} %", p.cpu, p.memory, p.io);
    let words = [
        ("idle", words(&facts.idle, |idle| span(*idle))),
        ("power", words(&facts.power, power)),
        ("temperature", words(&facts.temperature_c, |celsius| format!("{celsius:.0} °C"))),
        ("metered", words(&facts.metered, yes_or_no)),
        ("full screen", words(&facts.full_screen, yes_or_no)),
        ("programs", words(&facts.programs, programs)),
        ("free memory", words(&facts.memory_free, |bytes| mebibytes(*bytes))),
        ("free disk", words(&facts.disk_free, |bytes| mebibytes(*bytes))),
        ("pressure", words(&facts.pressure, pressure)),
    ];
    let seen = words.into_iter().zip(sources);
    seen.map(|((name, (value, unknown)), source)| Seen { name, value, unknown, source }).collect()
}

fn words<T>(reading: &Reading<T>, show: impl Fn(&T) -> String) -> (Option<String>, Option<String>) {
    match reading {
        Reading::Known(value) => (Some(show(value)), None),
        Reading::Unknown(why) => (None, Some(why.clone())),
    }
}

/// A time in words.
fn span(time: Duration) -> String {
    match time.as_secs() {
        _ if time == Duration::MAX => "nobody can type here".into(),
        s @ 0..60 => format!("{s} s"),
        s @ 60..7200 => format!("{} min", s / 60),
        s => format!("{} h", s / 3600),
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Mono = Mono { ms: 10_000_000 };

    fn ago(seconds: u64) -> Reading<Input> {
        Reading::Known(Input::At(NOW - Duration::from_secs(seconds)))
    }

    /// How long nobody did anything, as the best source and the others tell together, and who says so.
    fn idle(best: Reading<Input>, others: Sourced<Input>) -> (Reading<Duration>, Option<&'static str>) {
        let facts = Facts { idle: Sourced::said("X11", best), others, ..Facts::new() };
        (facts.observation(NOW).idle, facts.input(NOW).1)
    }

    /// A second person, on another display or at a terminal, is a person too.
    #[test]
    fn whoever_did_something_last_counts() {
        let beside = |reading| Sourced::said("logind", reading);
        let seconds = |n| Reading::Known(Duration::from_secs(n));
        assert_eq!(idle(ago(900), beside(ago(5))), (seconds(5), Some("logind")));
        assert_eq!(idle(ago(900), beside(Reading::Known(Input::Now))), (seconds(0), Some("logind")));
        assert_eq!(idle(Reading::Known(Input::Never), beside(ago(5))), (seconds(5), Some("logind")));
        assert_eq!(idle(ago(5), beside(ago(900))), (seconds(5), Some("X11")));
        assert_eq!(idle(ago(5), beside(Reading::Known(Input::Never))), (seconds(5), Some("X11")));
    }

    #[test]
    fn of_whom_nothing_is_known_may_be_there() {
        let unknown = || Reading::<Input>::Unknown("it does not answer".into());
        let is_unknown = |reading: &Reading<Duration>| matches!(reading, Reading::Unknown(_));
        assert!(is_unknown(&idle(ago(900), Sourced::said("logind", unknown())).0));
        assert!(is_unknown(&idle(unknown(), Sourced::said("logind", ago(900))).0));
        assert!(is_unknown(&idle(ago(900), Sourced::from(&["logind"])).0), "it is still being asked");
        let nobody_else = idle(ago(900), Sourced::from(&[]));
        assert_eq!(nobody_else, (Reading::Known(Duration::from_secs(900)), Some("X11")), "there is nobody to ask");
    }
}
