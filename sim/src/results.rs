//! What a simulation came to, as it is written to JSON and drawn: curves, bytes, staleness, and who did what when.
//! The time that this computer took is kept apart, so that the rest is the same, bit for bit, for the same seed.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Devices whose timelines are kept; the others are only summed.
pub const DEVICES_MAX: usize = 200;
/// Segments kept of one timeline; what comes later is only summed.
pub const SEGMENTS_MAX: usize = 2_000;

/// One run's result.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunResult {
    /// The population's or variant's name.
    pub name: String,
    /// Where all randomness came from.
    pub seed: u64,
    /// BLAKE3 of the configuration, in hex; empty where nobody asked.
    pub config: String,
    /// Virtual seconds from the start to the end.
    pub virtual_s: f64,
    /// Tokens in merged deltas.
    pub tokens: u64,
    /// Versions published after version 0.
    pub versions: u64,
    /// Deltas merged.
    pub merged: u64,
    /// Held-out loss and what it had cost by then, in order of time.
    pub curve: Vec<Point>,
    /// Timelines of the first devices, at most [`DEVICES_MAX`].
    pub devices: Vec<DeviceLine>,
    /// Device seconds by what they were spent on, over all devices and the whole run.
    pub time: TimeByActivity,
    /// Useful step time (of merged deltas) / time that devices were available for training; discarded work not counted.
    pub utilisation: f64,
    /// Merged deltas by how many versions stale they were.
    pub staleness: BTreeMap<u64, u64>,
    /// All bytes that travelled.
    pub bytes: BytesByKind,
    /// Leases by how they ended.
    pub leases: BTreeMap<String, u64>,
    /// The measured share of signal in merged deltas, by version; empty where it was not measured.
    pub agreement: Vec<Agreement>,
    /// Digest of the last version's weights, in hex.
    pub digest: Option<String>,
    /// Broken promises; none if all is well.
    pub faults: Vec<String>,
    /// What this computer spent on it: the only part that two runs of a seed do not share.
    pub host: Option<HostCost>,
}

/// A point of the curve: what had been reached, and for how much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Point {
    /// Virtual seconds since the start.
    pub virtual_s: f64,
    /// Tokens merged by then.
    pub tokens: u64,
    /// Bytes sent by devices by then.
    pub bytes_up: u64,
    /// Bytes received by devices by then.
    pub bytes_down: u64,
    /// Held-out loss, nats a token; `None` where nothing trains (cost mode).
    pub loss: Option<f64>,
    /// Loss on the out-of-domain text, where there is one.
    pub loss_ood: Option<f64>,
    /// The version measured.
    pub version: u64,
}

/// What a device spends its time on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activity {
    /// Switched off, or gone.
    #[default]
    Offline,
    /// Its owner forbids training.
    Held,
    /// Receiving weights or shards, with nothing to train meanwhile.
    Fetching,
    /// Taking inner steps.
    Training,
    /// Sending its delta, with nothing to train meanwhile.
    Uploading,
    /// Waiting for an answer or for work.
    Waiting,
}

impl Activity {
    /// All of them, in the order in which they are drawn.
    pub const ALL: [Activity; 6] = [
        Activity::Training,
        Activity::Fetching,
        Activity::Uploading,
        Activity::Waiting,
        Activity::Held,
        Activity::Offline,
    ];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Activity::Offline => "offline",
            Activity::Held => "held",
            Activity::Fetching => "fetching",
            Activity::Training => "training",
            Activity::Uploading => "uploading",
            Activity::Waiting => "waiting",
        }
    }
}

/// One device's timeline.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceLine {
    /// Its name.
    pub name: String,
    /// How fast it trains.
    pub tokens_per_s: f64,
    /// What it did, in order; at most [`SEGMENTS_MAX`].
    pub segments: Vec<Segment>,
}

/// A stretch of a device's timeline.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// Its beginning, in virtual seconds.
    pub from_s: f64,
    /// Its end.
    pub to_s: f64,
    /// What the device did.
    pub what: Activity,
}

