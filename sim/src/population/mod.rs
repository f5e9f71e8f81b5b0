//! A population: groups of devices with their speeds, links, hours and habits, as a TOML file says.

mod dist;
mod owner;
mod presence;
#[cfg(test)]
mod tests;
mod traits;

pub use dist::{Dist, Drawn};
pub use owner::{Owner, Spell, Wanted};
pub use presence::Presence;
pub use traits::Traits;

use nightjar_shared::wire;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Most devices of a simulation.
pub const DEVICES_MAX: u64 = 2_000_000;

/// Who takes part, and over which links.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Population {
    /// What it is called in tables and plots.
    pub name: String,
    /// The hour of the day, UTC, at which virtual time starts.
    #[serde(default)]
    pub start_hour: f64,
    /// What the coordinator sends in all, Mbit/s; 0: no limit.
    #[serde(default)]
    pub coordinator_up_mbit: f64,
    /// What the coordinator receives in all, Mbit/s; 0: no limit.
    #[serde(default)]
    pub coordinator_down_mbit: f64,
    /// Devices of one kind each.
    pub group: Vec<Group>,
}

/// Devices that are alike. Keys that take a [`Dist`] may differ from device to device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// What its devices are called, with a number each.
    #[serde(default = "default::name")]
    pub name: String,
    /// How many.
    pub count: u32,
    /// What their invite makes them.
    #[serde(default)]
    pub role: Role,
    /// How fast each trains.
    pub tokens_per_s: Dist,
    /// By how much the speed differs from lease to lease: the standard deviation of its logarithm.
    #[serde(default)]
    pub tokens_per_s_jitter: f64,
    /// Link, toward the coordinator.
    #[serde(default = "default::up_mbit")]
    pub up_mbit: Dist,
    /// Link, from the coordinator.
    #[serde(default = "default::down_mbit")]
    pub down_mbit: Dist,
    /// How long anything takes on its way, one way.
    #[serde(default = "default::latency_ms")]
    pub latency_ms: Dist,
    /// A message takes up to so many times longer than that.
    #[serde(default)]
    pub latency_jitter: f64,
    /// Probability that the connection breaks during a blob's transfer.
    #[serde(default)]
    pub loss: f64,
    /// Probability that the connection breaks while a request is on its way.
    #[serde(default)]
    pub message_loss: f64,
    /// Memory free for training.
    #[serde(default = "default::memory_gib")]
    pub memory_gib: Dist,
    /// Space for shards, weights and state; 0: no limit. Using more is a broken promise.
    #[serde(default = "default::zero")]
    pub disk_gib: Dist,
    /// Hours that local time is ahead of UTC.
    #[serde(default = "default::zero")]
    pub time_zone_h: Dist,
    /// The hours of the day at which a device is on; without, always.
    #[serde(default)]
    pub online: Option<Hours>,
    /// Devices come and go, whatever the hour.
    #[serde(default)]
    pub churn: Option<Churn>,
    /// Owners use their computers now and then, and the policy that ships decides whether it trains; without, it always
    /// does.
    #[serde(default)]
    pub owner: Option<Owner>,
    /// Devices that send what they did not train.
    #[serde(default)]
    pub byzantine: Option<Byzantine>,
    /// Share of leases whose delta is never sent.
    #[serde(default)]
    pub deltas_lost: f64,
    /// How long a device that loses its delta is away, in seconds, on average.
    #[serde(default)]
    pub lost_away_s: f64,
}

/// What an invite makes of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It trains.
    #[default]
    Volunteer,
    /// It trains, and measures held-out loss where the dataset has held-out shards.
    Anchor,
    /// It only measures.
    Examiner,
}

impl Role {
    /// As in an invite.
    pub fn to_wire(self) -> wire::Role {
        if self == Role::Volunteer { wire::Role::Volunteer } else { wire::Role::Anchor }
    }
}

/// When a device is on, each day.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hours {
    /// The hour of the day, local time, at which it is switched on, give or take half an hour.
    pub from: f64,
    /// How many hours it stays on: between these two.
    pub hours: [f64; 2],
}

/// Spells of being on and off; both exponential.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Churn {
    /// Mean time on, in seconds.
    pub on_s: f64,
    /// Mean time off, in seconds.
    pub off_s: f64,
}

/// Devices that send what they did not train.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Byzantine {
    /// Share of the group's devices.
    pub share: f64,
    /// What they send.
    pub sends: Lie,
    /// How many times as long as what they trained; by default 10 with `scaled`, 1.9 with `patient`, else 1. With
    /// `skipped`: the share of their steps that they take, by default a half.
    #[serde(default)]
    pub factor: Option<f64>,
}

