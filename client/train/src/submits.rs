//! How much a GPU is given at once. Whoever draws the owner's windows on the same GPU waits for what it was given before,
//! so that must be short. The runtime gathers so many launches in one submit, a number that is fixed when the device is
//! opened; what a submit takes is measured while training, and the number that suits is kept for the next start.

use serde_json::{Map, Value};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// A submit should take no longer: half a frame.
pub const SUBMIT_MAX: Duration = Duration::from_millis(8);
/// Shorter ones than this cost more than they give.
const SUBMIT_MIN: Duration = Duration::from_millis(2);
/// What is aimed at where it has to change.
const SUBMIT_AIM: Duration = Duration::from_millis(5);
/// Most launches in a submit: the runtime's own default.
const LAUNCHES_MAX: usize = 32;
/// A worker's owner may set it, as for all programs on this runtime.
const VARIABLE: &str = "CUBECL_WGPU_MAX_TASKS";
/// Where the numbers are kept, in the cache's folder.
const FILE: &str = "submits.json";
/// The newest measurement counts so much.
const NEWEST: f64 = 0.2;
/// The device is never more than so many seconds behind: what was given to it is done even after its owner has had the
/// worker frozen.
const AHEAD_S_MAX: f64 = 0.05;

/// What a device gathers in a submit, and how to ask it how many there were.
#[derive(Clone, Debug)]
pub struct Submits {
    queue: wgpu::Queue,
    launches: usize,
    adapter: String,
    file: Option<PathBuf>,
}

/// Launches in a submit for an adapter, as far as an earlier start has found out; `None` leaves it to the runtime.
pub(crate) fn launches(adapter: &str, cache: Option<&Path>) -> Option<usize> {
    if std::env::var_os(VARIABLE).is_some() {
        return None;
    }
    let known = read(&cache?.join(FILE)).get(adapter)?.as_u64()?;
    Some(usize::try_from(known).ok()?.clamp(1, LAUNCHES_MAX))
}

