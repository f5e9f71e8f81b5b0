//! What the sensors see: the facts that the policy judges.

use std::time::Duration;

/// What a sensor says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading<T> {
    /// It knows.
    Known(T),
    /// It does not, for this reason: "… cannot be asked".
    Unknown(String),
}

impl<T> Reading<T> {
    /// What it knows.
    pub fn known(&self) -> Option<&T> {
        match self {
            Reading::Known(value) => Some(value),
            Reading::Unknown(_) => None,
        }
    }
}

/// Where the computer's power comes from. One without a battery is on mains.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Power {
    /// Whether it is plugged in.
    pub on_mains: bool,
    /// How full the battery is, 0 to 100; `None` without one.
    pub charge_percent: Option<f64>,
}

/// How long programs had to wait for the computer lately: shares of the last ten seconds in percent, as
/// `/proc/pressure` gives them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// Waiting for a processor.
    pub cpu: f64,
    /// Waiting for memory.
    pub memory: f64,
    /// Waiting for a disk.
    pub io: f64,
}

impl Pressure {
    /// The share of the scarcest.
    pub fn worst(&self) -> f64 {
        self.cpu.max(self.memory).max(self.io)
    }
}

/// What all sensors say at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// Time since the owner's last input; `Duration::MAX` where nobody can type.
    pub idle: Reading<Duration>,
    /// Mains and battery.
    pub power: Reading<Power>,
    /// The hottest sensor of processor and GPU, in °C.
    pub temperature_c: Reading<f64>,
    /// Whether the network is paid for by the byte.
    pub metered: Reading<bool>,
    /// Whether a window of another program covers a whole screen.
    pub full_screen: Reading<bool>,
    /// Which of the programs that the owner named run now, by the owner's names.
    pub programs: Reading<Vec<String>>,
    /// Memory that programs may still take, in bytes.
    pub memory_free: Reading<u64>,
    /// What is free on the home folder's file system, in bytes.
    pub disk_free: Reading<u64>,
    /// Bytes that the agent has moved in this calendar month, up and down, by its own count.
    pub data_this_month: u64,
    /// How long programs wait. Unknown never forbids: it only slows training down.
    pub pressure: Reading<Pressure>,
    /// Whether the system has announced that it goes to sleep.
    pub sleeping: bool,
}

impl Observation {
    /// All sensors silent for one reason: what is seen before the first of them has answered, or where a host app has
    /// said nothing yet.
    pub fn unknown(why: &str) -> Self {
        fn silent<T>(why: &str) -> Reading<T> {
            Reading::Unknown(why.to_owned())
        }
        Observation {
            idle: silent(why),
            power: silent(why),
            temperature_c: silent(why),
            metered: silent(why),
            full_screen: silent(why),
            programs: silent(why),
            memory_free: silent(why),
            disk_free: silent(why),
            data_this_month: 0,
            pressure: silent(why),
            sleeping: false,
        }
    }
}
