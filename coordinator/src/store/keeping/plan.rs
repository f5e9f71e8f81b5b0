//! What may go, by the rule and by what still needs it. Pure: what there is and what time it is are arguments.

use super::{Kept, Point};
use nightjar_shared::{ids::Version, run_spec::KeepSpec, time::Wall};

/// Newest checkpoints that always stay: should the last one turn out damaged, less has to be merged again.
const NEWEST_CHECKPOINTS: usize = 2;
/// Of the deltas that stay, a checkpoint stays at about every so-manieth part: the next one that replays may begin at.
const PARTS: f64 = 4.0;
const DAY_MS: f64 = 86_400_000.0;

/// What a decision is made of.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    /// The rule.
    pub rule: &'a KeepSpec,
    /// What is kept now.
    pub kept: Kept,
    /// The newest version.
    pub newest: Version,
    /// The newest merged delta.
    pub last_seq: u64,
    /// The oldest version that an open lease starts from: its device may ask for the way there again.
    pub oldest_base: Option<Version>,
    /// The newest version that is as old as the rule's days ask for; `None` if there is none, or no days are asked for.
    pub old_enough: Option<Version>,
    /// Checkpoints that are there and have a link, oldest first.
    pub checkpoints: &'a [Point],
    /// The time.
    pub now: Wall,
}

impl Situation<'_> {
    /// The checkpoints that a start may need, oldest first.
    fn newest_checkpoints(&self) -> &[Point] {
        &self.checkpoints[self.checkpoints.len().saturating_sub(NEWEST_CHECKPOINTS)..]
    }

    /// The oldest checkpoint that a start may need, once there are enough of them.
    fn spare(&self) -> Option<&Point> {
        self.newest_checkpoints().first().filter(|_| self.checkpoints.len() >= NEWEST_CHECKPOINTS)
    }

    fn is_old_enough(&self, point: &Point) -> bool {
        let age_ms = self.now.unix_ms.saturating_sub(point.published_at.unix_ms) as f64;
        self.rule.days.is_none_or(|days| age_ms >= days * DAY_MS)
    }

    /// The newest version that all before it may be given up for, if it has a keyframe; else one before it that has.
    pub fn version_bound(&self) -> Option<Version> {
        // One after the other: who is on the way over what was given up last is known by one lease's number.
        if !self.rule.gives_up_versions() || self.kept.removed_versions < self.kept.first_version {
            return None;
        }
        let counted = self.rule.versions.map_or(Some(self.newest.0), |most| (self.newest.0 + 1).checked_sub(most));
        let aged = if self.rule.days.is_some() { self.old_enough? } else { self.newest };
        let bound = Version(counted?).min(aged).min(self.spare()?.version);
        Some(self.oldest_base.map_or(bound, |base| bound.min(base)))
    }

    /// The checkpoint that the deltas up to it may be given up for; `None` if no more may be than are.
    pub fn anchor(&self) -> Option<Point> {
        if !self.rule.gives_up_deltas() {
            return None;
        }
        let spare = self.spare()?;
        let is_counted =
            |p: &Point| self.rule.deltas.is_none_or(|most| self.last_seq.saturating_sub(p.through_seq) >= most);
        let mut candidates = self.checkpoints.iter().rev().filter(|p| p.version <= spare.version);
        let anchor = candidates.find(|p| is_counted(p) && self.is_old_enough(p))?;
        Some(*anchor).filter(|anchor| anchor.through_seq > self.kept.after_seq)
    }

    /// Checkpoints that nothing needs, once deltas up to `after_seq` are given up: those before the one that replays begin
    /// at, and of those after it all that are close to another.
    pub fn idle_checkpoints(&self, after_seq: u64) -> Vec<Version> {
        let newest = self.newest_checkpoints();
        let older = &self.checkpoints[..self.checkpoints.len() - newest.len()];
        let begins = |p: &&Point| after_seq > 0 && p.through_seq <= after_seq;
        let anchor = self.checkpoints.iter().rfind(begins).map(|p| p.version);
        let mut idle = vec![];
        // Without a rule the way from version 0 stays whole, and no other beginning is needed.
        let needs_steps = self.rule.gives_up_deltas();
        let mut last: Option<&Point> = None;
        for point in older {
            let stays = match anchor {
                Some(anchor) if point.version < anchor => false,
                Some(anchor) if point.version == anchor => true,
                _ => needs_steps && last.map_or(point.through_seq > 0, |last| self.is_far(last, point)),
            };
            if stays {
                last = Some(point);
            } else {
                idle.push(point.version);
            }
        }
        idle
    }

    /// Whether two checkpoints lie so far apart that both are worth their room, by every limit that is set.
    fn is_far(&self, older: &Point, newer: &Point) -> bool {
        let deltas = newer.through_seq.saturating_sub(older.through_seq) as f64;
        let ms = newer.published_at.unix_ms.saturating_sub(older.published_at.unix_ms) as f64;
        self.rule.deltas.is_none_or(|most| deltas >= most as f64 / PARTS)
            && self.rule.days.is_none_or(|days| ms >= days * DAY_MS / PARTS)
    }
}

