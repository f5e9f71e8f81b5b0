//! The device's half of the flow, as a pure state machine: connect, hello, lease, fetch, train, journal, offer, upload,
//! acknowledged, next. Events and the time go in, actions come out; no clock, file, socket or random source inside.
//!
//! Most of it is level-triggered: an event changes the state, then [`Session::advance`] looks at the whole state and
//! wants whatever is possible and not under way. A retry is therefore nothing special: a timer blocks, then it does
//! not.
//!
//! **A delta that does not count** (dropped, refused, screened out) leaves no trace: residual and optimizer state stay
//! those from before its lease. The lease's samples go back to the pool and someone trains on them anew, so carrying
//! part of its effect on in this device's residual would count it twice. How much a residual counts that has grown old
//! meanwhile is the run's to say (`residual.rs`).

mod answers;
mod blobs;
mod claims;
mod disk;
mod event;
mod messages;
mod residual;
mod setback;
mod stages;
mod status;
mod timers;
mod wear;
pub mod welcome;
mod work;

#[cfg(test)]
mod tests;

pub use claims::{Untrue, delta_spec};
pub use event::{Action, Ending, Event, Fault, Permission, Report, run_is_over};
pub use messages::SOFTWARE;
pub use setback::Setback;
pub use status::{Status, Training};
pub(crate) use welcome::parse_spec;

use crate::journal::Journal;
use nightjar_shared::{
    ids::DeviceId,
    lease::LeaseKind,
    public_name::PublicName,
    run_spec::RunSpec,
    time::Mono,
    wire::{self, device_message as ask},
};
use stages::{Ahead, Course, Line, Link, Parting, Question, Spare, Stage, Upload, Words, Worker};
use std::time::Duration;
use timers::{Timer, Timers};

/// A question must be answered within this, or the connection is given up.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// A process that is to end does so within this.
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// A held device with nothing to deliver stays connected for so long; its keep-alives would cost data and wake-ups.
const LINGER: Duration = Duration::from_secs(60);

/// What does not change while a session lasts.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Who this is.
    pub device: DeviceId,
    /// The invite's token, shown at every hello.
    pub token: Vec<u8>,
    /// What the invite made it.
    pub role: wire::Role,
    /// What leases it takes.
    pub kinds: Vec<LeaseKind>,
    /// How its owner calls it.
    pub name: String,
    /// What trains.
    pub hardware: String,
    /// Memory that training may take; 0: not known.
    pub memory_bytes: u64,
    /// About this much training is lost when the worker is killed.
    pub checkpoint_ms: u64,
    /// Most that checkpoints may write in a day.
    pub checkpoint_bytes_day_max: Option<u64>,
    /// How its owner wants to be called on the run's public page; `None`: not at all.
    pub public_name: Option<PublicName>,
}

#[cfg(test)]
impl Profile {
    /// A volunteer that takes leases of both kinds.
    pub(crate) fn for_tests() -> Self {
        Profile {
            device: DeviceId([7; 32]),
            token: b"token".to_vec(),
            role: wire::Role::Volunteer,
            kinds: LeaseKind::ALL.to_vec(),
            name: "den".into(),
            hardware: "flex, 1 threads".into(),
            memory_bytes: 1 << 30,
            checkpoint_ms: 1000,
            checkpoint_bytes_day_max: None,
            public_name: None,
        }
    }
}

/// The state machine.
#[derive(Debug)]
pub struct Session {
    profile: Profile,
    journal: Journal,
    /// The run's, once the coordinator has sent it; `None` too where an earlier program's is not understood.
    spec: Option<RunSpec>,
    /// `None` before the first verdict, which forbids too.
    permission: Option<Permission>,
    /// Whether the owner lets it use the network.
    network: bool,
    line: Line,
    stage: Stage,
    course: Course,
    /// A worker without a lease; in [`Stage::Working`] there is none beside the one at work.
    spare: Option<Spare>,
    disk: disk::DiskState,
    setbacks: setback::Setbacks,
    words: Words,
    parting: Parting,
    timers: Timers,
}

impl Session {
    /// Takes up where the journal ends. Training is held until the first [`Event::Permission`].
    pub fn new(profile: Profile, journal: Journal) -> Self {
        let seed = u64::from_le_bytes(*profile.device.0.first_chunk().unwrap_or(&[0; 8]));
        Session {
            profile,
            spec: journal.run.as_ref().and_then(|run| parse_spec(&run.spec_json).ok()),
            permission: None,
            network: true,
            line: Line::default(),
            stage: Stage::of(&journal),
            course: Course { begun: journal.lease.is_some(), ..Course::default() },
            spare: None,
            disk: disk::DiskState::default(),
            setbacks: setback::Setbacks::default(),
            words: Words::default(),
            parting: Parting::default(),
            journal,
            timers: Timers::new(seed),
        }
    }

