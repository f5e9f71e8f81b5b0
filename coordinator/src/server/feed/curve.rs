//! A curve that never grows: once it has as many points as it may, neighbours are taken together. Of what was taken
//! together the newest stands for all, and the least and the greatest value are kept, so that a peak is never thinned
//! away.

use crate::server::history::{LossPoint, VersionPoint};
use nightjar_shared::time::Wall;
use serde::Serialize;

/// A point that can take in the one behind it.
pub trait Join {
    /// Takes in the point behind it.
    fn join(&mut self, later: Self);
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Curve<P> {
    most: usize,
    /// How many points one stands for.
    stride: u64,
    points: Vec<P>,
    /// How many points the last one stands for so far.
    in_last: u64,
}

impl<P: Join> Curve<P> {
    /// One of at most so many points, and of two at least.
    pub fn new(most: usize) -> Self {
        Curve { most: most.max(2) / 2 * 2, stride: 1, points: vec![], in_last: 0 }
    }

    /// Adds a point behind the last.
    pub fn push(&mut self, point: P) {
        if let Some(last) = self.points.last_mut().filter(|_| self.in_last < self.stride) {
            last.join(point);
            self.in_last += 1;
            return;
        }
        if self.points.len() == self.most {
            self.halve();
        }
        self.points.push(point);
        self.in_last = 1;
    }

    /// All of them are whole here, and their number is even.
    fn halve(&mut self) {
        let mut pairs = Vec::with_capacity(self.most);
        let mut points = self.points.drain(..);
        while let Some(mut first) = points.next() {
            points.next().into_iter().for_each(|second| first.join(second));
            pairs.push(first);
        }
        drop(points);
        self.points = pairs;
        self.stride *= 2;
    }

    /// All points, the newest last.
    pub fn points(&self) -> &[P] {
        &self.points
    }
}

/// Measurements of held-out loss, one or several that follow each other: the newest, and how far all of them went.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LossSpan {
    /// The newest.
    #[serde(flatten)]
    pub newest: LossPoint,
    /// The least loss, nats a byte.
    pub loss_min: f64,
    /// The greatest loss, nats a byte.
    pub loss_max: f64,
}

impl From<LossPoint> for LossSpan {
    fn from(newest: LossPoint) -> Self {
        LossSpan { loss_min: newest.loss, loss_max: newest.loss, newest }
    }
}

impl Join for LossSpan {
    fn join(&mut self, later: Self) {
        self.newest = later.newest;
        self.loss_min = self.loss_min.min(later.loss_min);
        self.loss_max = self.loss_max.max(later.loss_max);
    }
}

/// Versions, one or several that follow each other: the newest, and how far their rounds and their agreement went.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VersionSpan {
    /// The newest.
    #[serde(flatten)]
    pub newest: VersionPoint,
    /// How many versions these are.
    pub versions: u64,
    /// Time since the version before, milliseconds, together; null of the first version.
    pub round_ms: Option<u64>,
    /// The shortest.
    pub round_ms_min: Option<u64>,
    /// The longest.
    pub round_ms_max: Option<u64>,
    /// The share of signal in the newest one's deltas; null where it was not measured by this process.
    pub agreement: Option<f64>,
    /// The least.
    pub agreement_min: Option<f64>,
    /// The greatest.
    pub agreement_max: Option<f64>,
}

impl VersionSpan {
    /// A version, with when the one before it was published, and how far its deltas agreed.
    pub fn new(newest: VersionPoint, before: Option<Wall>, agreement: Option<f64>) -> Self {
        let round_ms = before.map(|before| newest.wall.unix_ms.saturating_sub(before.unix_ms));
        VersionSpan {
            newest,
            versions: 1,
            round_ms,
            round_ms_min: round_ms,
            round_ms_max: round_ms,
            agreement,
            agreement_min: agreement,
            agreement_max: agreement,
        }
    }
}

/// Of two values that may be unknown the one that `choose` takes.
fn both<T: Copy>(a: Option<T>, b: Option<T>, choose: impl Fn(T, T) -> T) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(choose(a, b)),
        (known, unknown) => known.or(unknown),
    }
}

impl Join for VersionSpan {
    fn join(&mut self, later: Self) {
        self.newest = later.newest;
        self.versions += later.versions;
        self.round_ms = both(self.round_ms, later.round_ms, |a, b| a + b);
        self.round_ms_min = both(self.round_ms_min, later.round_ms_min, u64::min);
        self.round_ms_max = both(self.round_ms_max, later.round_ms_max, u64::max);
        self.agreement = later.agreement.or(self.agreement);
        self.agreement_min = both(self.agreement_min, later.agreement_min, f64::min);
        self.agreement_max = both(self.agreement_max, later.agreement_max, f64::max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(version: u64, loss: f64) -> LossSpan {
        LossPoint { version, wall: Wall { unix_ms: version }, tokens: version * 10, loss }.into()
    }

    #[test]
    fn a_long_run_has_few_points_its_newest_and_all_its_peaks() {
        let mut curve = Curve::new(100);
        for version in 0..1_000_003 {
            let peak = version == 333_333;
            curve.push(loss(version, if peak { 9.0 } else { 1.0 }));
            assert!(curve.points().len() <= 100);
            assert_eq!(curve.points().last().map(|span| span.newest.version), Some(version), "the newest is there");
        }
        let points = curve.points();
        assert!(points.len() > 50, "{}", points.len());
        let peaks: Vec<_> = points.iter().filter(|span| span.loss_max == 9.0).collect();
        assert_eq!((peaks.len(), peaks[0].loss_min, peaks[0].newest.loss), (1, 1.0, 1.0));
        assert!(points.is_sorted_by_key(|span| span.newest.version));
    }

    #[test]
    fn a_short_run_is_told_point_by_point() {
        let mut curve = Curve::new(4);
        (0..4).for_each(|version| curve.push(loss(version, version as f64)));
        assert_eq!(curve.points().len(), 4);
        assert!(curve.points().iter().all(|span| span.loss_min == span.loss_max));
        curve.push(loss(4, 4.0));
        let told: Vec<_> = curve.points().iter().map(|s| (s.newest.version, s.loss_min, s.loss_max)).collect();
        assert_eq!(told, [(1, 0.0, 1.0), (3, 2.0, 3.0), (4, 4.0, 4.0)]);
    }

    #[test]
    fn rounds_add_up_and_unknown_values_stay_unknown() {
        let point = |version, unix_ms| VersionPoint {
            version,
            wall: Wall { unix_ms },
            tokens: 0,
            update_bytes: 0,
            keyframe_bytes: 0,
        };
        let mut span = VersionSpan::new(point(0, 1000), None, None);
        assert_eq!((span.round_ms, span.agreement_max), (None, None));
        span.join(VersionSpan::new(point(1, 4000), Some(Wall { unix_ms: 1000 }), Some(0.5)));
        span.join(VersionSpan::new(point(2, 5000), Some(Wall { unix_ms: 4000 }), None));
        assert_eq!((span.versions, span.round_ms), (3, Some(4000)));
        assert_eq!((span.round_ms_min, span.round_ms_max), (Some(1000), Some(3000)));
        assert_eq!((span.agreement, span.agreement_min), (Some(0.5), Some(0.5)));
    }
}
