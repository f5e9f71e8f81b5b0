//! The owner's preferences: `prefs.toml` in the home folder. One table, [`PREFERENCES`], holds each one's key, help,
//! what is allowed, and how it is read and shown; the file's reader, the command line's flags and their help derive from it.

use std::path::Path;

/// The preferences' file in the home folder.
pub const PREFERENCES_FILE: &str = "prefs.toml";

/// When the owner lets it train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Whenever it runs.
    Always,
    /// When nobody has used the computer for a while.
    Idle,
    /// Within hours of the day.
    Schedule,
}

/// Hours of the day, in local time; may cross midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    /// From this time on.
    pub start: jiff::civil::Time,
    /// Up to this time.
    pub end: jiff::civil::Time,
}

/// What the owner wants.
#[derive(Clone, Debug, PartialEq)]
pub struct Preferences {
    /// When to train.
    pub policy: Policy,
    /// Minutes without input after which the computer counts as idle.
    pub idle_minutes: u64,
    /// The hours of the schedule.
    pub schedule: Hours,
    /// What trains, as `nightjar-train` reads it.
    pub device: String,
    /// Threads for training on the CPU; 0: half of the cores.
    pub threads: u64,
    /// Most tokens a second; 0: no cap.
    pub tokens_per_s_max: f64,
    /// Memory that must be free, in MiB.
    pub memory_mib_min: u64,
    /// Seconds between two checkpoints of a lease.
    pub checkpoint_s: u64,
}

impl Default for Preferences {
    fn default() -> Self {
        Preferences {
            policy: Policy::Idle,
            idle_minutes: 10,
            schedule: Hours { start: jiff::civil::time(22, 0, 0, 0), end: jiff::civil::time(7, 0, 0, 0) },
            device: "auto".into(),
            threads: 0,
            tokens_per_s_max: 0.0,
            memory_mib_min: 256,
            checkpoint_s: 20,
        }
    }
}

/// One preference.
pub struct Preference {
    /// Its key in the file.
    pub key: &'static str,
    /// Its flag: the key with hyphens.
    pub flag: &'static str,
    /// The placeholder for its value.
    pub value_name: &'static str,
    /// What it does, in a sentence.
    pub help: &'static str,
    /// What it may be.
    pub allowed: &'static str,
    set: fn(&mut Preferences, &str) -> Option<()>,
    /// Its value as text.
    pub get: fn(&Preferences) -> String,
}

/// All of them.
pub const PREFERENCES: &[Preference] = &[
    Preference {
        key: "policy",
        flag: "policy",
        value_name: "POLICY",
        help: "When to train: always, when the computer is idle, or within the hours of the schedule",
        allowed: "always, idle or schedule",
        set: |p, text| {
            p.policy = match text {
                "always" => Policy::Always,
                "idle" => Policy::Idle,
                "schedule" => Policy::Schedule,
                _ => return None,
            };
            Some(())
        },
        get: |p| format!("{:?}", p.policy).to_lowercase(),
    },
    Preference {
        key: "idle_minutes",
        flag: "idle-minutes",
        value_name: "MINUTES",
        help: "Minutes without keyboard or terminal input after which the computer counts as idle",
        allowed: "a whole number from 1 to 1440",
        set: |p, text| number(text, 1..=1440).map(|n| p.idle_minutes = n),
        get: |p| p.idle_minutes.to_string(),
    },
    Preference {
        key: "schedule",
        flag: "schedule",
        value_name: "HH:MM-HH:MM",
        help: "Hours of the schedule, in local time; they may cross midnight",
        allowed: "two different times such as 22:00-07:00",
        set: |p, text| hours(text).map(|h| p.schedule = h),
        get: |p| format!("{}-{}", p.schedule.start.strftime("%H:%M"), p.schedule.end.strftime("%H:%M")),
    },
    Preference {
        key: "device",
        flag: "device",
        value_name: "DEVICE",
        help: "What trains: auto, flex (the CPU), wgpu (a GPU) or wgpu:N (the N-th GPU)",
        allowed: "auto, flex, wgpu or wgpu:N",
        set: |p, text| {
            let numbered = text.strip_prefix("wgpu:").is_some_and(|n| n.parse::<u16>().is_ok());
            (numbered || ["auto", "flex", "wgpu"].contains(&text)).then(|| p.device = text.into())
        },
        get: |p| p.device.clone(),
    },
    Preference {
        key: "threads",
        flag: "threads",
        value_name: "THREADS",
        help: "Threads for training on the CPU; 0 takes half of the cores",
        allowed: "a whole number from 0 to 1024",
        set: |p, text| number(text, 0..=1024).map(|n| p.threads = n),
        get: |p| p.threads.to_string(),
    },
    Preference {
        key: "tokens_per_s_max",
        flag: "tokens-per-s-max",
        value_name: "TOKENS",
        help: "Most tokens to train on in a second; 0 means no cap",
        allowed: "a number of 0 or more",
        set: |p, text| {
            let n: f64 = text.parse().ok()?;
            (n >= 0.0 && n.is_finite()).then(|| p.tokens_per_s_max = n)
        },
        get: |p| p.tokens_per_s_max.to_string(),
    },
    Preference {
        key: "memory_mib_min",
        flag: "memory-mib-min",
        value_name: "MIB",
        help: "Memory that must stay free, in MiB; below it, training holds",
        allowed: "a whole number from 0 to 1048576",
        set: |p, text| number(text, 0..=1 << 20).map(|n| p.memory_mib_min = n),
        get: |p| p.memory_mib_min.to_string(),
    },
    Preference {
        key: "checkpoint_s",
        flag: "checkpoint-s",
        value_name: "SECONDS",
        help: "Seconds between two checkpoints of a lease: at most this much training is lost in a crash",
        allowed: "a whole number from 1 to 3600",
        set: |p, text| number(text, 1..=3600).map(|n| p.checkpoint_s = n),
        get: |p| p.checkpoint_s.to_string(),
    },
];

