//! Reasons for not training. The table has one row a reason: what it is, how it holds training, and what the owner is
//! told of it. Policy, page and command line read the row; the sentence for people is made where the reason is found.

use crate::preferences::Sensor;
use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

/// What a reason is like, whatever its sentence says.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// How soon training stops for it.
    pub hurry: Hurry,
    /// Whether it is about the owner's safety rather than their comfort: "run now" does not win over these.
    pub is_safety: bool,
    /// Whether it is about the network, which then is not used for anything.
    pub spares_network: bool,
    /// It must have been gone for so long, in seconds, before training goes on.
    pub settle_s: u64,
    /// What was the case, once it is over.
    pub was: &'static str,
    /// What it holds for.
    pub cause: Cause,
    /// What ends it, where nobody knows when.
    pub ends: &'static str,
    /// The preference that the owner would change to end it, where that may well be what they want.
    pub preference: Option<&'static str>,
    /// The question that a silent sensor leaves open.
    pub open: &'static str,
}

/// What most reasons have in common.
const HOLD: Row = Row {
    hurry: Hurry::Now,
    is_safety: false,
    spares_network: false,
    settle_s: 30,
    was: "something forbade it",
    cause: Cause::Machine,
    ends: "It goes on by itself once that is over.",
    preference: None,
    open: "whether it may train",
};

/// A sensor that cannot tell: what it leaves open, and how that is said afterwards.
const fn silent(open: &'static str, was: &'static str) -> Row {
    Row {
        was,
        open,
        cause: Cause::Unknown,
        ends: "It goes on once it can tell, or once you waive that.",
        preference: Some("waive"),
        ..HOLD
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $kind:ident => $row:expr,)*) => {
        /// What holds training back. What waits for the owner or outlasts the others comes first, and is the reason
        /// that is given.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum ReasonKind {
            $($(#[$doc])* $kind,)*
        }

        impl ReasonKind {
            /// All of them, in their order.
            pub const ALL: &[ReasonKind] = &[$(ReasonKind::$kind),*];

            /// Its row of the table.
            pub const fn row(self) -> Row {
                match self {
                    $(ReasonKind::$kind => $row,)*
                }
            }
        }
    };
}

reasons! {
    /// The agent is just starting, and has looked at nothing yet.
    Starting => Row { hurry: Hurry::None, ..HOLD },
    /// This computer is in no run.
    NotJoined => Row { hurry: Hurry::None, cause: Cause::Owner, ..HOLD },
    /// The run is over.
    RunOver => Row { hurry: Hurry::None, cause: Cause::NoWork, ..HOLD },
    /// The computer is going to sleep.
    Asleep => Row { hurry: Hurry::Sleep, is_safety: true, ..HOLD },
    /// The owner has paused it.
    Paused => Row { cause: Cause::Owner, ..HOLD },
    /// The owner has switched training off.
    Off => Row {
        cause: Cause::Owner,
        ends: "It stays so until you change your preferences.",
        preference: Some("away_duty_percent"),
        ..HOLD
    },
    /// Nobody knows whether somebody uses the computer.
    UnknownIdle => silent("whether the computer is in use", "it was unknown whether the computer was in use"),
    /// Nobody knows whether it is plugged in.
    UnknownPower => silent(
        "whether the computer is plugged in",
        "it was unknown whether the computer was plugged in",
    ),
    /// Nobody knows how hot it is.
    UnknownTemperature => Row {
        is_safety: true,
        settle_s: 60,
        ..silent("how hot the computer is", "it was unknown how hot the computer was")
    },
    /// Nobody knows whether the network is metered.
    UnknownMetered => Row {
        hurry: Hurry::None,
        spares_network: true,
        ..silent("whether the network is metered", "it was unknown whether the network was metered")
    },
    /// Nobody knows whether a window covers a screen.
    UnknownFullScreen => silent(
        "whether a window covers the screen",
        "it was unknown whether a window covered the screen",
    ),
    /// Nobody knows which programs run.
    UnknownPrograms => silent("which programs run", "it was unknown which programs ran"),
    /// Nobody knows how much memory is free.
    UnknownMemory => Row {
        is_safety: true,
        settle_s: 300,
        ..silent("how much memory is free", "it was unknown how much memory was free")
    },
    /// Nobody knows how much of the disk is free.
    UnknownDisk => Row {
        hurry: Hurry::None,
        is_safety: true,
        settle_s: 60,
        ..silent("how much disk space is free", "it was unknown how much disk space was free")
    },
    /// The month's data is used up.
    DataCap => Row {
        hurry: Hurry::None,
        spares_network: true,
        cause: Cause::Owner,
        preference: Some("data_mib_month_max"),
        ..HOLD
    },
    /// It is outside the owner's hours.
    Schedule => Row { hurry: Hurry::None, cause: Cause::Owner, preference: Some("schedule"), ..HOLD },
    /// The computer is not plugged in.
    Battery => Row { was: "the computer ran on battery", preference: Some("on_battery"), ..HOLD },
    /// The battery is not full enough.
    Charge => Row { hurry: Hurry::None, was: "the battery was too low", ..HOLD },
    /// The network is paid for by the byte.
    Metered => Row {
        hurry: Hurry::None,
        spares_network: true,
        was: "the network was metered",
        preference: Some("hold_on_metered"),
        ..HOLD
    },
    /// Little memory is free.
    Memory => Row {
        hurry: Hurry::NowWithMemory,
        is_safety: true,
        // What training held itself is free as soon as it holds.
        settle_s: 300,
        was: "too little memory was free",
        preference: Some("memory_mib_min"),
        ..HOLD
    },
    /// Little disk space is free.
    Disk => Row {
        hurry: Hurry::None,
        is_safety: true,
        settle_s: 60,
        was: "too little disk space was free",
        preference: Some("disk_mib_min"),
        ..HOLD
    },
    /// The computer is hot.
    Temperature => Row { is_safety: true, settle_s: 60, was: "the computer was too hot", ..HOLD },
    /// A window covers a whole screen.
    FullScreen => Row {
        was: "a window covered the screen, or a program kept it on",
        cause: Cause::Use,
        ..HOLD
    },
    /// A program that the owner named runs.
    Program => Row {
        was: "a program that you named ran",
        cause: Cause::Use,
        preference: Some("programs"),
        ..HOLD
    },
    /// Somebody uses the computer.
    InUse => Row { cause: Cause::Use, ..HOLD },
    /// Leases came to nothing, one after another.
    Fruitless => Row { hurry: Hurry::None, cause: Cause::NoWork, ..HOLD },
}

