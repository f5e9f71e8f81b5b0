//! All that can happen to a session, and all that it can want done. The event loop and the simulator perform the
//! actions **in order**: an offer comes after the journal that names it, so it must be durable before the offer goes
//! up.

use crate::journal::Journal;
use nightjar_shared::{
    blob::BlobRef,
    ids::{BlobHash, LeaseId, Version},
    lease::{LeaseKind, Trained},
    time::Mono,
    wire::{Refusal, coordinator_message, device_message, limits, worker},
};
use std::fmt;

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The policy's verdict.
    Permission(Permission),
    /// Whether the network may be used: not where it is paid for by the byte, or the month's data is used up.
    Network(bool),
    /// The answer to [`Action::Connect`]: there is a connection.
    Connected,
    /// There is none, or no longer. All that was under way on it is over, and will not be reported one by one.
    Disconnected {
        /// What the link says.
        why: String,
    },
    /// The answer to [`Action::Ask`].
    Answered {
        /// Which request.
        request: u64,
        /// The answer.
        body: coordinator_message::Body,
    },
    /// The answer to [`Action::Fetch`]: the blob is on the disk, whole and verified.
    Fetched {
        /// Which.
        hash: BlobHash,
    },
    /// The answer to [`Action::Fetch`]: it is not.
    FetchFailed {
        /// Which.
        hash: BlobHash,
        /// Why.
        fault: Fault,
    },
    /// The answer to [`Action::Upload`]: the coordinator has the delta.
    Uploaded,
    /// The answer to [`Action::Upload`]: it has not.
    UploadFailed(Fault),
    /// The worker says something. Files that it names are synced.
    Worker(worker::from_worker::Body),
    /// The worker ended, whether it was told to or not.
    WorkerExited {
        /// Its last words.
        why: String,
    },
    /// The worker was ended so that another can start with other limits; that one goes on from the checkpoint.
    WorkerReplaced,
    /// The answer to [`Action::Work`]: no worker can be started for it.
    WorkerRefused {
        /// Why.
        why: String,
        /// When one can; `None`: nobody knows, and the lease had better go back.
        until: Option<Mono>,
    },
    /// The answer to [`Action::WriteJournal`], where the disk refuses it: of what came after it, only what needs no
    /// journal was done (see [`Action::rests_on_journal`]). Heard before anything else.
    DiskRefused {
        /// What the disk says.
        why: String,
    },
    /// The disk has no room for these shards any more.
    Evicted(Vec<BlobHash>),
    /// What stood in the way of work may be gone: the owner has changed something.
    Retry,
    /// The owner leaves the run.
    Leave,
    /// The process is to end soon.
    Shutdown,
    /// Time passed; `Session::next_deadline` says when this is due.
    Tick,
}

/// Whether training is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Permission {
    /// It is.
    Allowed,
    /// It is not, for this reason. There is time to finish the step at hand and to deliver what was trained.
    Held(String),
    /// The owner wants the computer this instant: whoever performs the actions has frozen the worker already. The lease
    /// is kept for a while, to go on from the checkpoint.
    Yield {
        /// Why.
        reason: String,
        /// Whether the worker's memory is wanted too.
        free_memory: bool,
    },
}

impl Permission {
    /// Why it is not allowed.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Permission::Allowed => None,
            Permission::Held(reason) | Permission::Yield { reason, .. } => Some(reason),
        }
    }
}

/// Why a blob did not travel.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// The coordinator refused.
    Refused(Refusal),
    /// The link broke, or what came was damaged; what arrived whole is kept.
    Broken(String),
    /// The file to be uploaded is not on this device's disk as the journal says.
    FileGone,
    /// What the worker left to be uploaded is not what it said; says how.
    Untrue(String),
    /// The lease does not fit what the owner lets this program keep on the disk; says how much is missing.
    NoRoom(String),
    /// This device's disk refuses: it is full, read-only or broken. Says what it says.
    Disk(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Refused(refusal) => write!(f, "the coordinator says: {}", limits::tame(&refusal.sentence)),
            Fault::Broken(why) | Fault::Untrue(why) | Fault::NoRoom(why) | Fault::Disk(why) => f.write_str(why),
            Fault::FileGone => f.write_str("its file is gone"),
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Connect to the coordinator, whichever address answers.
    Connect,
    /// Close the connection. [`Event::Disconnected`] does not follow.
    Disconnect,
    /// Send a request.
    Ask {
        /// Repeated in the answer.
        request: u64,
        /// The request.
        body: device_message::Body,
    },
    /// Have this blob on the disk: answered at once if it is there.
    Fetch(BlobRef),
    /// Send a delta's bytes.
    Upload {
        /// The lease it belongs to.
        lease: LeaseId,
        /// Its name.
        blob: BlobRef,
        /// Its file.
        file: String,
    },
    /// Give the worker a lease, starting the process if there is none.
    Work(worker::to_worker::Body),
    /// Tell the worker to finish its step and report.
    StopWork,
    /// End the worker's process. [`Event::WorkerExited`] does not follow.
    EndWorker,
    /// Replace the journal. What [rests on it](Action::rests_on_journal) does not happen unless it is durable.
    WriteJournal(Box<Journal>),
    /// Remove blobs and worker files other than these.
    Tidy {
        /// What stays.
        keep: Vec<String>,
    },
    /// From now on accept the coordinator by these ed25519 keys, and no others.
    Pin(Vec<[u8; 32]>),
    /// Forget the run: membership, journal, blobs and worker files.
    Forget,
    /// Tell the owner.
    Report(Report),
    /// End the process.
    Exit(Ending),
}