/// Device seconds by what they were spent on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TimeByActivity {
    /// Switched off, or gone.
    pub offline: f64,
    /// Held by the owner.
    pub held: f64,
    /// Receiving.
    pub fetching: f64,
    /// Taking inner steps, useful or not.
    pub training: f64,
    /// Sending.
    pub uploading: f64,
    /// Waiting.
    pub waiting: f64,
}

impl TimeByActivity {
    /// Adds a stretch.
    pub fn add(&mut self, what: Activity, seconds: f64) {
        *match what {
            Activity::Offline => &mut self.offline,
            Activity::Held => &mut self.held,
            Activity::Fetching => &mut self.fetching,
            Activity::Training => &mut self.training,
            Activity::Uploading => &mut self.uploading,
            Activity::Waiting => &mut self.waiting,
        } += seconds;
    }

    /// Seconds of one of them.
    pub fn of(&self, what: Activity) -> f64 {
        match what {
            Activity::Offline => self.offline,
            Activity::Held => self.held,
            Activity::Fetching => self.fetching,
            Activity::Training => self.training,
            Activity::Uploading => self.uploading,
            Activity::Waiting => self.waiting,
        }
    }

    /// Seconds in which a device was on and its owner allowed training.
    pub fn available(&self) -> f64 {
        self.fetching + self.training + self.uploading + self.waiting
    }
}

/// All bytes that travelled, by what they were for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BytesByKind {
    /// Keyframes, down: joins, and devices that had been away for long.
    pub keyframes: u64,
    /// Updates, squashed or not, down.
    pub updates: u64,
    /// Shards, down.
    pub shards: u64,
    /// Deltas, up.
    pub deltas: u64,
    /// Messages from devices.
    pub messages_up: u64,
    /// Messages to devices.
    pub messages_down: u64,
    /// Sent again after a connection broke, up.
    pub resent_up: u64,
    /// Sent again after a connection broke, down.
    pub resent_down: u64,
}

impl BytesByKind {
    /// All that devices sent.
    pub fn up(&self) -> u64 {
        self.deltas + self.messages_up + self.resent_up
    }

    /// All that devices received.
    pub fn down(&self) -> u64 {
        self.keyframes + self.updates + self.shards + self.messages_down + self.resent_down
    }

    /// Both ways.
    pub fn all(&self) -> u64 {
        self.up() + self.down()
    }
}

/// How far the deltas of a version agreed: 0 if they were noise to each other, 1 if they were the same.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// The version they were merged into.
    pub version: u64,
    /// The share of their energy that is common to them.
    pub share: f64,
}

/// What this computer spent on the simulation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostCost {
    /// Seconds by the clock on the wall.
    pub wall_s: f64,
    /// CPU seconds that the coordinator's engine and ledger took.
    pub coordinator_cpu_s: f64,
    /// Memory that the process holds beyond what it had at the start, in bytes.
    pub memory_bytes: u64,
    /// Events simulated.
    pub events: u64,
}

/// Writes the timelines while a simulation goes on, in bounded memory.
#[derive(Clone, Debug, Default)]
pub struct Timelines {
    lines: Vec<DeviceLine>,
    now: Vec<(f64, Activity)>,
    time: TimeByActivity,
}

impl Timelines {
    /// Of devices, each with its name and speed in tokens a second; all are offline at the start.
    pub fn new(devices: impl IntoIterator<Item = (String, f64)>) -> Self {
        let mut timelines = Timelines::default();
        for (name, tokens_per_s) in devices {
            if timelines.lines.len() < DEVICES_MAX {
                timelines.lines.push(DeviceLine { name, tokens_per_s, segments: vec![] });
            }
            timelines.now.push((0.0, Activity::Offline));
        }
        timelines
    }

