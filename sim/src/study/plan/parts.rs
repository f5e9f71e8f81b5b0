//! What the studies' variants are put together from.

use crate::{
    lab::{Link, Method},
    population::{Dist, Drawn, Group, Population},
    scale,
    study::{
        Against, Figure, Work,
        texts::Corpus,
        warm::Warm,
        work::{CostWork, Data, LabWork, SimWork},
    },
};
use nightjar_shared::{
    delta::CodecId,
    model_spec::ModelSpec,
    run_spec::{
        Average, DeltaSpec, EvaluateSpec, InnerSpec, KeepSpec, LeaseSpec, MergeRule, MergeSpec, Pacing, PublishSpec,
        RunSpec, TrackSpec,
    },
};

/// The reference's speeds, in tokens a second.
pub const REFERENCE_SPEEDS: [f64; 4] = [2000.0, 1000.0, 500.0, 250.0];
/// HALoS's speeds, in tokens a second; regions take them in turn.
pub const HALOS_SPEEDS: [f64; 16] =
    [107.0, 160.3, 213.7, 267.0, 320.3, 373.7, 427.0, 480.3, 533.7, 587.0, 640.3, 693.7, 747.0, 800.3, 853.7, 907.0];
/// The reference's link, but nearer.
const LINK: Link = Link { up: 20.0, down: 100.0, latency_s: 0.015 };
const MEASUREMENTS: u32 = 16;

fn run_spec(name: &str, model: ModelSpec, token_budget: u64, inner: InnerSpec) -> RunSpec {
    RunSpec {
        name: name.into(),
        description: String::new(),
        operator: None,
        seed: 1,
        token_budget,
        model,
        inner,
        lease: LeaseSpec { wall_s_min: None, steps_max: 10_000, deadline_s_min: 5.0, ..LeaseSpec::default() },
        delta: DeltaSpec { codec: CodecId::Blocks8, ..DeltaSpec::default() },
        merge: MergeSpec::default(),
        publish: PublishSpec { codec: CodecId::Blocks8, ..PublishSpec::default() },
        evaluate: EvaluateSpec { every: 3, ..EvaluateSpec::default() },
        keep: KeepSpec::default(),
        track: TrackSpec::default(),
    }
}

/// A run of the reference's size `s`: 824,448 parameters, steps of 2 × 128 tokens.
pub fn small(token_budget: u64) -> RunSpec {
    run_spec("s", ModelSpec::tiny(), token_budget, InnerSpec { batch_samples: 2, ..InnerSpec::default() })
}

/// A run of a model of 98,624 parameters, with steps of so many samples of 64 tokens, where many devices or rounds are
/// wanted.
pub fn nano(token_budget: u64, batch_samples: u32) -> RunSpec {
    let model = ModelSpec {
        hidden_size: 64,
        intermediate_size: 128,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 4,
        max_position_embeddings: 64,
        ..ModelSpec::tiny()
    };
    let inner = InnerSpec { batch_samples, learning_rate: 3e-3, floor: 0.05, ..InnerSpec::default() };
    run_spec("nano", model, token_budget, inner)
}

/// The same with twice `nano`'s width: 361,088 parameters.
pub fn micro(token_budget: u64, batch_samples: u32) -> RunSpec {
    let spec = nano(token_budget, batch_samples);
    let model = ModelSpec { hidden_size: 128, intermediate_size: 256, ..spec.model };
    RunSpec { name: "micro".into(), model, inner: InnerSpec { learning_rate: 2e-3, ..spec.inner }, ..spec }
}

/// The same with the reference's size `s`, but for the context: 824,448 parameters.
pub fn mini(token_budget: u64, batch_samples: u32) -> RunSpec {
    let spec = micro(token_budget, batch_samples);
    let model = ModelSpec { max_position_embeddings: spec.model.max_position_embeddings, ..ModelSpec::tiny() };
    RunSpec { name: "mini".into(), model, ..spec }
}

/// The tokens of so many rounds of `devices` in step, of nano's steps of one sample.
pub fn rounds_tokens(devices: u64, steps: u32, rounds: u64) -> u64 {
    devices * u64::from(steps) * 64 * rounds
}

