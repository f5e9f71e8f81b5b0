//! Runs in cost mode: a model of 110 M parameters on homes' computers, from a thousand of them to a million.

use crate::{
    dataset::Dataset,
    population::{Churn, Dist, Drawn, Group, Population},
    progress::Progress,
    results::RunResult,
    run::run,
    setup::{Setup, Until},
    training::cost::Cost,
};
use nightjar_shared::{
    delta::CodecId,
    model_spec::ModelSpec,
    run_spec::{
        DeltaSpec, EvaluateSpec, InnerSpec, KeepSpec, LeaseSpec, MergeSpec, Pacing, PublishSpec, RunSpec,
        StalenessSpec, TrackSpec,
    },
};

/// A cost run's size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// Devices.
    pub devices: u32,
    /// Virtual seconds.
    pub virtual_s: f64,
    /// Everything random comes from here.
    pub seed: u64,
}

/// A Llama of 12 layers of 768, with a vocabulary of 32 000 and a context of 1024: 110 M parameters.
pub fn model() -> ModelSpec {
    ModelSpec {
        vocab_size: 32_000,
        hidden_size: 768,
        intermediate_size: 2048,
        num_hidden_layers: 12,
        num_attention_heads: 12,
        num_key_value_heads: 12,
        max_position_embeddings: 1024,
        ..ModelSpec::tiny()
    }
}

/// A run of that model on so many devices: leases of a quarter of an hour, sparse deltas, updates of 2 bits, and about
/// two versions a lease, so that an update is worth its download.
pub fn spec(devices: u32) -> RunSpec {
    RunSpec {
        name: "cost".into(),
        description: String::new(),
        operator: None,
        seed: 1,
        token_budget: 1 << 50,
        model: model(),
        inner: InnerSpec { batch_samples: 8, ..InnerSpec::default() },
        lease: LeaseSpec {
            pacing: Pacing::Free,
            wall_s: 900.0,
            wall_s_min: None,
            calibration_steps: 8,
            steps_max: 5000,
            deadline_factor: 2.0,
            deadline_s_min: 900.0,
            ..LeaseSpec::default()
        },
        delta: DeltaSpec { codec: CodecId::Sparse2, k: 64, ..DeltaSpec::default() },
        merge: MergeSpec {
            quorum: Some((devices / 2).clamp(2, 100_000)),
            staleness: StalenessSpec::Polynomial { power: 0.5 },
            ..MergeSpec::default()
        },
        publish: PublishSpec { codec: CodecId::Blocks2, keyframe_every: 64 },
        evaluate: EvaluateSpec { every: 1_000_000, samples: 1 },
        keep: KeepSpec::default(),
        track: TrackSpec::default(),
    }
}

/// The same with the default pacing: in rounds, which leave time enough for dense deltas of 2 bits.
pub fn in_rounds(spec: RunSpec, round_s: f64) -> RunSpec {
    let lease = LeaseSpec { pacing: Pacing::Rounds, wall_s: round_s, ..spec.lease };
    let delta = DeltaSpec { codec: CodecId::Blocks2, ..spec.delta };
    RunSpec { lease, delta, merge: MergeSpec { quorum: None, ..spec.merge }, ..spec }
}

/// Homes with a computer that trains 500 to 8000 tokens a second, over fixed lines, on for ten hours at a time.
pub fn homes(devices: u32) -> Population {
    let log_normal = |median, sigma| Dist::Drawn(Drawn::LogNormal { median, sigma });
    let home = Group {
        tokens_per_s_jitter: 0.1,
        up_mbit: log_normal(14.7, 0.8),
        down_mbit: log_normal(112.0, 0.7),
        latency_ms: Dist::Drawn(Drawn::Uniform([8.0, 80.0])),
        loss: 0.005,
        churn: Some(Churn { on_s: 36_000.0, off_s: 7200.0 }),
        ..Group::new("home", devices, Dist::Drawn(Drawn::LogUniform([500.0, 8000.0])))
    };
    always(home)
}

/// One group of devices at a coordinator whose own line has no limit.
pub fn always(group: Group) -> Population {
    Population {
        name: group.name.clone(),
        start_hour: 0.0,
        coordinator_up_mbit: 0.0,
        coordinator_down_mbit: 0.0,
        group: vec![group],
    }
}

