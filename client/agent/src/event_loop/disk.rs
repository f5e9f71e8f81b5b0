//! A disk that refuses stops nothing but what needs it: training holds, the owner is served, and it is tried again.

use super::{
    Agent,
    participation::{Participation, RunState},
};
use crate::{
    disk_words, journal,
    membership::MEMBERSHIP_FILE,
    policy::{Decision, Outcome, Reason, ReasonKind},
    quota, session,
};
use nightjar_shared::disk::Disk;

impl Agent {
    /// Removes blobs and worker files other than these. What stays costs room, and is tried again after the next lease.
    pub(super) fn tidy_up(&self, keep: &[String]) {
        if let Err(e) = journal::tidy(&*self.home.disk(), keep) {
            tracing::warn!("files that are not needed cannot be removed ({e}); they stay for now");
        }
    }

    /// Keeps to the owner's bound on the disk.
    pub(super) fn keep_to_quota(&mut self) {
        let Some(mib) = self.owner.wants().quota_mib_max else { return };
        match quota::tidy(&*self.home.disk(), self.session.journal(), mib << 20) {
            Ok(evicted) if evicted.is_empty() => {}
            Ok(evicted) => self.waiting.push_back(session::Event::Evicted(evicted)),
            Err(e) => tracing::warn!("what is kept on the disk cannot be tidied up ({e})"),
        }
    }

    /// Forgets the run, as far as the disk lets it; the rest is tried again at each look.
    pub(super) fn forget(&mut self) {
        let Participation { run, unforgotten, .. } = &mut self.participation;
        if *unforgotten && matches!(run, RunState::In(_)) {
            // It has joined another since.
            *unforgotten = false;
            return;
        }
        let disk = self.home.disk();
        let forgotten = disk.remove(MEMBERSHIP_FILE).and_then(|()| journal::forget(&*disk));
        if let Err(e) = &forgotten
            && !*unforgotten
        {
            let says = disk_words::refusal(e);
            self.records.tell(&format!(
                "trouble: what belongs to the run cannot be removed: {says}; until it can, a start is in it again"
            ));
        }
        *unforgotten = forgotten.is_err();
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