/// The wall time before which something is as old as the rule asks for; `None` if it asks for no age.
pub fn old_since(rule: &KeepSpec, now: Wall) -> Option<Wall> {
    let days = rule.days?;
    Some(Wall { unix_ms: now.unix_ms.saturating_sub((days * DAY_MS) as u64) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: u64 = 86_400_000;

    /// Checkpoints every 10 versions, 5 deltas and a tenth of a day a version.
    fn points(versions: u64) -> Vec<Point> {
        let point = |v| Point { version: Version(v), through_seq: 5 * v, published_at: Wall { unix_ms: v * DAY / 10 } };
        (0..=versions).step_by(10).map(point).collect()
    }

    fn situation<'a>(rule: &'a KeepSpec, checkpoints: &'a [Point], newest: u64) -> Situation<'a> {
        let now = Wall { unix_ms: newest * DAY / 10 };
        let old_since = old_since(rule, now);
        Situation {
            rule,
            kept: Kept::default(),
            newest: Version(newest),
            last_seq: 5 * newest,
            oldest_base: None,
            old_enough: old_since.map(|at| Version(at.unix_ms * 10 / DAY)),
            checkpoints,
            now,
        }
    }

    fn rule(versions: Option<u64>, deltas: Option<u64>, days: Option<f64>) -> KeepSpec {
        KeepSpec { versions, deltas, days, milestones: None }
    }

    #[test]
    fn without_a_rule_all_stays_but_older_checkpoints() {
        let (rule, points) = (KeepSpec::default(), points(100));
        let all = situation(&rule, &points, 105);
        assert_eq!((all.version_bound(), all.anchor()), (None, None));
        assert_eq!(all.idle_checkpoints(0).len(), points.len() - 2);
    }

    #[test]
    fn every_limit_that_is_set_has_to_let_it_go() {
        let points = points(1000);
        let of = |rule: KeepSpec| {
            let now = situation(&rule, &points, 1000);
            (now.version_bound().map(|v| v.0), now.anchor().map(|p| p.version.0))
        };
        assert_eq!(of(rule(Some(100), None, None)), (Some(901), None));
        assert_eq!(of(rule(None, Some(100), None)), (None, Some(980)));
        assert_eq!(of(rule(None, None, Some(20.0))), (Some(800), Some(800)), "200 versions in 20 days");
        assert_eq!(of(rule(Some(100), Some(100), Some(20.0))), (Some(800), Some(800)));
        assert_eq!(of(rule(Some(300), Some(2500), Some(20.0))), (Some(701), Some(500)));
        assert_eq!(of(rule(Some(2000), Some(9999), None)), (None, None), "there are not so many yet");
        assert_eq!(of(rule(Some(1), Some(0), None)), (Some(990), Some(990)), "what a start may need");
        assert_eq!(of(rule(None, None, Some(100.5))), (Some(0), None));
    }

    #[test]
    fn what_a_device_on_its_way_starts_from_stays() {
        let (rule, points) = (rule(Some(10), None, None), points(100));
        let mut now = situation(&rule, &points, 100);
        now.oldest_base = Some(Version(33));
        assert_eq!(now.version_bound(), Some(Version(33)));
        now.kept = Kept { first_version: Version(20), ..Kept::default() };
        assert_eq!(now.version_bound(), None, "what was given up last is still needed");
        (now.kept, now.checkpoints) = (Kept::default(), &points[..1]);
        assert_eq!(now.version_bound(), None, "one checkpoint is none to spare");
    }

    proptest! {
        /// Whatever the rule, and however long a run: enough stays, and not much more.
        #[test]
        fn a_run_keeps_what_it_needs_and_few_checkpoints(
            deltas in prop::option::of(0u64..3000),
            days in prop::option::of(0.5f64..60.0),
            newest in 30u64..2000,
        ) {
            let (rule, all) = (rule(None, deltas, days), points(newest));
            let mut there: Vec<Point> = vec![];
            let mut kept = Kept::default();
            for (at, point) in all.iter().enumerate() {
                there.push(*point);
                let mut now = situation(&rule, &there, point.version.0 + 3);
                now.kept = kept;
                if let Some(anchor) = now.anchor() {
                    prop_assert!(anchor.through_seq > kept.after_seq);
                    prop_assert!(deltas.is_none_or(|most| now.last_seq - anchor.through_seq >= most));
                    prop_assert!(now.is_old_enough(&anchor));
                    kept.after_seq = anchor.through_seq;
                }
                let idle = now.idle_checkpoints(kept.after_seq);
                there.retain(|p| !idle.contains(&p.version));
                // The newest two, and the one that everything after is merged again from.
                prop_assert!(there.iter().rev().take(2).map(|p| p.version).eq(
                    all[..=at].iter().rev().take(2).map(|p| p.version)));
                prop_assert!(kept.after_seq == 0 || there[0].through_seq == kept.after_seq);
                prop_assert!(there.len() <= 10, "{} checkpoints", there.len());
            }
            if deltas.is_some() || days.is_some() {
                // A quarter more than is asked for, and what lies between two checkpoints.
                let asked = deltas.unwrap_or(0).max((days.unwrap_or(0.0) * 50.0) as u64);
                prop_assert!(5 * newest - kept.after_seq <= asked + asked / 4 + 250, "{}", kept.after_seq);
            }
        }
    }
}