/// A run on these devices. The dataset has shards of 4096 samples, enough of them that the epoch does not end.
pub fn setup(name: &str, spec: RunSpec, population: Population, virtual_s: f64, seed: u64) -> Setup {
    let devices = population.devices() as u32;
    let dataset = Dataset::of_sizes(&spec, (devices / 4).max(64), 4096);
    let mut setup = Setup::new(name, seed, spec, dataset, population);
    setup.until = Until { virtual_s, loss: None };
    setup.start_spread_s = setup.spec.lease.wall_s.min(virtual_s / 4.0);
    setup
}

/// Runs homes in cost mode.
pub fn measure(scale: Scale, watch: &mut dyn FnMut(&Progress)) -> RunResult {
    let name = format!("{} homes", scale.devices);
    let setup = setup(&name, spec(scale.devices), homes(scale.devices), scale.virtual_s, scale.seed);
    let training = Box::new(Cost::new(&setup.spec));
    run(&setup, training, watch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_has_a_hundred_million_parameters() {
        assert!((100_000_000..120_000_000).contains(&model().parameters()), "{}", model().parameters());
        spec(1000).validate().unwrap();
    }

    #[test]
    fn a_hundred_homes_keep_all_promises_and_cost_the_same_each_time() {
        let scale = Scale { devices: 100, virtual_s: 3.0 * 3600.0, seed: 4 };
        let mut seen = 0;
        let a = measure(scale, &mut |progress| seen = progress.events);
        assert!(a.faults.is_empty(), "{:?}", a.faults);
        assert!(a.merged > 500 && a.versions > 5, "{} deltas, {} versions", a.merged, a.versions);
        assert!(a.utilisation > 0.5 && a.utilisation < 1.0, "{}", a.utilisation);
        assert!(seen > 0 && a.bytes.deltas > 0 && a.bytes.keyframes > 0 && a.bytes.shards > 0);
        let b = measure(scale, &mut |_| {});
        assert_eq!(
            (a.digest, a.tokens, a.bytes, a.staleness, a.time),
            (b.digest, b.tokens, b.bytes, b.staleness, b.time)
        );
    }

    /// Forty devices on one kind of link, for eight virtual hours.
    fn utilisation(pacing: Pacing, ahead: bool, up_mbit: f64, wall_s: f64) -> f64 {
        let mut spec = spec(40);
        (spec.lease.pacing, spec.lease.ahead, spec.lease.wall_s) = (pacing, ahead, wall_s);
        let group =
            Group { up_mbit: up_mbit.into(), ..Group::new("x", 40, Dist::List(vec![4000.0, 2000.0, 1000.0, 500.0])) };
        let setup = setup("links", spec, always(group), 8.0 * 3600.0, 1);
        let result = run(&setup, Box::new(Cost::new(&setup.spec)), &mut |_| {});
        assert!(result.faults.is_empty(), "{:?}", result.faults);
        let (t, a) = (result.time, result.time.available());
        println!(
            "{pacing:?} {up_mbit} Mbit/s {wall_s} s: {:.4}; fetching {:.4}, uploading {:.4}, waiting {:.4}",
            result.utilisation,
            t.fetching / a,
            t.uploading / a,
            t.waiting / a
        );
        result.utilisation
    }

    #[test]
    fn devices_train_nearly_all_the_time() {
        let of = |pacing, ahead, wall_s| [110.0, 15.0].map(|up_mbit| utilisation(pacing, ahead, up_mbit, wall_s));
        let [fibre, home] = of(Pacing::Free, true, 900.0);
        assert!(fibre > 0.98 && home > 0.97 && home < fibre, "{fibre} {home}");
        let [fibre, home] = of(Pacing::Rounds, true, 1200.0);
        assert!(fibre > 0.95 && home > 0.93, "{fibre} {home}");
        let ([_, waits], [_, ahead]) = (of(Pacing::Free, false, 60.0), of(Pacing::Free, true, 60.0));
        assert!(waits < home - 0.03, "a lease of a minute spends its time on the wire: {waits}");
        assert!(ahead > waits + 0.02, "but for who trains ahead: {ahead}");
    }
}
