//! A run's figures, computed from its ledger.

use super::count::{Counted, CountedDevice, CountedLease};
use nightjar_coordinator::{
    baseline::Baselines,
    server::{
        history::{LossPoint, VersionPoint},
        role,
    },
    store::Counters,
};
use nightjar_shared::{
    ids::{DeviceId, Generation},
    lease::LeaseKind,
    run_spec::RunSpec,
    time::Wall,
};
use serde::Serialize;
use std::{collections::BTreeMap, fmt::Write as _};

/// All of them. Losses are nats a byte of held-out text; times are milliseconds since the Unix epoch.
#[derive(Debug, Serialize)]
pub struct Figures {
    run: String,
    generation: Generation,
    parameters: u64,
    /// Of the first version measured; null before any was.
    heldout_loss_start: Option<f64>,
    /// Of the last version measured.
    heldout_loss_end: Option<f64>,
    /// Of a table of byte pairs counted on exactly the merged samples; null where tokens are not bytes.
    order1_loss: Option<f64>,
    /// Of a table of byte triples.
    order2_loss: Option<f64>,
    tokens: u64,
    token_budget: u64,
    inner_steps: u64,
    bytes_up: u64,
    bytes_down: u64,
    /// What as many steps of data parallel training would have moved: 2 bytes a parameter each way.
    bytes_data_parallel_bf16: u64,
    merged: u64,
    /// Leases whose delta was acknowledged.
    acknowledged: u64,
    /// Deltas merged for a lease that had been merged before.
    duplicates: u64,
    /// Samples of acknowledged leases that no merged delta holds.
    lost_samples: u64,
    /// Merged deltas by staleness.
    staleness: BTreeMap<u64, u64>,
    /// Leases by how they ended; `open` for those that have not.
    leases: BTreeMap<&'static str, u64>,
    devices: Vec<Device>,
    loss_curve: Vec<LossPoint>,
    /// The newest 100,000 leases.
    lease_timeline: Vec<LeaseLine>,
    versions: Vec<VersionPoint>,
}

/// A device's part.
#[derive(Debug, Serialize)]
struct Device {
    id: DeviceId,
    name: String,
    role: &'static str,
    tokens: u64,
    leases: u64,
    /// Of its newest 256 leases, without the first, which measures the device's speed.
    lease_wall_s_median: Option<f64>,
    /// Time in inner steps of merged deltas, of the time from its first lease to its last delta.
    training_share: f64,
}

/// A lease on the time line.
#[derive(Debug, Serialize)]
struct LeaseLine {
    device: String,
    kind: LeaseKind,
    start: Wall,
    end: Option<Wall>,
    outcome: &'static str,
}

impl Figures {
    /// Of a ledger.
    pub fn of(
        spec: &RunSpec,
        mut of: Counted,
        counters: Counters,
        generation: Generation,
        counted: Option<Baselines>,
    ) -> Self {
        let (versions, losses) = of.curves();
        let parameters = spec.model.parameters() as u64;
        let line = |l: &CountedLease| LeaseLine {
            device: of.devices.get(&l.device).map_or_else(|| l.device.short(), |device| name_of(l.device, device)),
            kind: l.kind,
            start: l.start,
            end: l.end,
            outcome: l.outcome,
        };
        Figures {
            run: spec.name.clone(),
            generation,
            parameters,
            heldout_loss_start: losses.first().map(|p| p.loss),
            heldout_loss_end: losses.last().map(|p| p.loss),
            order1_loss: counted.map(|b| b.order1),
            order2_loss: counted.map(|b| b.order2),
            tokens: of.tokens,
            token_budget: spec.token_budget,
            inner_steps: of.inner_steps,
            bytes_up: counters.bytes_up,
            bytes_down: counters.bytes_down,
            bytes_data_parallel_bf16: 4 * parameters * of.inner_steps,
            merged: of.merged,
            acknowledged: of.acknowledged,
            duplicates: of.duplicates,
            lost_samples: of.acknowledged_samples.saturating_sub(of.tokens / spec.tokens_per_sample()),
            lease_timeline: of.timeline.iter().map(line).collect(),
            devices: by_name(of.devices.iter().map(|(id, device)| Device::of(*id, device)).collect()),
            staleness: of.staleness,
            leases: of.leases,
            loss_curve: losses,
            versions,
        }
    }