/// Preferences that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PreferencesError {
    /// The disk refused.
    #[error("cannot read {file}: {source}")]
    Read {
        /// The file.
        file: String,
        /// The disk's words.
        source: std::io::Error,
    },
    /// Not TOML.
    #[error("{file} is not valid TOML: {why}")]
    NotToml {
        /// The file.
        file: String,
        /// The parser's words.
        why: String,
    },
    /// A key that does not exist.
    #[error("{place}: there is no preference `{key}`; there are {known}")]
    UnknownKey {
        /// The file, or the command line.
        place: String,
        /// The key.
        key: String,
        /// The keys that exist.
        known: String,
    },
    /// A value that is not allowed.
    #[error("{place}: `{key}` is `{value}`; allowed is {allowed}")]
    BadValue {
        /// The file, or the command line.
        place: String,
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
}

impl Preferences {
    /// Reads the file; the defaults if there is none.
    pub fn load(path: &Path) -> Result<Self, PreferencesError> {
        let file = path.display().to_string();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(PreferencesError::Read { file, source }),
        };
        let table: toml::Table = text
            .parse()
            .map_err(|e: toml::de::Error| PreferencesError::NotToml { file: file.clone(), why: e.message().into() })?;
        let mut preferences = Self::default();
        for (key, value) in &table {
            let value = match value {
                toml::Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            preferences.set(&file, key, &value)?;
        }
        Ok(preferences)
    }

    /// Sets one; `place` says where the value stands, for the error.
    pub fn set(&mut self, place: &str, key: &str, value: &str) -> Result<(), PreferencesError> {
        let Some(preference) = PREFERENCES.iter().find(|p| p.key == key) else {
            let known = PREFERENCES.iter().map(|p| p.key).collect::<Vec<_>>().join(", ");
            return Err(PreferencesError::UnknownKey { place: place.into(), key: key.into(), known });
        };
        (preference.set)(self, value.trim()).ok_or_else(|| PreferencesError::BadValue {
            place: place.into(),
            key: preference.key,
            value: value.into(),
            allowed: preference.allowed,
        })
    }

    /// Threads to train with on a computer of `cores` cores.
    pub fn threads_on(&self, cores: usize) -> usize {
        if self.threads == 0 { (cores / 2).max(1) } else { self.threads as usize }
    }
}

fn number(text: &str, allowed: std::ops::RangeInclusive<u64>) -> Option<u64> {
    text.parse().ok().filter(|n| allowed.contains(n))
}

fn hours(text: &str) -> Option<Hours> {
    let (start, end) = text.split_once('-')?;
    let time = |t: &str| jiff::civil::Time::strptime("%H:%M", t.trim()).ok();
    let hours = Hours { start: time(start)?, end: time(end)? };
    (hours.start != hours.end).then_some(hours)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Preferences, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(PREFERENCES_FILE);
        std::fs::write(&file, text).unwrap();
        Preferences::load(&file).map_err(|e| e.to_string())
    }

    #[test]
    fn a_file_is_read() {
        let p = load("policy = \"schedule\"\nschedule = \"23:30-06:15\"\nthreads = 3\ntokens_per_s_max = 1.5e3\n").unwrap();
        assert_eq!((p.policy, p.threads, p.tokens_per_s_max), (Policy::Schedule, 3, 1500.0));
        assert_eq!(p.schedule.end, jiff::civil::time(6, 15, 0, 0));
        assert_eq!(Preferences::load(Path::new("nowhere/prefs.toml")).unwrap(), Preferences::default());
    }

    #[test]
    fn a_mistake_is_told_with_file_key_and_what_is_allowed() {
        let told = load("idle_minutes = 0").unwrap_err();
        assert!(told.ends_with("prefs.toml: `idle_minutes` is `0`; allowed is a whole number from 1 to 1440"), "{told}");
        assert!(load("polcy = \"idle\"").unwrap_err().contains("no preference `polcy`; there are policy, idle_minutes"));
        assert!(load("policy = ").unwrap_err().contains("not valid TOML"));
        for bad in ["schedule = \"22:00\"", "schedule = \"22:00-22:00\"", "schedule = \"25:00-01:00\"", "device = \"cuda:x\""] {
            assert!(load(bad).unwrap_err().contains("allowed is"), "{bad}");
        }
    }

    /// What the table shows for a default reads back to that default, and is what the table says is allowed.
    #[test]
    fn every_default_survives_text_and_every_flag_is_its_key() {
        let defaults = Preferences::default();
        let mut again = Preferences { idle_minutes: 77, threads: 7, device: "flex".into(), ..Preferences::default() };
        for preference in PREFERENCES {
            assert_eq!(preference.flag, preference.key.replace('_', "-"));
            again.set("test", preference.key, &(preference.get)(&defaults)).unwrap();
        }
        assert_eq!(again, defaults);
    }
}