impl Byzantine {
    /// How many times what they trained, or which share of their steps they take.
    pub fn factor(&self) -> f64 {
        self.factor.unwrap_or(match self.sends {
            Lie::Scaled => 10.0,
            Lie::Patient => 1.9,
            Lie::Skipped => 0.5,
            Lie::Flipped | Lie::Random | Lie::Repeated | Lie::Reworked | Lie::Copied => 1.0,
        })
    }
}

/// What a liar sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lie {
    /// The opposite of what it trained.
    Flipped,
    /// Many times what it trained.
    Scaled,
    /// Noise of the norm of what it trained.
    Random,
    /// The opposite, a tenth longer with each lease, so that what others send never looks short beside it.
    Patient,
    /// The first delta that it ever trained, byte by byte.
    Repeated,
    /// The same with a little noise, so that its bytes are new.
    Reworked,
    /// One liar trains; the others send its delta with a little noise.
    Copied,
    /// It takes a share of its steps, stretches the delta to the length of all of them, and says that it took them all.
    Skipped,
}

mod default {
    use super::Dist;

    pub fn name() -> String {
        "device".into()
    }
    pub fn up_mbit() -> Dist {
        Dist::Fixed(20.0)
    }
    pub fn down_mbit() -> Dist {
        Dist::Fixed(100.0)
    }
    pub fn latency_ms() -> Dist {
        Dist::Fixed(50.0)
    }
    pub fn memory_gib() -> Dist {
        Dist::Fixed(8.0)
    }
    pub fn zero() -> Dist {
        Dist::Fixed(0.0)
    }
}

impl Group {
    /// `count` volunteers of this speed on the default link, always on.
    pub fn new(name: &str, count: u32, tokens_per_s: impl Into<Dist>) -> Self {
        Group {
            name: name.into(),
            count,
            role: Role::Volunteer,
            tokens_per_s: tokens_per_s.into(),
            tokens_per_s_jitter: 0.0,
            up_mbit: default::up_mbit(),
            down_mbit: default::down_mbit(),
            latency_ms: default::latency_ms(),
            latency_jitter: 0.0,
            loss: 0.0,
            message_loss: 0.0,
            memory_gib: default::memory_gib(),
            disk_gib: default::zero(),
            time_zone_h: default::zero(),
            online: None,
            churn: None,
            owner: None,
            byzantine: None,
            deltas_lost: 0.0,
            lost_away_s: 0.0,
        }
    }
}

/// A population's file that cannot be used, in one sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PopulationError {
    /// Line of the file, from 1; 0 if it is not known.
    pub line: usize,
    /// What is wrong, and what is allowed.
    pub message: String,
}

impl fmt::Display for PopulationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for PopulationError {}

impl FromStr for Population {
    type Err = PopulationError;

    fn from_str(text: &str) -> Result<Self, PopulationError> {
        let population: Population = toml::from_str(text).map_err(|e| {
            let at = e.span().map_or(0, |s| s.start.min(text.len()));
            let line = if e.span().is_some() { text[..at].matches('\n').count() + 1 } else { 0 };
            // A value of the wrong type: say whose.
            let key =
                text.lines().nth(line.saturating_sub(1)).and_then(|l| l.split_once('=')).map(|(key, _)| key.trim());
            let message = e.message().replace('\n', " ");
            let named = key.filter(|k| line > 0 && !message.contains(&format!("`{k}`")));
            PopulationError { line, message: named.map_or(message.clone(), |k| format!("{k}: {message}")) }
        })?;
        population
            .validate()
            .map_err(|(group, key, message)| PopulationError { line: line_of(text, group, key), message })?;
        Ok(population)
    }
}

/// The line of a key, in group number `group` (from 0) or before the first.
fn line_of(text: &str, group: Option<usize>, key: &str) -> usize {
    let (mut seen, mut head) = (0, 0);
    let wanted = group.map_or(0, |g| g + 1);
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.starts_with("[[group]]") {
            seen += 1;
            if seen == wanted {
                head = number + 1;
            }
        }
        let first = key.split('.').next().unwrap_or(key);
        let is_key = line.strip_prefix(first).is_some_and(|rest| rest.trim_start().starts_with('='));
        if seen == wanted && is_key {
            return number + 1;
        }
    }
    head
}

