//! Blobs under way: what the lease at hand needs, one after the other, and the pending delta's upload.

use super::{Action, Fault, Report, Session, Stage, Timer, Upload, work::UNABLE_RETRY};
use nightjar_shared::{ids::BlobHash, time::Mono, wire::RefusalCode};

/// A lease is given back after its blobs could not be fetched this often over a working link.
const FETCH_FAILURES_MAX: u32 = 5;

impl Session {
    pub(super) fn advance_blobs(&mut self, out: &mut Vec<Action>) {
        if self.timers.pending(Timer::Transfer) {
            return;
        }
        let Some(lease) = &self.journal.lease else { return };
        if self.stage == (Stage::Delivering { upload: Upload::Wanted })
            && self.greeted()
            && self.is_stored()
            && let Some(delta) = &self.journal.delta
        {
            out.push(Action::Upload { lease: lease.id, blob: delta.trained.delta, file: delta.file.clone() });
            self.stage = Stage::Delivering { upload: Upload::Underway };
        } else if let Stage::Fetching { fetched, underway: false } = self.stage
            && self.may_train()
            && self.disk_works()
            && let Some(blob) = lease.blobs().nth(fetched)
        {
            out.push(Action::Fetch(blob));
            self.stage = Stage::Fetching { fetched, underway: true };
        }
    }

    pub(super) fn blob_fetched(&mut self, hash: BlobHash) {
        if let Some(fetched) = self.awaits(hash) {
            self.stage = Stage::Fetching { fetched: fetched + 1, underway: false };
            self.words.trouble.clear();
            self.disk_served();
            self.timers.clear(Timer::Transfer);
        }
    }

    /// Shards that were only kept for later leases are gone; of the lease at hand none is.
    pub(super) fn evicted(&mut self, shards: &[BlobHash], out: &mut Vec<Action>) {
        let needed = self.journal.lease.as_ref().map(|l| l.shard.hash);
        self.journal.shards.retain(|s| Some(s.hash) == needed || !shards.contains(&s.hash));
        self.commit(out);
    }

    pub(super) fn fetch_failed(&mut self, hash: BlobHash, fault: Fault, now: Mono, out: &mut Vec<Action>) {
        let Some(fetched) = self.awaits(hash) else { return };
        self.stage = Stage::Fetching { fetched, underway: false };
        if let Fault::NoRoom(why) = fault {
            self.timers.set(Timer::Work, now + UNABLE_RETRY);
            out.push(Action::Report(Report::Trouble(why.clone())));
            self.words.trouble.clone_from(&why);
            self.words.obstacle.clone_from(&why);
            self.stage = Stage::Returning { why };
            return;
        }
        if let Fault::Disk(why) = fault {
            return self.disk_refused(why, now, out);
        }
        self.words.transfer_fault = fault.to_string();
        self.timers.back_off(Timer::Transfer, now);
        let gone = matches!(&fault, Fault::Refused(r) if r.code() == RefusalCode::NotFound);
        if let Fault::Refused(refusal) = fault
            && !gone
        {
            self.refused(refusal, now, out);
        }
        if gone || (self.greeted() && self.timers.attempts(Timer::Transfer) >= FETCH_FAILURES_MAX) {
            self.give_back(format!("the blob {} could not be fetched", hash.short()), now);
        }
    }

    /// How many blobs were fetched before this one, if this is the one on its way.
    fn awaits(&self, hash: BlobHash) -> Option<usize> {
        let Stage::Fetching { fetched, underway: true } = self.stage else { return None };
        let awaited = self.journal.lease.as_ref()?.blobs().nth(fetched)?;
        (awaited.hash == hash).then_some(fetched)
    }

    pub(super) fn upload_ended(&mut self, fault: Option<Fault>, now: Mono, out: &mut Vec<Action>) {
        if self.stage != (Stage::Delivering { upload: Upload::Underway }) {
            return;
        }
        self.stage = Stage::Delivering { upload: Upload::Unasked };
        if let Some(fault) = &fault {
            self.words.transfer_fault = fault.to_string();
        }
        match fault {
            None => self.timers.clear(Timer::Transfer),
            Some(Fault::Refused(refusal)) => {
                self.timers.back_off(Timer::Transfer, now);
                self.refused(refusal, now, out);
            }
            Some(Fault::Broken(_)) => self.timers.back_off(Timer::Transfer, now),
            Some(Fault::Disk(why)) => self.disk_refused(why, now, out),
            Some(Fault::Untrue(why)) => self.delta_is_untrue(why, now, out),
            Some(Fault::FileGone | Fault::NoRoom(_)) => {
                let why = "its delta is no longer on this computer's disk";
                self.set_back(why, now);
                self.drop_lease(why.into(), out);
            }
        }
    }
}