    /// For people.
    pub fn table(&self) -> String {
        let loss = |loss: Option<f64>| loss.map_or("–".to_owned(), |l| format!("{l:.4}"));
        let counts = |counts: Vec<String>| if counts.is_empty() { "–".to_owned() } else { counts.join("  ") };
        let mega = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
        let rows = [
            ("run", format!("{}, generation {}", self.run, self.generation)),
            ("parameters", format!("{:.2} M", self.parameters as f64 / 1e6)),
            (
                "held-out loss, nats a byte",
                format!("{} → {}", loss(self.heldout_loss_start), loss(self.heldout_loss_end)),
            ),
            ("  counting byte pairs, triples", format!("{}, {}", loss(self.order1_loss), loss(self.order2_loss))),
            ("tokens merged", format!("{} of {} in {} inner steps", self.tokens, self.token_budget, self.inner_steps)),
            ("versions", self.versions.len().to_string()),
            ("deltas acknowledged", self.acknowledged.to_string()),
            ("deltas merged, of them twice", format!("{}, {}", self.merged, self.duplicates)),
            ("samples lost", self.lost_samples.to_string()),
            (
                "leases",
                counts(self.leases.iter().map(|(word, n)| format!("{}: {n}", word.replace('_', " "))).collect()),
            ),
            ("deltas by staleness", counts(self.staleness.iter().map(|(tau, n)| format!("{tau}: {n}")).collect())),
            ("bytes up, down", format!("{}, {}", mega(self.bytes_up), mega(self.bytes_down))),
            ("  data parallel in bf16", mega(self.bytes_data_parallel_bf16)),
        ];
        let mut text = String::new();
        for (what, figure) in rows {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{what:<31} {figure}");
        }
        let _ = writeln!(
            text,
            "\n{:<24}{:<10}{:>12}{:>8}{:>17}{:>10}",
            "device", "role", "tokens", "leases", "lease, median s", "training"
        );
        for d in &self.devices {
            let wall = d.lease_wall_s_median.map_or("–".to_owned(), |s| format!("{s:.1}"));
            let share = format!("{:.0} %", 100.0 * d.training_share);
            let _ = writeln!(text, "{:<24}{:<10}{:>12}{:>8}{wall:>17}{share:>10}", d.name, d.role, d.tokens, d.leases);
        }
        text
    }
}

/// People look for a device by its name.
fn by_name(mut devices: Vec<Device>) -> Vec<Device> {
    devices.sort_by(|a, b| a.name.cmp(&b.name));
    devices
}

fn name_of(id: DeviceId, device: &CountedDevice) -> String {
    let name = device.record.as_ref().map(|record| record.name.clone());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| id.short())
}