    /// From `at_s` on, a device does this. Telling it again what it does already costs nothing.
    pub fn becomes(&mut self, device: usize, at_s: f64, what: Activity) {
        let Some((since, before)) = self.now.get_mut(device) else { return };
        if *before == what {
            return;
        }
        let ended = Segment { from_s: *since, to_s: at_s.max(*since), what: *before };
        (*since, *before) = (ended.to_s, what);
        self.end(device, ended);
    }

    fn end(&mut self, device: usize, segment: Segment) {
        self.time.add(segment.what, segment.to_s - segment.from_s);
        if let Some(line) = self.lines.get_mut(device)
            && segment.to_s > segment.from_s
            && line.segments.len() < SEGMENTS_MAX
        {
            line.segments.push(segment);
        }
    }

    /// Device seconds by what they were spent on, up to each device's last change.
    pub fn time(&self) -> &TimeByActivity {
        &self.time
    }

    /// Ends all timelines at `at_s`.
    pub fn finish(mut self, at_s: f64) -> (Vec<DeviceLine>, TimeByActivity) {
        for (device, (since, what)) in std::mem::take(&mut self.now).into_iter().enumerate() {
            self.end(device, Segment { from_s: since, to_s: at_s.max(since), what });
        }
        (self.lines, self.time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_sums_all_and_keeps_a_bounded_part() {
        let mut timelines = Timelines::new((0..DEVICES_MAX + 1).map(|n| (format!("device {n}"), 1.0)));
        for i in 0..2 * SEGMENTS_MAX {
            let what = if i % 2 == 0 { Activity::Training } else { Activity::Uploading };
            timelines.becomes(0, (i + 1) as f64, what);
            timelines.becomes(DEVICES_MAX, (i + 1) as f64, what);
        }
        let end_s = (2 * SEGMENTS_MAX + 1) as f64;
        let (lines, time) = timelines.finish(end_s);
        assert_eq!((lines.len(), lines[0].segments.len()), (DEVICES_MAX, SEGMENTS_MAX));
        assert_eq!(lines[0].segments[1], Segment { from_s: 1.0, to_s: 2.0, what: Activity::Training });
        // Two devices, seen and unseen, did the same; the others were offline all the time.
        assert_eq!((time.training, time.uploading), (2.0 * SEGMENTS_MAX as f64, 2.0 * SEGMENTS_MAX as f64));
        assert_eq!(time.offline, 2.0 + (DEVICES_MAX - 1) as f64 * end_s);
        assert_eq!(time.available(), 4.0 * SEGMENTS_MAX as f64);
        assert!(Activity::ALL.iter().all(|what| time.of(*what) >= 0.0));
    }

    #[test]
    fn the_same_again_is_no_segment_and_time_never_runs_backwards() {
        let mut timelines = Timelines::new([("one".to_owned(), 1.0)]);
        timelines.becomes(0, 2.0, Activity::Waiting);
        timelines.becomes(0, 3.0, Activity::Waiting);
        timelines.becomes(0, 1.0, Activity::Training);
        timelines.becomes(9, 1.0, Activity::Training);
        let (lines, time) = timelines.finish(5.0);
        let spans: Vec<_> = lines[0].segments.iter().map(|s| (s.from_s, s.to_s, s.what)).collect();
        assert_eq!(spans, [(0.0, 2.0, Activity::Offline), (2.0, 5.0, Activity::Training)]);
        assert_eq!((time.waiting, time.training), (0.0, 3.0));
    }

    #[test]
    fn a_result_survives_json_and_old_files_gain_defaults() {
        let result = RunResult {
            bytes: BytesByKind { deltas: 7, shards: 5, resent_up: 1, ..BytesByKind::default() },
            ..RunResult::default()
        };
        let text = serde_json::to_string(&result).unwrap();
        assert_eq!(serde_json::from_str::<RunResult>(&text).unwrap(), result);
        assert_eq!(serde_json::from_str::<RunResult>("{}").unwrap(), RunResult::default());
        assert_eq!((result.bytes.up(), result.bytes.down(), result.bytes.all()), (8, 5, 13));
    }
}
