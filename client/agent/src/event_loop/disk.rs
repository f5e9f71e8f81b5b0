//! A disk that refuses stops nothing but what needs it: training holds, the owner is served, and it is tried again.

use super::Agent;
use crate::{
    control::{self, Asked, ControlError},
    disk_words,
    home::HomeError,
    journal,
    membership::MEMBERSHIP_FILE,
    policy::{Decision, Outcome, Reason, ReasonKind},
};
use nightjar_shared::{disk::Disk, time::Mono};
use std::time::Duration;
use tokio::sync::mpsc;

/// So often it tries to open the control API.
const OPEN_EVERY: Duration = Duration::from_secs(5);

/// The control API, which the owner reaches the agent by: it is opened again and again where the disk does not take the
/// file that says where it is.
pub(super) struct Control {
    queue: mpsc::Sender<Asked>,
    server: Option<control::Server>,
    next_try: Mono,
}

impl Control {
    pub fn closed(queue: mpsc::Sender<Asked>) -> Self {
        Control { queue, server: None, next_try: Mono::default() }
    }

    /// Opens it, if it is not open and time to try.
    pub async fn open(&mut self, agent: &mut Agent, now: Mono) {
        if self.server.is_some() || now < self.next_try {
            return;
        }
        let is_first = self.next_try == Mono::default();
        self.next_try = now + OPEN_EVERY;
        match control::serve(&agent.home, self.queue.clone(), agent.tickets.clone()).await {
            Ok(server) => {
                if let Some(moved) = server.moved() {
                    agent.tell(moved);
                }
                self.server = Some(server);
            }
            Err(e) if is_first => {
                let says = match &e {
                    ControlError::Home(HomeError::Runtime { file, source, .. }) => {
                        format!("{file}: {}", disk_words::refusal(source))
                    }
                    other => other.to_string(),
                };
                agent.tell(&format!(
                    "trouble: commands and the page cannot reach this agent yet: {says}; it keeps trying"
                ));
            }
            Err(_) => {}
        }
    }

    pub fn server(&self) -> Option<&control::Server> {
        self.server.as_ref()
    }
}

impl Agent {
    /// Removes blobs and worker files other than these. What stays costs room, and is tried again after the next lease.
    pub(super) fn tidy_up(&self, keep: &[String]) {
        if let Err(e) = journal::tidy(&*self.disk, keep) {
            tracing::warn!("files that are not needed cannot be removed ({e}); they stay for now");
        }
    }

    /// Forgets the run, as far as the disk lets it; the rest is tried again at each look.
    pub(super) fn forget(&mut self) {
        if self.unforgotten && self.member.is_ok() {
            // It has joined another since.
            self.unforgotten = false;
            return;
        }
        let forgotten = self.disk.remove(MEMBERSHIP_FILE).and_then(|()| journal::forget(&*self.disk));
        if let Err(e) = &forgotten
            && !self.unforgotten
        {
            let says = disk_words::refusal(e);
            self.tell(&format!(
                "trouble: what belongs to the run cannot be removed: {says}; until it can, a start is in it again"
            ));
        }
        self.unforgotten = forgotten.is_err();
    }

    /// The disk's refusal holds training, unless a reason that outlasts it does.
    pub(super) fn with_disk(&self, outcome: Outcome) -> Outcome {
        let Some((why, _)) = self.session.disk_refuses() else { return outcome };
        if matches!(&outcome.decision, Decision::Hold { reason, .. } if reason.kind <= ReasonKind::Disk) {
            return outcome;
        }
        let folder = self.home.folder().display();
        let sentence = format!("{why}; training goes on by itself once it can write to {folder} again");
        Outcome { decision: Decision::Hold { reason: Reason::new(ReasonKind::Disk, sentence), until: None }, ..outcome }
    }
}
