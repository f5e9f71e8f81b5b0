//! What a simulation starts from: a small run, a dataset that needs no text, and a population drawn from the seed.

use nightjar_agent::{lease::LeaseKind, session::Profile};
use nightjar_shared::{
    ids::{BlobHash, DeviceId, RunId},
    invite,
    model_spec::ModelSpec,
    rng,
    run_spec::{EvaluateSpec, InnerSpec, LeaseSpec, MergeSpec, PublishSpec, RunSpec, StalenessSpec},
    shard::{Manifest, ShardInfo},
    wire::Role,
};

/// One simulation's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scene {
    /// Everything random comes from here.
    pub seed: u64,
    /// Volunteers; an anchor node that evaluates is added.
    pub volunteers: u32,
    /// Processes that are killed before the run is left to settle.
    pub kills: u32,
    /// Of a thousand effects, before or after how many the process that has them is killed.
    pub kills_per_mille: u32,
}

impl Default for Scene {
    fn default() -> Self {
        Scene { seed: 1, volunteers: 6, kills: 25, kills_per_mille: 10 }
    }
}

const SHARDS: u64 = 4;
const SAMPLES_PER_SHARD: u32 = 1003;

impl Scene {
    /// A draw for one of the simulation's purposes: uniform in `[0, 1)`.
    pub fn unit(&self, purpose: u64, i: u64) -> f64 {
        rng::unit(self.seed, rng::stream::SIM + purpose, i)
    }

    /// A run small enough that a thousand of them take a minute, and short in everything, so that keyframes,
    /// expiries and epochs all happen.
    pub fn spec(&self) -> RunSpec {
        RunSpec {
            name: "simulated".into(),
            description: String::new(),
            seed: self.seed,
            token_budget: 1 << 40,
            model: ModelSpec {
                vocab_size: 16,
                hidden_size: 8,
                intermediate_size: 12,
                num_hidden_layers: 1,
                num_attention_heads: 2,
                num_key_value_heads: 1,
                max_position_embeddings: 4,
                ..ModelSpec::tiny()
            },
            inner: InnerSpec { batch_samples: 4, ..InnerSpec::default() },
            lease: LeaseSpec { wall_s: 10.0, calibration_steps: 2, steps_max: 50, deadline_factor: 3.0, deadline_s_min: 15.0 },
            merge: MergeSpec {
                quorum: 3,
                momentum: if self.seed.is_multiple_of(2) { 0.5 } else { 0.0 },
                learning_rate: 0.7,
                staleness: StalenessSpec::Polynomial { power: 0.5 },
                staleness_max: 8,
                norm_factor_max: 1e6,
            },
            publish: PublishSpec { keyframe_every: 4 },
            evaluate: EvaluateSpec { every: 2, samples: 8 },
        }
    }

    /// The bytes of a shard: nothing reads their meaning.
    pub fn shard(&self, number: u64) -> Vec<u8> {
        (0..300).map(|i| rng::draw(self.seed, rng::stream::DATASET + number, i) as u8).collect()
    }

    /// The dataset: a few shards whose last samples make no whole batch, and one that is held out.
    pub fn manifest(&self) -> Manifest {
        let info = |number| {
            let bytes = self.shard(number);
            ShardInfo { hash: BlobHash::of(&bytes), bytes: bytes.len() as u64, samples: SAMPLES_PER_SHARD, text_bytes: 4 * 1003 }
        };
        let context = self.spec().model.max_position_embeddings;
        Manifest {
            format: 1,
            context,
            vocab_size: 16,
            tokenizer: None,
            train: (0..SHARDS).map(info).collect(),
            heldout: vec![info(SHARDS)],
        }
    }

    /// The bytes of all shards, by name.
    pub fn shards(&self) -> impl Iterator<Item = (BlobHash, Vec<u8>)> {
        (0..=SHARDS).map(|n| self.shard(n)).map(|bytes| (BlobHash::of(&bytes), bytes))
    }

    /// The run's id.
    pub fn run_id(&self) -> RunId {
        RunId([self.seed as u8; 32])
    }

    /// Device `number`: 0 is the anchor node.
    pub fn profile(&self, number: u32) -> Profile {
        let is_anchor = number == 0;
        let key: Vec<u8> =
            (0..32).map(|i| rng::draw(self.seed, rng::stream::SIM + 90, u64::from(number) * 32 + i) as u8).collect();
        let key = key.try_into().unwrap_or([0; 32]);
        Profile {
            device: DeviceId::of_spki(&invite::spki_of_ed25519(&key)),
            token: vec![number as u8],
            role: if is_anchor { Role::Anchor } else { Role::Volunteer },
            kinds: vec![if is_anchor { LeaseKind::Evaluate } else { LeaseKind::Train }],
            name: format!("device {number}"),
            hardware: "simulated".into(),
            memory_bytes: 1 << 30,
            tokens_per_s_max: 0.0,
            checkpoint_ms: 1000,
        }
    }

    /// How fast a device trains, tokens a second: log-uniform over a factor of thirty.
    pub fn tokens_per_s(&self, number: u32) -> f64 {
        8.0 * libm::pow(30.0, self.unit(91, u64::from(number)))
    }
}