/// Nightjar's way: rounds by the clock with leases of equal wall time, norm-preserving averages, 4-bit deltas, and
/// training ahead while they travel.
pub fn ours(spec: RunSpec, round_s: f64) -> RunSpec {
    let merge = MergeSpec {
        rule: MergeRule::Mean,
        average: Some(Average::Rda),
        grace_s: Some(round_s / 6.0),
        quorum: Some(1),
        ..MergeSpec::default()
    };
    let lease = LeaseSpec { pacing: Pacing::Rounds, wall_s: round_s, ..spec.lease.clone() };
    RunSpec { lease, delta: DeltaSpec { codec: CodecId::Blocks4, ..DeltaSpec::default() }, merge, ..spec }
}

/// What a run has that sets nothing: rounds as long as agreement asks, and few bits both ways. All is smaller here than
/// at home, so rounds are a tenth as long.
pub fn usual(spec: RunSpec) -> RunSpec {
    let usual = LeaseSpec::default();
    let lease = LeaseSpec { wall_s: usual.wall_s / 10.0, wall_s_min: usual.wall_s_min.map(|s| s / 10.0), ..spec.lease };
    few_bits(RunSpec { lease, merge: MergeSpec::default(), ..spec })
}

/// The default's bits, up and down.
pub fn few_bits(spec: RunSpec) -> RunSpec {
    RunSpec { delta: DeltaSpec::default(), publish: PublishSpec::default(), ..spec }
}

/// Devices wait while their deltas travel, as in DiLoCo.
pub fn waiting(spec: RunSpec) -> RunSpec {
    RunSpec { lease: LeaseSpec { ahead: false, ..spec.lease.clone() }, ..spec }
}

/// With another codec, up.
pub fn with_codec(spec: RunSpec, codec: CodecId, k: u32) -> RunSpec {
    RunSpec { delta: DeltaSpec { codec, k, ..spec.delta.clone() }, ..spec }
}

/// With another codec, down.
pub fn with_updates(spec: RunSpec, codec: CodecId) -> RunSpec {
    RunSpec { publish: PublishSpec { codec, ..spec.publish.clone() }, ..spec }
}

/// With norm-preserving averages.
pub fn norm_preserving(spec: RunSpec) -> RunSpec {
    RunSpec { merge: MergeSpec { average: Some(Average::Rda), ..spec.merge.clone() }, ..spec }
}

/// With the weighted mean.
pub fn plain_mean(spec: RunSpec) -> RunSpec {
    RunSpec { merge: MergeSpec { average: Some(Average::Mean), ..spec.merge.clone() }, ..spec }
}

/// Without rounds: every lease ends by itself, a quorum makes a version, and devices wait.
pub fn free(spec: RunSpec, quorum: u32) -> RunSpec {
    let lease = LeaseSpec { pacing: Pacing::Free, ahead: false, ..spec.lease.clone() };
    RunSpec { lease, merge: MergeSpec { quorum: Some(quorum), grace_s: Some(0.0), ..spec.merge.clone() }, ..spec }
}

/// All devices take `steps` a round and wait for each other; every round makes a version; `round_s` is what the slowest
/// may take.
pub fn in_step(spec: RunSpec, steps: u32, devices: u32, round_s: f64) -> RunSpec {
    let lease = LeaseSpec {
        steps,
        calibration_steps: steps,
        pacing: Pacing::Rounds,
        wall_s: round_s,
        steps_max: 10_000,
        ahead: false,
        ..spec.lease
    };
    let merge =
        MergeSpec { average: Some(Average::Mean), quorum: Some(devices), grace_s: Some(0.0), ..MergeSpec::default() };
    RunSpec { lease, merge, ..spec }
}