    /// When [`Event::Tick`] is due, if nothing else happens.
    pub fn next_deadline(&self) -> Option<Mono> {
        self.timers.next()
    }

    /// What the journal holds, or will once the last action is performed.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// What the owner lets it do from now on: how much training may be lost, and how much may be written in a day to
    /// lose no more.
    pub fn set_wishes(&mut self, checkpoint_ms: u64, checkpoint_bytes_day_max: Option<u64>) {
        self.profile = Profile { checkpoint_ms, checkpoint_bytes_day_max, ..self.profile.clone() };
    }

    /// How its owner wants to be called on the run's public page from now on. The coordinator hears of it by a hello.
    pub fn set_public_name(&mut self, name: Option<PublicName>) {
        if self.greeted() && self.profile.public_name != name {
            self.line.link = Link::Up { greeted: false };
        }
        self.profile.public_name = name;
    }

    /// How much memory training may take from now on; 0: not known.
    pub fn set_memory(&mut self, bytes: u64) {
        self.profile.memory_bytes = bytes;
        self.heed_memory();
    }

    /// It may have been refused for want of memory, and have enough by now: then it need not wait until it may ask
    /// again.
    fn heed_memory(&mut self) {
        let is_refused = !self.words.told.is_empty() && self.journal.lease.is_none() && self.words.over.is_none();
        let Some(spec) = is_refused.then(|| self.spec()).flatten() else { return };
        if (limit(self.line.asked_with)..self.memory_may()).contains(&(spec.model.training_bytes() - 1)) {
            self.words.told.clear();
            self.timers.clear(Timer::Request);
        }
    }

    /// Most memory that training may take.
    fn memory_may(&self) -> u64 {
        limit(self.profile.memory_bytes)
    }

