//! What is asked of the event loop, each question with the place where its answer goes.

use super::AgentStatus;
use crate::{
    history::DayView,
    join::{JoinError, Joined},
    preferences::{PreferencesError, Row},
};
use jiff::civil::Date;
use std::time::Duration;
use tokio::sync::oneshot;

/// What the owner commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Tell how it stands.
    Status,
    /// Pause for so long, or until resumed.
    Pause(Option<Duration>),
    /// Train for so long, or until resumed, whatever the preferences say.
    RunNow(Option<Duration>),
    /// The preferences decide again.
    Resume,
    /// Compute again on what was left alone.
    Retry,
    /// Leave the run.
    Leave,
    /// End the process.
    Shutdown,
}

/// A question to the event loop, and where its answer goes.
#[derive(Debug)]
pub enum Asked {
    /// A command; how the agent stands after it.
    Do(Command, oneshot::Sender<AgentStatus>),
    /// What was done on a day; `None`: today.
    Day(Option<Date>, oneshot::Sender<DayView>),
    /// An invite is brought.
    Join {
        /// The link, as it was pasted.
        invite: String,
        /// How the owner calls this device, if they say.
        name: Option<String>,
        /// What came of it.
        reply: oneshot::Sender<Result<Joined, JoinError>>,
    },
    /// The preferences.
    Preferences(oneshot::Sender<Vec<Row>>),
    /// Another value for one of them.
    Set {
        /// Its key.
        key: String,
        /// The value, as the file has it.
        value: String,
        /// All of them after it.
        reply: oneshot::Sender<Result<Vec<Row>, PreferencesError>>,
    },
}