/// Where a fault is (group, key) and what it is.
type Fault = (Option<usize>, &'static str, String);

impl Population {
    /// All devices.
    pub fn devices(&self) -> u64 {
        self.group.iter().map(|g| u64::from(g.count)).sum()
    }

    /// Refuses what cannot be simulated, naming group, key and what is allowed.
    fn validate(&self) -> Result<(), Fault> {
        let top: [(&'static str, f64, f64, f64, &str); 3] = [
            ("start_hour", self.start_hour, 0.0, 24.0, "0 to 24"),
            ("coordinator_up_mbit", self.coordinator_up_mbit, 0.0, 1e9, "0 (no limit) or more"),
            ("coordinator_down_mbit", self.coordinator_down_mbit, 0.0, 1e9, "0 (no limit) or more"),
        ];
        for (key, value, least, most, allowed) in top {
            if !(least..=most).contains(&value) {
                return Err((None, key, format!("{key} is {value}; allowed is {allowed}")));
            }
        }
        for (number, group) in self.group.iter().enumerate() {
            if let Some((key, value, allowed)) = group.fault() {
                let message = format!("group \"{}\": {key} is {value}; allowed is {allowed}", group.name);
                return Err((Some(number), key, message));
            }
        }
        match self.devices() {
            1..=DEVICES_MAX => Ok(()),
            n => Err((None, "group", format!("there are {n} devices in all; allowed is 1 to {DEVICES_MAX}"))),
        }
    }
}

impl Group {
    /// The first key whose value is not allowed.
    fn fault(&self) -> Option<(&'static str, f64, &'static str)> {
        let dists: [(&'static str, &Dist, f64, f64, &'static str); 7] = [
            ("tokens_per_s", &self.tokens_per_s, 1e-3, 1e9, "0.001 to 1e9"),
            ("up_mbit", &self.up_mbit, 1e-4, 1e6, "0.0001 to 1000000"),
            ("down_mbit", &self.down_mbit, 1e-4, 1e6, "0.0001 to 1000000"),
            ("latency_ms", &self.latency_ms, 0.0, 60_000.0, "0 to 60000"),
            ("memory_gib", &self.memory_gib, 0.01, 1e6, "0.01 to 1000000"),
            ("disk_gib", &self.disk_gib, 0.0, 1e6, "0 (no limit) to 1000000"),
            ("time_zone_h", &self.time_zone_h, -12.0, 14.0, "-12 to 14"),
        ];
        let bad = dists
            .into_iter()
            .find_map(|(key, dist, least, most, allowed)| Some((key, dist.outside(least, most)?, allowed)));
        let hours = self.online.map_or([0.0, 1.0, 1.0], |o| [o.from, o.hours[0], o.hours[1]]);
        let churn = self.churn.map_or([1.0; 2], |c| [c.on_s, c.off_s]);
        let liars = self.byzantine.map_or([0.0, 1.0], |b| [b.share, b.factor()]);
        let numbers: [(&'static str, f64, f64, f64, &'static str); 13] = [
            ("tokens_per_s_jitter", self.tokens_per_s_jitter, 0.0, 2.0, "0 to 2"),
            ("latency_jitter", self.latency_jitter, 0.0, 1000.0, "0 to 1000"),
            ("loss", self.loss, 0.0, 0.9, "0 to 0.9"),
            ("message_loss", self.message_loss, 0.0, 0.9, "0 to 0.9"),
            ("online.from", hours[0], 0.0, 24.0, "0 to 24"),
            ("online.hours", hours[0].min(hours[1]), 0.0, 22.0, "two numbers from 0.1 to 22"),
            ("online.hours", hours[2], hours[1].max(0.1), 22.0, "two numbers from 0.1 to 22, the smaller first"),
            ("churn.on_s", churn[0], 1.0, 1e9, "1 to 1e9"),
            ("churn.off_s", churn[1], 1.0, 1e9, "1 to 1e9"),
            ("byzantine.share", liars[0], 0.0, 1.0, "0 to 1"),
            ("byzantine.factor", liars[1], 0.0, 1e9, "0 to 1e9"),
            ("deltas_lost", self.deltas_lost, 0.0, 0.99, "0 to 0.99"),
            ("lost_away_s", self.lost_away_s, 0.0, 1e9, "0 to 1e9"),
        ];
        let lengths =
            self.owner.iter().flat_map(Owner::lengths).map(|(key, length_s)| (key, length_s, 1.0, 1e9, "1 to 1e9"));
        let bad_number =
            numbers.into_iter().chain(lengths).find(|(_, value, least, most, _)| !(least..=most).contains(&value));
        bad.or(bad_number.map(|(key, value, _, _, allowed)| (key, value, allowed)))
    }
}
