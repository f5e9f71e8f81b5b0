//! How much a GPU is given at once. Whoever draws the owner's windows on the same GPU waits for what it was given
//! before, so that must be short. The runtime gathers so many launches in one submit, a number that is fixed when the
//! device is opened; what a submit takes is measured while training, by the device's own clock where it has one, and
//! the number that suits is kept for the next start.

use burn::{
    backend::{Backend, Dispatch, ProfileToken},
    tensor::{Device, ProfileDuration, ProfileOptions, read_sync},
};
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
/// The first micro-batches are not measured: the device waits for kernels that are compiled and tuned.
const UNMEASURED: u32 = 3;
/// Of the later ones every so manyth is, and costs a percent or two.
const MEASURED_EVERY: u32 = 64;
/// A micro-batch that took seconds, and this many times as long as the one before, was not computed all that time: the
/// process was frozen, or the computer slept, and between two launches the device's clock went on.
const FROZEN: f64 = 8.0;
/// Less is what any busy computer does now and then.
const FROZEN_S_MIN: f64 = 2.0;
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

/// The number that suits, where the longest submit of `launches` takes so long.
fn suited(launches: usize, longest: Duration) -> usize {
    if (SUBMIT_MIN..=SUBMIT_MAX).contains(&longest) {
        return launches;
    }
    let suited = launches as f64 * SUBMIT_AIM.as_secs_f64() / longest.as_secs_f64().max(1e-9);
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
    fn remember(&self, longest: Duration) {
        let Some(file) = &self.file else { return };
        let suited = suited(self.launches, longest);
        let mut kept = read(file);
        if kept.get(&self.adapter).and_then(Value::as_u64).unwrap_or(LAUNCHES_MAX as u64) != suited as u64 {
            kept.insert(self.adapter.clone(), suited.into());
            let _ = fs::write(file, Value::Object(kept).to_string());
        }
    }

    /// Whether those of this process are much longer than the owner of the GPU should notice: what suits is known, and
    /// counts from the next start on.
    pub(crate) fn are_too_long(&self) -> bool {
        let kept = self.file.as_ref().and_then(|file| read(file).get(&self.adapter)?.as_u64());
        kept.is_some_and(|kept| 2 * kept <= self.launches as u64)
    }

    /// The number of a submit of nothing, which tells how many there were before. wgpu hands it out in its debug format
    /// only; where that changes, nothing is known.
    fn number(&self) -> Option<u64> {
        let text = format!("{:?}", self.queue.submit([]));
        let digits: String =
            text.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
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

/// What was given between two gates, seen from the device.
struct Stretch {
    submits: u64,
    time: ProfileDuration,
}

impl Stretch {
    /// Seconds of one of its submits; `None` if the device did not stamp it. To be asked when the device is done, else
    /// it is waited for.
    fn submit_s(self) -> Option<f64> {
        Some(read_sync(self.time.resolve())?.duration().as_secs_f64() / self.submits as f64)
    }
}

/// Measures the submits of a lease, and lets the device fall no farther behind than it may.
///
/// What counts is the longest submit there is. Single ones cannot be stamped, so it is that stretch between two gates
/// of a micro-batch whose submits take longest on the average: one layer's, or those of the last layer and the loss.
pub(crate) struct Gauge {
    device: Device,
    submits: Option<Submits>,
    ahead: Ahead,
    /// Micro-batches begun.
    begun: u32,
    since: Option<Instant>,
    /// Whether the micro-batch at hand is measured.
    measures: bool,
    /// The stretch at hand, with the number of the submit before it.
    open: Option<(ProfileToken, u64)>,
    stretches: Vec<Stretch>,
    longest_s: Option<f64>,
    /// Seconds of the fastest micro-batch, and how many there were: the first is slower for reasons of its own.
    took_s: Option<(f64, u32)>,
    /// Whether what was measured has been written down.
    remembered: bool,
}

/// Whether the `n`th micro-batch is measured.
fn is_measured(n: u32) -> bool {
    n == UNMEASURED || n > 0 && n.is_multiple_of(MEASURED_EVERY)
}

impl Gauge {
    /// Without submits there is no queue: it measures nothing and waits for nothing.
    pub fn new(submits: Option<Submits>, device: &Device) -> Self {
        Gauge {
            device: device.clone(),
            submits,
            ahead: Ahead::default(),
            begun: 0,
            since: None,
            measures: false,
            open: None,
            stretches: vec![],
            longest_s: None,
            took_s: None,
            remembered: false,
        }
    }

    /// The device has nothing to do, and is given a micro-batch now.
    pub fn begin(&mut self) {
        // Whatever a micro-batch left open that was stopped.
        self.abandon();
        self.since = Some(Instant::now());
        self.measures = self.submits.is_some() && is_measured(self.begun);
        self.begun += 1;
        self.open();
    }

    /// A layer is about to be given: waits until the device is not too far behind. The processor has no queue.
    pub fn layer(&mut self) {
        if self.submits.is_none() {
            return;
        }
        self.close();
        if self.ahead.is_enough() {
            let _ = self.device.sync();
        }
        self.open();
    }

    /// Waits until the device has done all that it was given. A fault of it shows when the step is read.
    pub fn end(&mut self) {
        self.close();
        let is_done = self.device.sync().is_ok();
        let Some(since) = self.since.take() else { return };
        let (took_s, usual) = (since.elapsed().as_secs_f64(), self.ahead.layer_s);
        self.ahead.done(took_s);
        let is_unusual = usual.zip(self.ahead.layer_s).is_some_and(|(usual, now)| now > FROZEN * usual);
        let was_frozen = is_unusual && took_s > FROZEN_S_MIN;
        if !was_frozen {
            let (fastest, times) = self.took_s.unwrap_or((took_s, 0));
            self.took_s = Some((fastest.min(took_s), times + 1));
        }
        let stretches = self.stretches.drain(..);
        if is_done
            && !was_frozen
            && let Some(longest) = stretches.filter_map(Stretch::submit_s).reduce(f64::max)
        {
            self.longest_s = Some(longest);
            // At once for the first time: who is killed has no time for it at the end.
            if !std::mem::replace(&mut self.remembered, true) {
                self.remember();
            }
        }
    }

    fn remember(&self) {
        if let (Some(submits), Some(longest)) = (&self.submits, self.longest()) {
            submits.remember(longest);
        }
    }

    /// How long a micro-batch takes, once two have shown it.
    pub fn took(&self) -> Option<Duration> {
        self.took_s.filter(|(_, times)| *times > 1).map(|(took_s, _)| Duration::from_secs_f64(took_s))
    }

    fn open(&mut self) {
        if !self.measures {
            return;
        }
        // What fusion holds back belongs to the stretch before.
        let _ = self.device.flush();
        let token = Dispatch::profile_start(self.device.as_dispatch()).ok().flatten();
        let before = self.submits.as_ref().and_then(Submits::number);
        self.open = token.zip(before);
    }

    fn close(&mut self) {
        let Some((token, before)) = self.open.take() else { return };
        let _ = self.device.flush();
        let after = self.submits.as_ref().and_then(Submits::number);
        // Ends the stretch and fetches the device's stamps, with submits of its own.
        let Ok(time) = Dispatch::profile_end(self.device.as_dispatch(), token, ProfileOptions::default()) else {
            return;
        };
        // The last is the one that asks for the number.
        if let Some(submits) = after.and_then(|after| after.checked_sub(before + 1)).filter(|submits| *submits > 0) {
            self.stretches.push(Stretch { submits, time });
        }
    }

    fn abandon(&mut self) {
        if let Some((token, _)) = self.open.take() {
            Dispatch::profile_abandon(self.device.as_dispatch(), token);
        }
        self.stretches.clear();
    }

    /// How long the longest submit takes, as far as it is known.
    pub fn longest(&self) -> Option<Duration> {
        self.longest_s.map(Duration::from_secs_f64)
    }

    /// What was measured does not hold any more.
    pub fn forget(&mut self) {
        self.abandon();
        (self.ahead, self.begun, self.since, self.longest_s, self.took_s) = (Ahead::default(), 0, None, None, None);
    }

    /// Whether a submit takes too long and cannot be made shorter by giving it fewer launches: there must be less in
    /// each.
    pub fn is_at_its_end(&self) -> bool {
        self.submits.as_ref().is_some_and(|s| s.launches == 1)
            && self.longest().is_some_and(|longest| longest > SUBMIT_MAX)
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.abandon();
        self.remember();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{DeviceKind, Tensor};
    use nightjar_shaders::{
        choice::{self, Choices},
        op,
    };

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
    fn what_is_much_too_long_is_known_until_the_next_start() {
        let Some((gauge, _)) = gauge(1) else { return };
        let queue = gauge.submits.as_ref().unwrap().queue.clone();
        let folder = tempfile::tempdir().unwrap();
        let submits = |launches| Submits::new(queue.clone(), launches, "A", Some(folder.path()));
        let first = submits(None);
        assert!(!first.are_too_long(), "nothing is known");
        first.remember(Duration::from_millis(9));
        assert!(
            !first.are_too_long() && launches("A", Some(folder.path())) == Some(17),
            "a little is not worth a start"
        );
        first.remember(Duration::from_millis(200));
        assert!(first.are_too_long());
        let next = submits(launches("A", Some(folder.path())));
        assert!(!next.are_too_long());
        next.remember(Duration::from_millis(1));
        assert!(!next.are_too_long(), "too short harms nobody");
    }

    /// On any adapter, software included; `None` where there is none outside CI.
    fn gauge(launches: usize) -> Option<(Gauge, Device)> {
        let options = Device::wgpu_options().device_kind(DeviceKind::DefaultDevice).tasks_max(launches);
        let Ok((device, setup)) = options.init_with_setup() else {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "no wgpu adapter");
            return None;
        };
        let submits = Submits::new(setup.queue, Some(launches), "A", None);
        Some((Gauge::new(Some(submits), &device), device))
    }

    #[test]
    fn submits_are_counted_and_timed_between_gates() {
        let Some((mut gauge, device)) = gauge(1) else { return };
        choice::set(Choices::all());
        let x = Tensor::<2>::ones([4, 8], &device);
        // Each a launch, and each launch a submit.
        let give = |launches: usize| (0..launches).map(|_| op::swiglu(&x)).collect::<Vec<_>>();
        give(1);
        gauge.measures = true;
        gauge.open();
        let mut kept = give(2);
        gauge.layer();
        kept.extend(give(5));
        gauge.close();
        assert_eq!(gauge.stretches.iter().map(|s| s.submits).collect::<Vec<_>>(), [2, 5]);
        device.sync().unwrap();
        let lengths: Vec<Option<f64>> = gauge.stretches.drain(..).map(Stretch::submit_s).collect();
        assert!(lengths.iter().all(|s| s.is_some_and(|s| s > 0.0)), "{lengths:?}");
    }

    /// Uploading a launch's parameters would end the submit before it.
    #[test]
    fn launches_of_our_kernels_are_gathered_in_a_submit() {
        let Some((mut gauge, device)) = gauge(LAUNCHES_MAX) else { return };
        choice::set(Choices::all());
        // Each of another size, so that no two have the same parameters.
        let all: Vec<_> = (1..=10).map(|rows| Tensor::<2>::ones([rows, 8], &device)).collect();
        device.sync().unwrap();
        gauge.measures = true;
        gauge.open();
        let kept: Vec<_> = all.iter().map(op::swiglu).collect();
        gauge.close();
        assert_eq!(gauge.stretches.iter().map(|s| s.submits).collect::<Vec<_>>(), [1]);
        drop(kept);
    }

    #[test]
    fn micro_batches_are_measured_when_their_kernels_are_known() {
        assert_eq!((0..200).filter(|n| is_measured(*n)).collect::<Vec<_>>(), [3, 64, 128, 192]);
        let Some((mut gauge, device)) = gauge(32) else { return };
        let mut x = Tensor::<2>::ones([4, 8], &device);
        let mut micro_batch = |gauge: &mut Gauge| {
            gauge.begin();
            for _ in 0..3 {
                gauge.layer();
                x = x.clone().mul_scalar(0.5).exp();
            }
            gauge.end();
            gauge.longest().is_some()
        };
        assert_eq!([0; 5].map(|_| micro_batch(&mut gauge)), [false, false, false, true, true]);
        gauge.forget();
        assert_eq!([0; 4].map(|_| micro_batch(&mut gauge)), [false, false, false, true]);
        // One that is stopped in the middle leaves nothing behind.
        gauge.begun = UNMEASURED;
        gauge.begin();
        gauge.layer();
        gauge.forget();
        assert!(gauge.open.is_none() && gauge.stretches.is_empty());
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