/// The numbers kept, by adapter; a damaged file is worth no more than none.
fn read(file: &Path) -> Map<String, Value> {
    fs::read(file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// The number that suits, where a submit of `launches` takes `mean`.
fn suited(launches: usize, mean: Duration) -> usize {
    if (SUBMIT_MIN..=SUBMIT_MAX).contains(&mean) {
        return launches;
    }
    let suited = launches as f64 * SUBMIT_AIM.as_secs_f64() / mean.as_secs_f64().max(1e-9);
    (suited as usize).clamp(1, LAUNCHES_MAX)
}

impl Submits {
    /// Of a device that was opened with so many launches in a submit, or as the runtime likes.
    pub(crate) fn new(queue: wgpu::Queue, launches: Option<usize>, adapter: &str, cache: Option<&Path>) -> Self {
        let own_choice = std::env::var_os(VARIABLE).is_none();
        let file = cache.filter(|_| own_choice).map(|folder| folder.join(FILE));
        Submits { queue, launches: launches.unwrap_or(LAUNCHES_MAX), adapter: adapter.into(), file }
    }

    /// Notes the number that suits for the next start. What cannot be noted is measured again.
    fn remember(&self, mean: Duration) {
        let Some(file) = &self.file else { return };
        let suited = suited(self.launches, mean);
        let mut kept = read(file);
        if kept.get(&self.adapter).and_then(Value::as_u64).unwrap_or(LAUNCHES_MAX as u64) != suited as u64 {
            kept.insert(self.adapter.clone(), suited.into());
            let _ = fs::write(file, Value::Object(kept).to_string());
        }
    }

    /// The number of a submit of nothing, which tells how many there were before. wgpu hands it out in its debug format
    /// only; where that changes, nothing is known.
    fn number(&self) -> Option<u64> {
        let text = format!("{:?}", self.queue.submit([]));
        let digits: String = text.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    }
}

/// How many layers are given to the device before it is waited for.
#[derive(Debug, Default)]
struct Ahead {
    /// Since it was last waited for.
    layers: u32,
    /// Of the micro-batch.
    given: u32,
    /// Seconds of one, as the last micro-batch had it.
    layer_s: Option<f64>,
}

impl Ahead {
    /// One more is about to be given; whether the device is to be waited for first.
    fn is_enough(&mut self) -> bool {
        let is_enough = self.layer_s.is_none_or(|layer_s| f64::from(self.layers + 1) * layer_s > AHEAD_S_MAX);
        self.layers = if is_enough { 1 } else { self.layers + 1 };
        self.given += 1;
        is_enough
    }

    /// The device has done them all.
    fn done(&mut self, took_s: f64) {
        if self.given > 0 {
            self.layer_s = Some(took_s / f64::from(self.given));
        }
        (self.layers, self.given) = (0, 0);
    }
}

/// Measures the submits of a lease.
#[derive(Debug)]
pub(crate) struct Gauge {
    submits: Option<Submits>,
    ahead: Ahead,
    since: Option<(u64, Instant)>,
    mean_s: Option<f64>,
}

impl Gauge {
    /// Without submits it measures nothing.
    pub fn new(submits: Option<Submits>) -> Self {
        Gauge { submits, ahead: Ahead::default(), since: None, mean_s: None }
    }

    /// The device has nothing to do, and is given something now.
    pub fn begin(&mut self) {
        self.since = self.submits.as_ref().and_then(Submits::number).map(|number| (number, Instant::now()));
    }

    /// It has done all that it was given.
    pub fn end(&mut self) {
        let Some((before, began)) = self.since.take() else { return };
        let took = began.elapsed().as_secs_f64();
        self.ahead.done(took);
        let after = self.submits.as_ref().and_then(Submits::number).unwrap_or(before);
        // The last is the one that asks.
        let submits = after.saturating_sub(before + 1);
        if submits > 0 {
            let each = took / submits as f64;
            self.mean_s = Some(self.mean_s.map_or(each, |mean| mean + NEWEST * (each - mean)));
        }
    }

    /// A layer is about to be given to the device; whether it is to be waited for first. The processor has no queue.
    pub fn is_enough_ahead(&mut self) -> bool {
        self.submits.is_some() && self.ahead.is_enough()
    }

    /// How long a submit takes.
    pub fn mean(&self) -> Option<Duration> {
        self.mean_s.map(Duration::from_secs_f64)
    }

    /// What was measured does not hold any more.
    pub fn forget(&mut self) {
        (self.ahead, self.since, self.mean_s) = (Ahead::default(), None, None);
    }

    /// Whether a submit takes too long and cannot be made shorter by giving it fewer launches: there must be less in each.
    pub fn is_at_its_end(&self) -> bool {
        self.submits.as_ref().is_some_and(|s| s.launches == 1) && self.mean().is_some_and(|mean| mean > SUBMIT_MAX)
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        if let (Some(submits), Some(mean)) = (&self.submits, self.mean()) {
            submits.remember(mean);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn submits_that_are_too_long_or_too_short_change_the_number() {
        let ms = Duration::from_millis;
        assert_eq!(suited(32, ms(8)), 32);
        assert_eq!(suited(32, ms(16)), 10);
        assert_eq!(suited(10, ms(5)), 10, "what suits stays");
        assert_eq!(suited(10, ms(1)), 32, "never more than the runtime's own");
        assert_eq!(suited(2, ms(1)), 10);
        assert_eq!(suited(1, ms(500)), 1, "never none");
        assert_eq!(suited(4, Duration::ZERO), 32);
    }

    #[test]
    fn the_device_is_waited_for_before_it_falls_too_far_behind() {
        let mut ahead = Ahead::default();
        let mut waits = |layers: u32, took_s: f64| {
            let waits = (0..layers).filter(|_| ahead.is_enough()).count();
            ahead.done(took_s);
            waits
        };
        assert_eq!(waits(24, 0.48), 24, "nothing is known yet");
        assert_eq!(waits(24, 0.024), 11, "two layers of 20 ms at a time");
        assert_eq!(waits(24, 4.8), 0, "24 of 1 ms are short");
        assert_eq!(waits(24, 4.8), 24, "each of 200 ms is too long already");
        // Smaller micro-batches are measured anew.
        assert_eq!(waits(24, 0.24), 24);
    }

    #[test]
    fn what_was_kept_is_taken_within_bounds() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Some(folder.path());
        assert_eq!(launches("A", cache), None);
        fs::write(folder.path().join(FILE), r#"{ "A": 7, "B": 0, "C": 1e9, "D": "x" }"#).unwrap();
        let all = ["A", "B", "C", "D", "E"].map(|adapter| launches(adapter, cache));
        assert_eq!(all, [Some(7), Some(1), None, None, None]);
        fs::write(folder.path().join(FILE), "torn").unwrap();
        assert_eq!(launches("A", cache), None);
        assert_eq!(launches("A", None), None);
    }
}
