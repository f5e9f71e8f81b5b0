//! A group's owners: their habits, and what they want, in the words of `prefs.toml`.

use nightjar_session::preferences::{Preference, Preferences};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The preferences that a simulation heeds: it has no programs, no heat, and no memory or disk that others fill.
const HEEDED: [&str; 13] = [
    "policy",
    "idle_minutes",
    "schedule",
    "on_battery",
    "charge_percent_min",
    "hold_on_metered",
    "hold_on_full_screen",
    "away_duty_percent",
    "in_use_duty_percent",
    "tokens_per_s_max",
    "checkpoint_s",
    "free_memory_on_yield",
    "waive",
];

/// Owners use their computers now and then. Spells are exponential, whatever the hour.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// Mean time away, in seconds.
    pub away_s: f64,
    /// Mean time at the computer, in seconds: there is input all the while.
    pub there_s: f64,
    /// The computer runs on its battery.
    #[serde(default)]
    pub unplugged: Option<Spell>,
    /// The network is paid for by the byte.
    #[serde(default)]
    pub metered: Option<Spell>,
    /// A window covers the screen.
    #[serde(default)]
    pub full_screen: Option<Spell>,
    /// What they want, where it is not what holds without a word.
    #[serde(default)]
    pub preferences: Wanted,
}

/// What is the case now and then.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spell {
    /// Mean time between two, in seconds.
    pub every_s: f64,
    /// Mean length, in seconds.
    pub for_s: f64,
}

/// Preferences, and how they were said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, toml::Value>", into = "BTreeMap<String, toml::Value>")]
pub struct Wanted {
    said: BTreeMap<String, toml::Value>,
    preferences: Preferences,
}

impl Owner {
    /// Away and there for so long on average, in seconds.
    pub fn new(away_s: f64, there_s: f64) -> Self {
        let preferences = Wanted::default();
        Owner { away_s, there_s, unplugged: None, metered: None, full_screen: None, preferences }
    }

    /// Its lengths of time, by their keys.
    pub(super) fn lengths(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let spells = [
            ("owner.unplugged.every_s", "owner.unplugged.for_s", self.unplugged),
            ("owner.metered.every_s", "owner.metered.for_s", self.metered),
            ("owner.full_screen.every_s", "owner.full_screen.for_s", self.full_screen),
        ];
        let of_spells = spells.into_iter().filter_map(|(every, long, spell)| Some((every, long, spell?)));
        let of_spells = of_spells.flat_map(|(every, long, spell)| [(every, spell.every_s), (long, spell.for_s)]);
        [("owner.away_s", self.away_s), ("owner.there_s", self.there_s)].into_iter().chain(of_spells)
    }
}

impl Wanted {
    /// These keys have these values; an error says what is wrong with the first that cannot.
    pub fn said<'a>(values: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, String> {
        values.into_iter().map(|(key, value)| (key.into(), value.into())).collect::<BTreeMap<_, _>>().try_into()
    }

    /// As the policy takes them.
    pub fn preferences(&self) -> &Preferences {
        &self.preferences
    }
}

impl TryFrom<BTreeMap<String, toml::Value>> for Wanted {
    type Error = String;

    fn try_from(said: BTreeMap<String, toml::Value>) -> Result<Self, String> {
        let mut preferences = Preferences::default();
        for (key, value) in &said {
            if !HEEDED.contains(&key.as_str()) && Preference::find(key).is_some() {
                return Err(format!(
                    "owner.preferences: {key} changes nothing in a simulation; {} do",
                    HEEDED.join(", ")
                ));
            }
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            preferences.set("owner.preferences", key, &text).map_err(|e| e.to_string())?;
        }
        Ok(Wanted { said, preferences })
    }
}

impl From<Wanted> for BTreeMap<String, toml::Value> {
    fn from(wanted: Wanted) -> Self {
        wanted.said
    }
}