    /// Memory that it asks a lease for just now, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.lease_request().memory_bytes
    }

    /// Whether a worker trains or measures at this moment.
    pub fn is_at_work(&self) -> bool {
        self.working() && self.permission == Some(Permission::Allowed)
    }

    /// Whether a worker has a job, which may be stopped or frozen.
    pub fn has_job(&self) -> bool {
        self.working()
    }

    /// Whether it is about to end.
    pub fn is_closing(&self) -> bool {
        self.parting.closing || self.parting.leaving
    }

    /// Whether it computes: at a lease, or ahead of the next.
    pub fn computes(&self) -> bool {
        let is_ahead = self.ahead().is_some_and(|ahead| !ahead.over);
        self.is_at_work() || is_ahead && self.permission == Some(Permission::Allowed)
    }

    /// What on this device itself stands in the way of work that it may do, and when it tries again.
    pub fn obstacle(&self) -> Option<(&str, Mono)> {
        Some((self.words.obstacle.as_str(), self.timers.at(Timer::Work)?))
    }

    /// Why nothing is computed though it may be, and when that is tried again, if not just now; `None`: something is.
    pub fn idles_for(&self) -> Option<(String, Option<Mono>)> {
        if self.computes() {
            return None;
        }
        if let Some((what, at)) = self.obstacle() {
            return Some((format!("it may train, but cannot yet: {}", what.trim_end_matches('.')), Some(at)));
        }
        let (what, at) = self.waits_for().unwrap_or_else(|| (self.status().doing, None));
        Some((format!("it may train; {}", what.trim_end_matches('.')), at))
    }

    /// What it waits for elsewhere while it may train, and when it asks again, if not just now.
    pub fn waits_for(&self) -> Option<(String, Option<Mono>)> {
        match self.line.link {
            _ if self.computes() => None,
            _ if self.disk_refuses().is_some() => {
                let (why, at) = self.disk_refuses()?;
                Some((format!("{why}, and it waits until it can write again"), at))
            }
            _ if self.setback().is_some() => {
                let Setback { until, .. } = self.setback()?;
                Some((self.last_setback()?, Some(until)))
            }
            Link::Down | Link::Connecting if !self.words.offline.is_empty() => {
                let what = format!("the coordinator cannot be reached ({})", self.words.offline.trim_end_matches('.'));
                Some((what, self.timers.at(Timer::Reconnect)))
            }
            _ if self.timers.pending(Timer::Transfer) && self.journal.lease.is_some() => {
                let what = format!("a blob did not travel ({})", self.words.transfer_fault.trim_end_matches('.'));
                Some((what, self.timers.at(Timer::Transfer)))
            }
            Link::Up { .. } => {
                let at = Some(self.timers.at(Timer::Request)?);
                let what = self.last_setback().filter(|_| self.words.told.is_empty() && self.words.over.is_none());
                Some((what.unwrap_or_else(|| self.status().doing), at))
            }
            Link::Down | Link::Connecting => None,
        }
    }

    /// The run's spec, once the coordinator has sent it.
    pub fn spec(&self) -> Option<&RunSpec> {
        self.spec.as_ref()
    }

    /// Takes an event; what comes back is to be performed in order.
    pub fn handle(&mut self, event: Event, now: Mono) -> Vec<Action> {
        let mut out = vec![];
        if self.parting.ended {
            return out;
        }
        if !matches!(event, Event::DiskRefused { .. }) {
            self.disk_tried();
        }
        for timer in self.timers.due(now) {
            self.timer_due(timer, now, &mut out);
        }
        match event {
            Event::Permission(permission) => self.permission(permission, &mut out),
            Event::Network(allowed) => self.network = allowed,
            Event::Connected => self.connected(),
            Event::Disconnected { why } => self.disconnected(why, now, &mut out),
            Event::Answered { request, body } => self.answered(request, body, now, &mut out),
            Event::Fetched { hash } => self.blob_fetched(hash),
            Event::FetchFailed { hash, fault } => self.fetch_failed(hash, fault, now, &mut out),
            Event::Uploaded => self.upload_ended(None, now, &mut out),
            Event::UploadFailed(fault) => self.upload_ended(Some(fault), now, &mut out),
            Event::Worker(message) => self.worker_says(&message, now, &mut out),
            Event::WorkerExited { why } => self.worker_exited(why, now, &mut out),
            Event::WorkerReplaced => self.worker_replaced(),
            Event::WorkerRefused { why, until } => self.worker_refused(why, until, now, &mut out),
            Event::Retry => {
                self.words.trouble.clear();
                self.timers.clear(Timer::Work);
                self.timers.clear(Timer::Reconnect);
                self.set_right();
                // The owner may have changed what a refusal was for.
                self.words.told.clear();
                self.timers.clear(Timer::Request);
            }
            Event::DiskRefused { why } => self.journal_refused(why, now, &mut out),
            Event::Evicted(shards) => self.evicted(&shards, &mut out),
            // There is nobody to say goodbye to.
            Event::Leave if self.journal.run.is_none() && self.line.link == Link::Down => self.forget(&mut out),
            Event::Leave => {
                self.parting.leaving = true;
                self.timers.set(Timer::Close, now + 5 * CLOSE_MAX);
            }
            Event::Shutdown if !self.parting.closing => {
                self.parting.closing = true;
                self.timers.set(Timer::Close, now + CLOSE_MAX);
            }
            Event::Shutdown | Event::Tick => {}
        }
        self.advance(now, &mut out);
        out
    }

    fn timer_due(&mut self, timer: Timer, now: Mono, out: &mut Vec<Action>) {
        match timer {
            Timer::Reconnect | Timer::Request | Timer::Transfer | Timer::Work | Timer::Again => {}
            Timer::Disk => self.try_disk(now, out),
            Timer::Renew => self.line.renew_due = true,
            Timer::Answer => {
                out.push(Action::Disconnect);
                self.disconnected("the coordinator does not answer".into(), now, out);
            }
            // Killed before it could report: what it trained since the last checkpoint is lost.
            Timer::Stop => self.end_worker(out),
            Timer::Keep => self.kept_long_enough(out),
            Timer::Linger => {
                out.push(Action::Disconnect);
                self.unlinked();
            }
            Timer::Close if self.parting.leaving => self.forget(out),
            Timer::Close => self.exit(Ending::Asked, out),
        }
    }

    /// Wants whatever is possible and not under way.
    fn advance(&mut self, now: Mono, out: &mut Vec<Action>) {
        if self.parting.ended {
            return;
        }
        self.advance_worker(now, out);
        self.advance_blobs(out);
        self.advance_requests(now, out);
        self.advance_link(now, out);
        let undelivered = matches!(self.stage, Stage::Delivering { .. } | Stage::Returning { .. });
        let deliverable = undelivered && matches!(self.line.link, Link::Up { .. });
        if self.parting.closing && !self.parting.leaving && !self.working() && !deliverable {
            self.exit(Ending::Asked, out);
        }
    }

    /// Connects while there is something to say, and hangs up where there is not for a while.
    fn advance_link(&mut self, now: Mono, out: &mut Vec<Action>) {
        // A run that is over is asked again now and then, in case it goes on.
        let asks = self.words.over.is_none() || !self.timers.pending(Timer::Request);
        let wanted = self.may_train() && asks || self.journal.lease.is_some() || self.parting.leaving;
        if !self.network && !self.parting.leaving {
            if self.line.link != Link::Down {
                out.push(Action::Disconnect);
                self.unlinked();
            }
        } else if wanted || self.parting.closing {
            self.timers.clear(Timer::Linger);
        } else if self.line.link != Link::Down && !self.timers.pending(Timer::Linger) {
            self.timers.set(Timer::Linger, now + LINGER);
        }
        let may = self.network || self.parting.leaving;
        if may
            && wanted
            && self.line.link == Link::Down
            && !self.timers.pending(Timer::Reconnect)
            && !self.parting.closing
        {
            self.line.link = Link::Connecting;
            out.push(Action::Connect);
        }
    }

    fn advance_requests(&mut self, now: Mono, out: &mut Vec<Action>) {
        let Link::Up { greeted } = self.line.link else { return };
        if self.line.asked.is_some() || self.timers.pending(Timer::Request) {
            return;
        }
        let question = if greeted { self.question() } else { Some((Question::Hello, ask::Body::Hello(self.hello()))) };
        if let Some((question, body)) = question {
            let request = self.line.next_request;
            self.line.next_request += 1;
            self.line.asked = Some((request, question));
            if question == Question::Lease {
                self.line.asked_with = self.profile.memory_bytes;
            }
            self.timers.set(Timer::Answer, now + ANSWER_MAX);
            out.push(Action::Ask { request, body });
        }
    }

    fn may_train(&self) -> bool {
        self.permission == Some(Permission::Allowed) && !self.parting.closing && !self.parting.leaving
    }

    fn working(&self) -> bool {
        matches!(self.stage, Stage::Working { .. })
    }

    fn worker(&self) -> Worker {
        match (&self.stage, self.spare) {
            (Stage::Working { stopping: true }, _) => Worker::Stopping,
            (Stage::Working { stopping: false }, _) => Worker::Busy,
            (_, Some(_)) => Worker::Idle,
            (_, None) => Worker::Off,
        }
    }

    /// What the worker trains ahead of the next lease.
    fn ahead(&self) -> Option<Ahead> {
        self.spare?.ahead
    }

    fn greeted(&self) -> bool {
        self.line.link == Link::Up { greeted: true }
    }

    /// Whether there is a lease whose work is still to be done, and that is not to be given back.
    fn unfinished(&self) -> bool {
        matches!(self.stage, Stage::Fetching { .. } | Stage::Working { .. })
    }

    fn permission(&mut self, permission: Permission, out: &mut Vec<Action>) {
        // A held owner need not hear that the reason's minutes moved on.
        let was_held = self.permission.as_ref().map(|p| p.reason().is_some());
        match permission.reason() {
            _ if self.parting.leaving => {}
            None if was_held != Some(false) => out.push(Action::Report(Report::Released)),
            Some(reason) if was_held != Some(true) => {
                out.push(Action::Report(Report::Held { reason: reason.to_owned() }))
            }
            None | Some(_) => {}
        }
        self.permission = Some(match (self.permission.take(), permission) {
            // A frozen worker cannot be told to finish its step, whatever the reason has become.
            (Some(Permission::Yield { free_memory, .. }), Permission::Held(reason)) => {
                Permission::Yield { reason, free_memory }
            }
            (_, permission) => permission,
        });
    }

    /// Writes the journal and removes what it no longer names.
    fn commit(&self, out: &mut Vec<Action>) {
        out.push(Action::WriteJournal(Box::new(self.journal.clone())));
        out.push(Action::Tidy { keep: self.journal.files() });
    }

    fn exit(&mut self, ending: Ending, out: &mut Vec<Action>) {
        self.end_worker(out);
        self.parting.ended = true;
        out.push(Action::Disconnect);
        out.push(Action::Exit(ending));
    }

    fn forget(&mut self, out: &mut Vec<Action>) {
        self.end_worker(out);
        out.push(Action::Forget);
        self.exit(Ending::Left, out);
    }
}

/// How many bytes of memory that are, where 0 stands for as many as it likes.
fn limit(memory_bytes: u64) -> u64 {
    if memory_bytes == 0 { u64::MAX } else { memory_bytes }
}