impl ReasonKind {
    /// What forbade must have been gone for so long.
    pub const fn settle(self) -> Duration {
        Duration::from_secs(self.row().settle_s)
    }

    /// The reason that this sensor's silence is.
    pub(super) const fn of_silent(sensor: Sensor) -> Self {
        match sensor {
            Sensor::Idle => ReasonKind::UnknownIdle,
            Sensor::Power => ReasonKind::UnknownPower,
            Sensor::Temperature => ReasonKind::UnknownTemperature,
            Sensor::Metered => ReasonKind::UnknownMetered,
            Sensor::FullScreen => ReasonKind::UnknownFullScreen,
            Sensor::Programs => ReasonKind::UnknownPrograms,
            Sensor::Memory => ReasonKind::UnknownMemory,
            Sensor::Disk => ReasonKind::UnknownDisk,
        }
    }
}

/// How soon the computer must be its owner's again; the greatest of all reasons' counts, whichever is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hurry {
    /// The step at hand may be finished, and what was trained delivered.
    None,
    /// The owner feels it: this instant.
    Now,
    /// This instant, and what is held of the memory as well.
    NowWithMemory,
    /// The computer goes to sleep: it waits a moment for the training state to be saved.
    Sleep,
}

/// What a hold is for; the page colours the day by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The owner's word or schedule.
    Owner,
    /// Somebody who uses the computer.
    Use,
    /// The computer itself.
    Machine,
    /// A sensor that cannot tell.
    Unknown,
    /// It may train, and there is nothing to train.
    NoWork,
}

/// Why training holds: exactly one reason, and a true one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// What it is about.
    pub kind: ReasonKind,
    /// What is the case, and what would change it. Without a full stop, starting small, so that it can follow a name.
    pub sentence: String,
}

impl Reason {
    /// A reason in these words.
    pub fn new(kind: ReasonKind, sentence: impl Into<String>) -> Self {
        Reason { kind, sentence: sentence.into() }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preferences::PREFERENCES;

    /// The page's button goes to the preference of this name.
    #[test]
    fn a_reason_names_only_preferences_that_there_are() {
        for kind in ReasonKind::ALL {
            let key = kind.row().preference;
            assert!(key.is_none_or(|key| PREFERENCES.iter().any(|preference| preference.key == key)), "{kind:?}");
        }
    }

    #[test]
    fn a_silent_sensor_is_a_reason_that_says_so() {
        for kind in Sensor::ALL.map(ReasonKind::of_silent) {
            let row = kind.row();
            assert_eq!((row.cause, row.was.starts_with("it was unknown ")), (Cause::Unknown, true), "{kind:?}");
        }
    }
}
