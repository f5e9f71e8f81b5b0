//! How the agent stands, as the control API tells it: all that the page, the tray and the command line show. The fields
//! are what scripts read; they may grow, and do not change their meaning.

use super::Summary;
use crate::{
    history::Figures,
    journal::Totals,
    policy::{ProfileName, ReasonKind},
    session,
};
use jiff::Zoned;
use nightjar_shared::run_spec::OperatorSpec;
use serde::{Deserialize, Serialize};

/// How the agent stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// The agent's process.
    pub pid: u32,
    /// The program's version.
    pub version: String,
    /// The device's id.
    pub device: String,
    /// How its owner calls it.
    pub name: String,
    /// Whether it holds or may train, and why.
    pub why: Why,
    /// The same in one word and one short sentence, with what the owner can do about it.
    #[serde(default)]
    #[serde(rename = "standing")]
    pub summary: Summary,
    /// The owner's word for now, if it stands against their preferences.
    #[serde(rename = "override")]
    pub owner: Option<Word>,
    /// The run that it is in.
    pub run: Option<RunStatus>,
    /// What the session does.
    pub session: session::Status,
    /// Since this device began, in all runs.
    pub totals: Figures,
    /// Since midnight.
    pub today: Figures,
    /// Where the energy's figure comes from; for an estimate, what it assumes.
    pub energy_source: Option<String>,
    /// What the sensors say.
    pub sensors: Vec<SensorStatus>,
    /// What training may take now; `None` while it holds.
    pub limits: Option<LimitsStatus>,
    /// Whose limits those are.
    pub profile: Option<ProfileName>,
    /// Why the duty is below the profile's.
    pub slowed: Option<String>,
    /// How the worker is shut in; where the system lacks something for it, that is said here.
    pub sandbox: Vec<String>,
    /// The worker.
    pub worker: WorkerStatus,
    /// What is wrong with the preferences' file; while this is set, the last good ones are in force.
    pub config_error: Option<String>,
}

/// Whether it may train, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// Whether the owner's preferences let it train now.
    pub allowed: bool,
    /// What holds it back; `None` while nothing does.
    pub kind: Option<ReasonKind>,
    /// One true sentence: why not, or what it does.
    pub reason: String,
    /// When a hold ends by itself, or this device tries again, if that is known: RFC 3339 with the local offset.
    pub until: Option<String>,
}

/// The owner's word for now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    /// Which.
    pub kind: WordKind,
    /// Until when, as in [`Why::until`]; `None`: until they say otherwise.
    pub until: Option<String>,
    /// Whether it outlasts this program: it does not where the disk refuses.
    pub kept: bool,
}

/// What the owner can say for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WordKind {
    /// Not now.
    Pause,
    /// Now, whatever the preferences say.
    RunNow,
}

/// The run that a device is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStatus {
    /// Its name.
    pub name: String,
    /// Whether the coordinator has told what follows: it does with its first welcome.
    #[serde(default)]
    pub told: bool,
    /// What the project is, in the run spec's words; empty where its people have written nothing.
    pub sentence: String,
    /// Who runs it; `None` where they have not said.
    #[serde(default)]
    pub operator: Option<OperatorSpec>,
}

/// What one sensor says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SensorStatus {
    /// What it senses.
    pub name: String,
    /// What it says.
    pub value: Option<String>,
    /// Why it says nothing.
    pub unknown: Option<String>,
    /// Who says so.
    pub source: Option<String>,
}

/// What training may take.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LimitsStatus {
    /// Share of the time.
    pub duty: f64,
    /// Threads on the CPU.
    pub threads: usize,
    /// Memory, in bytes; `None`: no cap.
    pub memory_bytes: Option<u64>,
}

/// The worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// What it computes on, once it has started.
    pub device: Option<String>,
    /// Whether there is a process now.
    pub alive: bool,
    /// How often one crashed since the agent started.
    pub crashes: u32,
    /// What is not computed on any more.
    pub left_alone: Vec<LeftAlone>,
}

/// Something that is not computed on any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftAlone {
    /// What.
    pub device: String,
    /// Why.
    pub reason: String,
}

impl AgentStatus {
    /// What was delivered in this run.
    pub fn totals_of_run(&self) -> &Totals {
        &self.session.totals
    }
}

/// A time as all of the API writes it: RFC 3339 with the local offset, to the second.
pub fn timestamp(at: &Zoned) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}
