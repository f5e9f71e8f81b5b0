//! The owner's preferences. One table, [`PREFERENCES`], holds each one's key, help, what is allowed, and how it is read
//! and shown; the file's reader, the environment's, the flags, their help, the page and docs/preferences.md derive from
//! it.
//!
//! [`PreferencesFile`] lays them over each other: defaults, then the file `prefs.toml`, then the environment, then
//! flags.

mod edit;
mod error;
mod file;
mod layers;
mod migrate;
mod preference;
mod row;
mod table;
mod template;
mod week;

pub use error::PreferencesError;
pub use file::{LAST_GOOD_FILE, PREFERENCES_FILE, PreferencesFile};
pub use layers::Source;
pub use migrate::FLAGS_BEFORE;
pub use preference::{Choice, Group, Kind, Preference};
pub use row::Row;
pub use table::PREFERENCES;
pub use template::{document, template};
pub use week::Week;

use nightjar_shared::public_name::PublicName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The version of the file's format: its key `version`.
pub const VERSION: i64 = 2;

/// Whose comfort counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The owner's: all conditions hold.
    Considerate,
    /// The run's: only heat, short memory and a full disk hold, as far as they can be seen. For anchor nodes.
    Always,
}

/// A sensor whose silence the owner can waive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sensor {
    /// The owner's last input.
    Idle,
    /// Mains and battery.
    Power,
    /// Temperature.
    Temperature,
    /// Whether the network is paid for by the byte.
    Metered,
    /// Full-screen windows.
    FullScreen,
    /// Running programs.
    Programs,
    /// Free memory.
    Memory,
    /// Free disk space.
    Disk,
}

impl Sensor {
    /// All of them.
    pub const ALL: [Sensor; 8] = [
        Sensor::Idle,
        Sensor::Power,
        Sensor::Temperature,
        Sensor::Metered,
        Sensor::FullScreen,
        Sensor::Programs,
        Sensor::Memory,
        Sensor::Disk,
    ];

    /// Its name in the preferences.
    pub fn name(self) -> &'static str {
        match self {
            Sensor::Idle => "idle",
            Sensor::Power => "power",
            Sensor::Temperature => "temperature",
            Sensor::Metered => "metered",
            Sensor::FullScreen => "full_screen",
            Sensor::Programs => "programs",
            Sensor::Memory => "memory",
            Sensor::Disk => "disk",
        }
    }
}

/// What training may take of the computer in one situation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Share of the time that it may compute, 1 to 100 percent; `None`: it does not train at all.
    pub duty_percent: Option<u8>,
    /// Threads on the CPU; 0: half of the cores.
    pub threads: u64,
    /// Most memory of the worker, in MiB; `None`: no cap.
    pub memory_mib_max: Option<u64>,
}

/// What the owner wants. `None` is a condition that is switched off.
#[derive(Clone, Debug, PartialEq)]
pub struct Preferences {
    /// Whose comfort counts.
    pub policy: Policy,
    /// Minutes without input after which nobody uses the computer; `None`: nobody ever does.
    pub idle_minutes: Option<u64>,
    /// The hours of the week in which it may train.
    pub schedule: Week,
    /// Whether it trains on battery at all.
    pub on_battery: bool,
    /// How full the battery must be to train on it, in percent.
    pub charge_percent_min: Option<u64>,
    /// The hottest that the computer may be, in °C.
    pub temperature_c_max: Option<u64>,
    /// Whether it holds on a network that is paid for by the byte.
    pub hold_on_metered: bool,
    /// Whether it holds while a window covers a whole screen.
    pub hold_on_full_screen: bool,
    /// Programs beside which it does not train.
    pub programs: Vec<String>,
    /// The share of the time that other programs may wait, in percent, before training slows down.
    pub pressure_percent_max: Option<u64>,
    /// Memory that must stay free, in MiB.
    pub memory_mib_min: Option<u64>,
    /// Disk space that must stay free, in MiB.
    pub disk_mib_min: Option<u64>,
    /// Most data in a calendar month, up and down together, in MiB.
    pub data_mib_month_max: Option<u64>,
    /// Sensors whose silence does not forbid.
    pub waive: BTreeSet<Sensor>,
    /// While nobody uses the computer.
    pub away: Profile,
    /// While somebody does.
    pub in_use: Profile,
    /// What trains, as `nightjar-train` reads it.
    pub device: String,
    /// Most tokens a second; 0: no cap.
    pub tokens_per_s_max: f64,
    /// Seconds between two checkpoints of a lease, at most 60.
    pub checkpoint_s: u64,
    /// Whether the worker ends when it yields, so that its memory is free at once.
    pub free_memory_on_yield: bool,
    /// Most that the home folder may hold, in MiB.
    pub quota_mib_max: Option<u64>,
    /// Most that checkpoints may write in a day, in MiB.
    pub write_mib_day_max: Option<u64>,
    /// The name to be shown on the run's public page; `None`: none is.
    pub public_name: Option<PublicName>,
}

impl Default for Preferences {
    fn default() -> Self {
        Preferences {
            policy: Policy::Considerate,
            idle_minutes: Some(10),
            schedule: Week::always(),
            on_battery: false,
            charge_percent_min: Some(80),
            temperature_c_max: Some(85),
            hold_on_metered: true,
            hold_on_full_screen: true,
            programs: vec![],
            pressure_percent_max: Some(30),
            memory_mib_min: Some(256),
            disk_mib_min: Some(1024),
            data_mib_month_max: None,
            waive: BTreeSet::new(),
            away: Profile { duty_percent: Some(100), threads: 0, memory_mib_max: None },
            in_use: Profile { duty_percent: None, threads: 1, memory_mib_max: None },
            device: "auto".into(),
            tokens_per_s_max: 0.0,
            checkpoint_s: 20,
            free_memory_on_yield: true,
            quota_mib_max: Some(20_480),
            write_mib_day_max: Some(20_480),
            public_name: None,
        }
    }
}

impl Preferences {
    /// Sets one; `place` says where the value stands, for the error. `default` sets what holds without a word.
    pub fn set(&mut self, place: &str, key: &str, value: &str) -> Result<(), PreferencesError> {
        let preference = Preference::find(key).ok_or_else(|| PreferencesError::unknown_key(place, key))?;
        let default = (preference.get)(&Preferences::default());
        let value = if value.trim().eq_ignore_ascii_case("default") { default.as_str() } else { value.trim() };
        // But for names, no value has capitals that mean something.
        let is_named = matches!(preference.kind, Kind::Programs | Kind::Name);
        let plain = if is_named { value.to_owned() } else { value.to_lowercase() };
        (preference.set)(self, &plain).ok_or_else(|| PreferencesError::bad_value(place, preference, value))
    }

    /// Threads to train with on a computer of `cores` cores while nobody uses it.
    pub fn threads_on(&self, cores: usize) -> usize {
        threads_on(self.away.threads as usize, cores)
    }
}

/// Threads to train with on a computer of `cores` cores, where the owner says so many; 0: half of the cores.
pub fn threads_on(threads: usize, cores: usize) -> usize {
    if threads == 0 { (cores / 2).max(1) } else { threads }
}

#[cfg(test)]
mod tests;