/// From weights that one device trained for 1.9 M tokens; the learning rate starts at its peak.
pub fn warmed(work: Work) -> Work {
    let warm = |inner: &InnerSpec| Some(Warm { steps: 7500, batch_samples: 4, learning_rate: inner.learning_rate });
    match work {
        Work::Lab(work) => {
            let warm = warm(&work.inner);
            Work::Lab(LabWork { inner: InnerSpec { warmup: 0.0, ..work.inner }, warm, ..work })
        }
        Work::Sim(work) => {
            let warm = warm(&work.spec.inner);
            let inner = InnerSpec { warmup: 0.0, ..work.spec.inner };
            Work::Sim(SimWork { spec: RunSpec { inner, ..work.spec }, warm, ..work })
        }
        other => other,
    }
}

/// The reference's text for its model, the corpus of four kinds for the other.
fn data(spec: &RunSpec) -> Data {
    match spec.name.as_str() {
        "s" => Data { corpus: Corpus::Small, by_domain: false, shard_samples: 512, loss_samples: 128 },
        _ => Data { corpus: Corpus::PublicDomain, by_domain: false, shard_samples: 4096, loss_samples: 400 },
    }
}

/// A comparison.
pub fn lab(spec: RunSpec, method: Method, speeds: &[f64]) -> Work {
    let (data, speeds, token_budget) = (data(&spec), speeds.to_vec(), spec.token_budget);
    let RunSpec { model, inner, .. } = spec;
    Work::Lab(LabWork {
        data,
        method,
        model,
        inner,
        token_budget,
        speeds,
        link: LINK,
        measurements: MEASUREMENTS,
        warm: None,
    })
}

/// A run of the real thing, to its token budget.
pub fn sim(spec: RunSpec, population: Population) -> Work {
    Work::Sim(SimWork { data: data(&spec), spec, population, virtual_s: 1e6, until_loss: None, warm: None })
}

/// A run without tensors.
pub fn cost(spec: RunSpec, population: Population, hours: f64) -> Work {
    Work::Cost(CostWork { spec, population, virtual_s: hours * 3600.0 })
}

/// The reference's line, 15 ms away; each lease's speed differs by a twentieth.
fn line(count: u32, tokens_per_s: Dist) -> Group {
    let (up_mbit, down_mbit, latency_ms) = (Dist::Fixed(20.0), Dist::Fixed(100.0), Dist::Fixed(15.0));
    Group { up_mbit, down_mbit, latency_ms, tokens_per_s_jitter: 0.05, ..Group::new("device", count, tokens_per_s) }
}

/// Equal devices on the reference's line.
pub fn alike(count: u32, tokens_per_s: f64) -> Population {
    scale::always(line(count, Dist::Fixed(tokens_per_s)))
}

/// As many devices of each of the reference's four speeds.
pub fn four_speeds(count: u32) -> Population {
    scale::always(line(count, Dist::List(REFERENCE_SPEEDS.to_vec())))
}

/// Thirty devices of different speeds.
pub fn thirty() -> Population {
    scale::always(line(30, Dist::Drawn(Drawn::LogUniform([250.0, 2000.0]))))
}

/// HALoS's sixteen devices in four regions that differ in how far the coordinator is.
pub fn halos16() -> Population {
    let region = |(i, name): (usize, &str)| {
        let speeds = HALOS_SPEEDS.iter().skip(i).step_by(4).copied().collect();
        let latency_ms = Dist::Fixed([20.0, 50.0, 90.0, 120.0][i]);
        Group { latency_ms, tokens_per_s_jitter: 0.1, ..Group::new(name, 4, Dist::List(speeds)) }
    };
    let group = ["america", "europe", "asia", "oceania"].into_iter().enumerate().map(region).collect();
    Population { name: "16 speeds in 4 regions".into(), group, ..alike(1, 1.0) }
}

/// Devices that are always on, of 2000 tokens a second, on lines of one speed.
pub fn lines(count: u32, up_mbit: f64) -> Population {
    scale::always(Group { up_mbit: Dist::Fixed(up_mbit), ..Group::new("device", count, 2000.0) })
}

/// Curves of some variants; of all, if none is named.
pub fn curves(title: &str, against: Against, variants: &[&str]) -> Figure {
    let variants = variants.iter().map(|name| (*name).to_owned()).collect();
    Figure::Curves { title: title.into(), against, log: against != Against::Tokens, variants }
}
