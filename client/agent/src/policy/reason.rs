//! Reasons for not training: a kind for pages, icons and timelines, and one true sentence for people.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What holds training back. What waits for the owner or outlasts the others comes first, and is the reason that is
/// given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonKind {
    /// The agent is just starting, and has looked at nothing yet.
    Starting,
    /// This computer is in no run.
    NotJoined,
    /// The run is over.
    RunOver,
    /// The computer is going to sleep.
    Asleep,
    /// The owner has paused it.
    Paused,
    /// The owner has switched training off.
    Off,
    /// Nobody knows whether somebody uses the computer.
    UnknownIdle,
    /// Nobody knows whether it is plugged in.
    UnknownPower,
    /// Nobody knows how hot it is.
    UnknownTemperature,
    /// Nobody knows whether the network is metered.
    UnknownMetered,
    /// Nobody knows whether a window covers a screen.
    UnknownFullScreen,
    /// Nobody knows which programs run.
    UnknownPrograms,
    /// Nobody knows how much memory is free.
    UnknownMemory,
    /// Nobody knows how much of the disk is free.
    UnknownDisk,
    /// The month's data is used up.
    DataCap,
    /// It is outside the owner's hours.
    Schedule,
    /// The computer is not plugged in.
    Battery,
    /// The battery is not full enough.
    Charge,
    /// The network is paid for by the byte.
    Metered,
    /// Little memory is free.
    Memory,
    /// Little disk space is free.
    Disk,
    /// The computer is hot.
    Temperature,
    /// A window covers a whole screen.
    FullScreen,
    /// A program that the owner named runs.
    Program,
    /// Somebody uses the computer.
    InUse,
    /// Leases came to nothing, one after another.
    Fruitless,
}

impl ReasonKind {
    /// Whether it is about the owner's safety rather than their comfort: "run now" does not win over these.
    pub fn is_safety(self) -> bool {
        use ReasonKind::{Asleep, Disk, Memory, Temperature, UnknownDisk, UnknownMemory, UnknownTemperature};
        matches!(self, Asleep | Temperature | Memory | Disk | UnknownTemperature | UnknownMemory | UnknownDisk)
    }

    /// How soon training is to stop for it.
    pub fn hurry(self) -> Hurry {
        use ReasonKind::{
            Asleep, Charge, DataCap, Disk, Fruitless, Memory, Metered, NotJoined, RunOver, Schedule, Starting,
            UnknownDisk, UnknownMetered,
        };
        match self {
            Asleep => Hurry::Sleep,
            Memory => Hurry::NowWithMemory,
            Charge | DataCap | Disk | Fruitless | Metered | NotJoined | RunOver | Schedule | Starting | UnknownDisk
            | UnknownMetered => Hurry::None,
            _ => Hurry::Now,
        }
    }

    /// Whether it is about the network, which then is not used for anything.
    pub fn spares_network(self) -> bool {
        matches!(self, ReasonKind::Metered | ReasonKind::UnknownMetered | ReasonKind::DataCap)
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
