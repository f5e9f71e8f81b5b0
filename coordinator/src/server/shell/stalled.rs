//! What the event loop does where it cannot go on, or must not begin anything: it waits for its ledger, turns devices
//! away meanwhile, and tells people what is waited for.

use super::{Shell, ShellError, commit::Commit, ending::Stop};
use crate::{
    server::{
        disk_reserve::DiskStatus,
        handle::{self, Question, ShellHandle},
        trouble::Who,
    },
    store::LedgerError,
};
use nightjar_shared::{
    ids::DeviceId,
    wire::{Refusal, RefusalCode, coordinator_message as answer, device_message as ask},
};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// How long the ledger is left alone before it is tried again, at first and at most.
const LEDGER_AGAIN: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];
/// How often the disk is looked at, where anybody asks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After how long a device may ask again, while the disk is full.
const FULL_RETRY: Duration = Duration::from_secs(60);
/// The same, while blobs cannot be read or written.
const FILES_RETRY: Duration = Duration::from_secs(10);

impl Shell {
    /// Tries a commit again that came back with an error, however long it takes: as long as the ledger is locked by
    /// another program, or there is no room for it, devices are told to come again.
    pub(super) async fn until_written(
        &mut self,
        commit: &Commit,
        mut result: Result<(), LedgerError>,
    ) -> Result<(), ShellError> {
        let [mut wait, longest] = LEDGER_AGAIN;
        while let Err(error) = result {
            if !error.may_pass() {
                return Err(error.into());
            }
            if *self.stopping.borrow() != Stop::No {
                return Err(ShellError::Stopped);
            }
            tracing::warn!(%error, "the ledger is tried again");
            self.parts.metrics.retried();
            let is_locked = matches!(error, LedgerError::Locked);
            if is_locked || self.parts.reserve.fits(0) || !self.parts.reserve.give_up_while_running() {
                self.parts.handle.stall(true);
                self.parts.troubles.set(Who::Ledger, Some(waits_for(&error)));
                self.tell_troubles();
                self.turn_away_for(wait).await?;
                wait = (wait * 2).min(longest);
            }
            result = self.parts.ledger.write(commit.group.records(), commit.counters).await;
        }
        if self.parts.troubles.of(Who::Ledger).is_some() {
            self.parts.troubles.set(Who::Ledger, None);
            self.parts.handle.stall(false);
            self.tell_troubles();
        }
        Ok(())
    }

    /// Answers nobody as wished for so long.
    async fn turn_away_for(&mut self, wait: Duration) -> Result<(), ShellError> {
        let until = Instant::now() + wait;
        loop {
            tokio::select! {
                () = sleep_until(until) => return Ok(()),
                _ = self.stopping.changed() => return Err(ShellError::Stopped),
                Some(question) = self.questions.recv() => self.turn_away(question),
            }
        }
    }

    /// Answers what cannot be answered now.
    fn turn_away(&mut self, question: Question) {
        // Who asked may be gone by now; here and below that is no fault.
        match question {
            Question::Request(request) => drop(request.answer.send(answer::Body::Refusal(handle::busy()))),
            Question::MayUpload { answer, .. } => drop(answer.send(Err(handle::busy()))),
            // Whoever gives it hears that it was not carried out.
            Question::Order { .. } => {}
            question @ (Question::Status(_) | Question::Devices { .. } | Question::DevicesNamed { .. }) => {
                self.look_up(question)
            }
            // It ends by its deadline; and who keeps house comes again.
            Question::GiveUp { .. } | Question::GivenUp { .. } => {}
            Question::BlobLost(hash) => self.later(move |handle| async move { handle.blob_is_lost(hash).await }),
            Question::Reload(_, answer) => {
                let why = "the ledger cannot be written at the moment; ask again later";
                drop(answer.send(Err(why.to_owned())));
            }
            Question::BlobFound(hash) => self.later(move |handle| async move { handle.blob_is_found(hash).await }),
        }
    }

    /// Asks again when the loop may have a moment.
    fn later<A: Future<Output = ()> + Send>(&self, ask: impl FnOnce(ShellHandle) -> A + Send + 'static) {
        let handle = self.parts.handle.clone();
        tokio::spawn(async move {
            sleep(FILES_RETRY).await;
            ask(handle).await;
        });
    }

    /// Why a request cannot be carried out at the moment, whatever the engine would say.
    pub(super) fn not_now(&mut self, device: DeviceId, body: &ask::Body) -> Option<Refusal> {
        let asks_for_work = matches!(body, ask::Body::LeaseRequest(_));
        let enrols = matches!(body, ask::Body::Hello(_)) && !self.parts.knowledge.members.has(device);
        if (asks_for_work || enrols) && self.look().full {
            let sentence = "The coordinator's disk is full: there is no new work until its operator has made room.";
            return Some(Refusal::retry(RefusalCode::Busy, sentence, FULL_RETRY));
        }
        if !asks_for_work {
            return None;
        }
        if [Who::Publisher, Who::Store].into_iter().any(|who| self.parts.troubles.of(who).is_some()) {
            let sentence = "The coordinator cannot read or write its files at the moment.";
            return Some(Refusal::retry(RefusalCode::Busy, sentence, FILES_RETRY));
        }
        let wait = self.leases.wait(&device, 1.0, Instant::now().into_std())?;
        let sentence = "This device has had many leases in a short time.";
        Some(Refusal::retry(RefusalCode::NoWork, sentence, wait + Duration::from_secs(1)))
    }

    /// How the disk stands: as it was a moment ago, at most.
    pub(super) fn look(&mut self) -> DiskStatus {
        let now = Instant::now();
        match self.looked {
            Some((at, room)) if now.duration_since(at) < LOOK_EVERY && room.full == self.parts.reserve.is_full() => {
                room
            }
            _ => {
                let room = self.parts.reserve.look();
                self.looked = Some((now, room));
                self.tell_troubles();
                room
            }
        }
    }

    /// Tells the person at the terminal, once, what is waited for, and that it goes on.
    pub(super) fn tell_troubles(&mut self) {
        let trouble = self.parts.health.trouble();
        if trouble != self.told {
            match &trouble {
                Some(trouble) => (self.parts.say)(&format!("waiting   {trouble}")),
                None => (self.parts.say)("going on"),
            }
            self.told = trouble;
        }
    }
}

/// What is waited for, in words for the person at the terminal.
fn waits_for(error: &LedgerError) -> String {
    match error {
        LedgerError::Locked => "the ledger is locked by another program; close it, or wait".into(),
        LedgerError::DiskFull => "the disk is full: the ledger cannot be written; free some space".into(),
        error => format!("the ledger cannot be written: {error}"),
    }
}