impl Device {
    fn of(id: DeviceId, device: &CountedDevice) -> Self {
        let present = device.began.zip(device.ended);
        let present_ms = present.map_or(0, |(began, ended)| ended.unix_ms.saturating_sub(began.unix_ms));
        Device {
            id,
            name: name_of(id, device),
            role: device.record.as_ref().map_or("unknown", |record| role(record.role)),
            tokens: device.tokens,
            leases: device.deltas,
            lease_wall_s_median: median(device.walls_ms.iter().map(|ms| *ms as f64 / 1000.0).collect()),
            training_share: if present_ms > 0 { device.train_ms as f64 / present_ms as f64 } else { 0.0 },
        }
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some((lower + upper) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightjar_coordinator::{
        engine::record::{DeltaRecord, DeviceRecord, EvaluationRecord, LeaseOutcome, LeaseRecord, VersionRecord},
        store::{Closed, Facts, LeaseFacts, Lineage},
    };
    use nightjar_shared::{
        blob::BlobRef,
        ids::{BlobHash, LeaseId, Version},
        wire::Role,
    };

    const DEVICE: DeviceId = DeviceId([7; 32]);

    fn lease(id: u64, issued_s: u64, closed: Option<(LeaseOutcome, u32, u64)>) -> LeaseFacts {
        let lease = LeaseRecord {
            id: LeaseId(id),
            generation: Generation(1),
            device: DEVICE,
            kind: LeaseKind::Train,
            base_version: Version(0),
            epoch: 0,
            shard: 0,
            first_sample: 8 * id as u32,
            samples: 8,
            steps: 2,
            issued_at: Wall { unix_ms: issued_s * 1000 },
        };
        let end = |(outcome, samples_used, s)| Closed { outcome, samples_used, at: Wall { unix_ms: s * 1000 } };
        LeaseFacts { lease, closed: closed.map(end) }
    }

    fn delta(seq: u64, samples: u64, wall_s: u64, merged_s: u64) -> DeltaRecord {
        DeltaRecord {
            seq,
            lease: LeaseId(seq),
            device: DEVICE,
            blob: BlobRef { hash: BlobHash([seq as u8; 32]), bytes: 100 },
            steps: 2,
            tokens: 128 * samples,
            staleness: seq % 2,
            weight: 1.0,
            norm: 1.0,
            train_ms: wall_s * 900,
            wall_ms: wall_s * 1000,
            loss_first: 5.0,
            loss_last: 4.0,
            merged_at: Wall { unix_ms: merged_s * 1000 },
        }
    }

    fn evaluation(version: u64, nats: f64) -> EvaluationRecord {
        let measured_at = Wall { unix_ms: 60_000 + version };
        EvaluationRecord { version: Version(version), lease: LeaseId(9), nats, tokens: 10, text_bytes: 10, measured_at }
    }

    fn facts() -> Facts {
        let merged = |s| Some((LeaseOutcome::Merged, 8, s));
        let version = |n, through_seq| VersionRecord {
            version: Version(n),
            update: None,
            given: None,
            keyframe: Some(BlobRef { hash: BlobHash([n as u8; 32]), bytes: 50 }),
            digest: [0; 32],
            through_seq,
            published_at: Wall { unix_ms: 1 },
            squashes: vec![],
        };
        Facts {
            devices: vec![DeviceRecord {
                id: DEVICE,
                name: String::new(),
                device: "flex".into(),
                role: Role::Volunteer,
                invite_nonce: vec![],
                enrolled_at: Wall::default(),
                tokens_per_s: 1.0,
                left: false,
                public_name: None,
                name_hidden: false,
            }],
            leases: vec![
                lease(1, 0, merged(40)),
                lease(2, 50, merged(60)),
                lease(3, 60, merged(80)),
                lease(4, 80, Some((LeaseOutcome::Expired, 0, 99))),
                lease(5, 99, None),
            ],
            lineage: Lineage {
                deltas: vec![delta(1, 8, 40, 40), delta(2, 8, 10, 60), delta(3, 8, 20, 80)],
                versions: vec![version(0, 0), version(1, 2)],
                ..Lineage::default()
            },
            // Measured out of order: the newer version first.
            evaluations: vec![evaluation(1, 30.0), evaluation(0, 55.0)],
            ..Facts::default()
        }
    }

    fn figures(facts: &Facts) -> Figures {
        let spec: RunSpec = serde_json::from_str(r#"{"name": "x", "token_budget": 10000}"#).unwrap();
        let mut counted = Counted::default();
        counted.take(facts);
        Figures::of(&spec, counted, Counters::default(), Generation(3), None)
    }

    #[test]
    fn figures_by_hand() {
        let f = figures(&facts());
        assert_eq!((f.merged, f.acknowledged, f.duplicates, f.lost_samples), (3, 3, 0, 0));
        assert_eq!((f.heldout_loss_start, f.heldout_loss_end), (Some(5.5), Some(3.0)));
        assert_eq!((f.tokens, f.inner_steps, f.bytes_data_parallel_bf16), (3072, 6, 24 * f.parameters));
        assert_eq!(f.staleness, BTreeMap::from([(0, 1), (1, 2)]));
        assert_eq!(f.leases, BTreeMap::from([("expired", 1), ("merged", 3), ("open", 1)]));
        assert_eq!(f.loss_curve.iter().map(|p| (p.version, p.tokens)).collect::<Vec<_>>(), [(0, 0), (1, 2048)]);
        let device = &f.devices[0];
        assert_eq!((device.name.as_str(), device.leases), ("07070707", 3));
        assert_eq!(device.lease_wall_s_median, Some(15.0), "of 10 and 20: the first measures");
        assert!((device.training_share - 63.0 / 80.0).abs() < 1e-12);
        assert!(f.table().contains("5.5000 → 3.0000"));
    }

    #[test]
    fn a_lost_delta_and_a_double_one_show() {
        let mut lost = facts();
        lost.lineage.deltas.pop();
        assert_eq!(figures(&lost).lost_samples, 8);
        let mut twice = facts();
        twice.lineage.deltas[2].lease = LeaseId(2);
        assert_eq!(figures(&twice).duplicates, 1);
    }

    #[test]
    fn medians() {
        assert_eq!((median(vec![]), median(vec![3.0]), median(vec![3.0, 1.0, 2.0])), (None, Some(3.0), Some(2.0)));
    }
}
