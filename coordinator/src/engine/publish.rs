//! When the next version is due, and what follows once it is made.

use super::{
    Engine,
    event::{Action, Published},
    record::{Record, VersionRecord},
    turn::Turn,
};
use nightjar_shared::{ids::Version, time::Mono, wire::limits};
use std::time::Duration;

impl Engine {
    /// Orders the next version once it is due: the first; when the grace period after a quorum of deltas is over; with
    /// whatever there is when the budget is reached. No device in particular is waited for.
    pub(super) fn publish_if_due(&mut self, now: Mono, turn: &mut Turn) {
        if self.publishing.is_some() {
            return;
        }
        let version = match self.versions.newest() {
            None => Version(0),
            Some(newest) => {
                let (version, buffered) = (newest.version.next(), self.buffered());
                let is_due = if self.finished() {
                    buffered > 0 || self.spec.has_series() && self.series_is_due(newest.version, buffered, now)
                } else if self.spec.has_series() {
                    self.series_is_due(newest.version, buffered, now)
                } else if self.spec.has_rounds() {
                    self.round_is_complete(buffered, now)
                } else {
                    buffered >= self.spec.quorum() && !self.is_in_grace(now)
                };
                if !is_due {
                    return;
                }
                version
            }
        };
        // However rare keyframes are to be, one must be in reach of the longest path.
        let every = self.spec.publish.keyframe_every.min(limits::UPDATE_STEPS_MAX as u64);
        let given = self.given(version);
        // Where blobs are lost, a newcomer may have nowhere to begin.
        let has_no_way = given.is_some() || !self.versions.has_beginning();
        let keyframe = version.0.is_multiple_of(every) || has_no_way || self.ends_series(version);
        self.publishing = Some(version);
        self.grace_until = None;
        turn.effects.push(Action::Publish { version, keyframe, through_seq: self.last_seq, given });
    }

    /// Whether more deltas are to be waited for, now that the quorum is there.
    fn is_in_grace(&mut self, now: Mono) -> bool {
        let grace_s = self.spec.grace_s(self.round_s());
        grace_s > 0.0 && now < *self.grace_until.get_or_insert(now + Duration::from_secs_f64(grace_s))
    }

    /// Deltas that are merged and not published yet.
    pub(super) fn buffered(&self) -> u64 {
        self.last_seq - self.versions.newest().map_or(0, |v| v.through_seq)
    }

    pub(super) fn published(&mut self, published: Published, now: Mono, turn: &mut Turn) {
        let Published { version, update, keyframe, digest, through_seq, agreement, squashes, given } = published;
        if self.publishing != Some(version) {
            return;
        }
        self.publishing = None;
        if given.is_none() {
            self.round.adapt(agreement, through_seq - self.versions.newest().map_or(0, |v| v.through_seq));
            self.agreement = agreement;
        }
        let record =
            VersionRecord { version, update, keyframe, given, digest, through_seq, published_at: self.wall, squashes };
        turn.records.push(Record::Version(record.clone()));
        self.versions.push(record);
        self.series_went_on(now, turn);
        // Weights that were given meanwhile come first: devices wait for those.
        if self.given(version.next()).is_none() {
            self.next_round(true, now, turn);
        }
    }
}