impl Action {
    /// Whether it may be done only once the journal before it is durable: it gives something away, or changes the disk.
    pub fn rests_on_journal(&self) -> bool {
        use Action::{Ask, Fetch, Tidy, Upload, Work, WriteJournal};
        matches!(self, Ask { .. } | Fetch(_) | Tidy { .. } | Upload { .. } | Work(_) | WriteJournal(_))
    }

    /// The fail point passed just before the action is performed.
    pub fn fail_point(&self) -> &'static str {
        match self {
            Action::Connect => "agent.connect",
            Action::Disconnect => "agent.disconnect",
            Action::Ask { body: device_message::Body::DeltaOffer(_), .. } => "agent.offer",
            Action::Ask { .. } => "agent.ask",
            Action::Fetch(_) => "agent.fetch",
            Action::Upload { .. } => "agent.upload",
            Action::Work(_) => "agent.work",
            Action::StopWork => "agent.stop_work",
            Action::EndWorker => "agent.end_worker",
            Action::WriteJournal(_) => "agent.journal",
            Action::Tidy { .. } => "agent.tidy",
            Action::Pin(_) => "agent.pin",
            Action::Forget => "agent.forget",
            Action::Report(_) => "agent.report",
            Action::Exit(_) => "agent.exit",
        }
    }
}

/// How a session ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As the owner asked.
    Asked,
    /// The owner has left the run.
    Left,
    /// The run is over.
    RunOver(String),
    /// The coordinator will not have this device, or this version of it; says why.
    Refused(String),
}

/// What the owner is told, a line each.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// Connected and welcome.
    Online {
        /// The run's name.
        run: String,
    },
    /// Not connected.
    Offline {
        /// Why.
        why: String,
    },
    /// Training is not allowed.
    Held {
        /// Why.
        reason: String,
    },
    /// Training is allowed again.
    Released,
    /// A lease was delivered.
    Delivered {
        /// Which.
        lease: LeaseId,
        /// What for.
        kind: LeaseKind,
        /// The version that it started from.
        version: Version,
        /// What was trained, where it was to train.
        trained: Option<Trained>,
        /// Tokens trained on.
        tokens: u64,
        /// Whether it counts; else the coordinator's reason.
        merged: Result<(), String>,
    },
    /// A lease came to nothing.
    Dropped {
        /// Which.
        lease: LeaseId,
        /// Why.
        why: String,
    },
    /// Something went wrong and is tried again.
    Trouble(String),
    /// The run is over, for now at least.
    RunOver(String),
}

/// That a run is over, in the words of its people, who may have said so themselves.
pub fn run_is_over(words: &str) -> String {
    const SAID: &str = "the run is over";
    match words.get(..SAID.len()) {
        Some(said) if said.eq_ignore_ascii_case(SAID) => format!("{SAID}{}", &words[SAID.len()..]),
        _ => format!("{SAID}: {words}"),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Report::Online { run } => write!(f, "online: in the run \"{run}\""),
            Report::Offline { why } => write!(f, "offline: {why}; trying again"),
            Report::Held { reason } => write!(f, "holding: {reason}"),
            Report::Released => write!(f, "running: training is allowed"),
            Report::Delivered { lease, kind, trained, merged, .. } => {
                write!(f, "lease {lease}: ")?;
                match (kind, trained) {
                    (LeaseKind::Train, Some(Trained { steps, loss_first, loss_last, .. })) => {
                        write!(f, "{steps} steps, loss {loss_first:.3} to {loss_last:.3}")?;
                    }
                    (LeaseKind::Train, None) => write!(f, "0 steps")?,
                    (LeaseKind::Evaluate, _) => write!(f, "held-out loss measured")?,
                }
                match (kind, merged) {
                    (LeaseKind::Train, Ok(())) => write!(f, ", merged"),
                    (LeaseKind::Evaluate, Ok(())) => Ok(()),
                    (_, Err(why)) => write!(f, ", not merged: {why}"),
                }
            }
            Report::Dropped { lease, why } => write!(f, "lease {lease}: given up: {why}"),
            Report::Trouble(what) => write!(f, "trouble: {what}"),
            Report::RunOver(words) => f.write_str(&run_is_over(words)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_a_run_is_over_is_said_once() {
        assert_eq!(run_is_over("Thank you"), "the run is over: Thank you");
        assert_eq!(run_is_over("The run is over. Thank you"), "the run is over. Thank you");
        assert_eq!(run_is_over("Über"), "the run is over: Über");
    }
}
