//! What a simulation starts from: a small run, a dataset that needs no text, and a population drawn from the seed.

use crate::{
    dataset::Dataset,
    population::{Dist, Drawn, Group, Owner, Population, Role, Spell, Wanted},
    setup::{Chaos, Setup},
};
use nightjar_shared::{
    delta::CodecId,
    ids::BlobHash,
    model_spec::ModelSpec,
    rng,
    run_spec::{
        Average, Correction, DeltaSpec, EvaluateSpec, InnerSpec, InnerState, KeepSpec, LeaseSpec, MergeRule, MergeSpec,
        Pacing, PublishSpec, ResidualSpec, Robust, RunSpec, StalenessSpec, TrackSpec,
    },
    shard::{Manifest, ShardInfo},
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
/// After the last kill, the run goes on undisturbed until this many more deltas are merged.
const SETTLING_DELTAS: u64 = 20;

impl Scene {
    /// One of some choices, each seed its own.
    fn pick<T: Copy>(&self, what: u64, choices: &[T]) -> T {
        choices[rng::below(self.seed, rng::stream::SIM + 12, what, choices.len() as u64) as usize]
    }

    /// Whether leases grow with the run's progress; then its budget is in reach, if not reached.
    fn grows(&self) -> bool {
        self.pick(17, &[false, false, true])
    }

    /// A run small enough that a thousand of them take a minute, and short in everything, so that keyframes,
    /// expiries and epochs all happen. Codecs and merge rules differ from seed to seed.
    pub fn spec(&self) -> RunSpec {
        let momentum = self.pick(3, &[0.0, 0.5]);
        let delayed = MergeRule::DelayedNesterov { momentum, interval: 4, c: 0.0 };
        let rule = self.pick(0, &[MergeRule::Mean, MergeRule::Nesterov { momentum }, delayed]);
        RunSpec {
            name: "simulated".into(),
            description: String::new(),
            operator: None,
            seed: self.seed,
            token_budget: if self.grows() { 1 << 22 } else { 1 << 40 },
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
            inner: InnerSpec {
                batch_samples: 4,
                // As far as a step of made-up gradients leads.
                learning_rate: 0.01,
                warmup: 0.0,
                floor: 1.0,
                state: self.pick(13, &[InnerState::Keep, InnerState::Reset]),
                ..InnerSpec::default()
            },
            lease: LeaseSpec {
                pacing: self.pick(12, &[Pacing::Free, Pacing::Free, Pacing::Rounds]),
                wall_s: 10.0,
                // By a third within the few per cent of the budget that such a run comes to.
                wall_s_end: self.grows().then_some(1e5),
                steps: self.pick(14, &[0, 0, 0, 6]),
                calibration_steps: 2,
                steps_max: 50,
                deadline_factor: 3.0,
                deadline_s_min: 15.0,
                ahead: self.pick(17, &[true, true, false]),
                wall_s_min: self.pick(18, &[None, Some(4.0)]),
                warm_tokens: self.pick(19, &[0, 400]),
            },
            merge: MergeSpec {
                rule,
                quorum: self.pick(1, &[None, Some(3), Some(4)]),
                grace_s: self.pick(2, &[None, Some(0.0), Some(4.0)]),
                average: self.pick(4, &[None, Some(Average::Mean), Some(Average::Rda)]),
                correction: self.pick(5, &[Correction::None, Correction::None, Correction::Heloco]),
                robust: self.pick(29, &[None, Some(Robust::Clip), Some(Robust::Direction)]),
                learning_rate: 0.7,
                staleness: self.pick(
                    15,
                    &[
                        StalenessSpec::Polynomial { power: 0.5 },
                        StalenessSpec::Constant,
                        StalenessSpec::Hinge { grace: 1.0, slope: 0.5 },
                    ],
                ),
                staleness_max: 8,
                tokens_cap: self.pick(16, &[0.0, 1.5]),
                norm_factor_max: 1e6,
                ..MergeSpec::default()
            },
            publish: PublishSpec {
                codec: self.pick(7, &[CodecId::Blocks8, CodecId::Blocks4, CodecId::Blocks2]),
                keyframe_every: self.pick(8, &[4, 6, 20]),
            },
            delta: DeltaSpec {
                codec: self.pick(9, CodecId::ALL),
                k: 512,
                feedback: self.pick(10, &[1.0, 0.9, 0.0]),
                residual: self.pick(11, &[ResidualSpec::Keep, ResidualSpec::Decay, ResidualSpec::Drop]),
            },
            evaluate: EvaluateSpec { every: 2, samples: 8 },
            keep: KeepSpec::default(),
            track: TrackSpec::default(),
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
            ShardInfo {
                hash: BlobHash::of(&bytes),
                bytes: bytes.len() as u64,
                samples: SAMPLES_PER_SHARD,
                text_bytes: 4 * 1003,
            }
        };
        let context = self.spec().model.max_position_embeddings;
        Manifest {
            format: 1,
            context,
            vocab_size: 16,
            tokenizer: None,
            end_of_text: None,
            train: (0..SHARDS).map(info).collect(),
            heldout: vec![info(SHARDS)],
        }
    }

    /// The bytes of all shards, by name.
    pub fn shards(&self) -> impl Iterator<Item = (BlobHash, Vec<u8>)> {
        (0..=SHARDS).map(|n| self.shard(n)).map(|bytes| (BlobHash::of(&bytes), bytes))
    }

    /// The dataset, with its bytes.
    pub fn dataset(&self) -> Dataset {
        Dataset::new(self.manifest(), (0..=SHARDS).map(|n| self.shard(n)))
    }

    /// Owners who are away for five minutes or so, and at their computers for one; what else they do and want differs
    /// from seed to seed.
    fn owner(&self) -> Owner {
        let spell = |every_s| Some(Spell { every_s, for_s: 40.0 });
        let wanted = [
            ("idle_minutes", self.pick(20, &["1", "off"])),
            ("away_duty_percent", self.pick(21, &["100", "50"])),
            ("in_use_duty_percent", self.pick(22, &["off", "off", "30"])),
            ("on_battery", self.pick(23, &["false", "true"])),
            ("schedule", self.pick(24, &["always", "always", "00:00-00:08, 00:11-24:00"])),
            ("free_memory_on_yield", self.pick(25, &["true", "false"])),
        ];
        Owner {
            unplugged: self.pick(26, &[None, spell(400.0)]),
            metered: self.pick(27, &[None, None, spell(600.0)]),
            full_screen: self.pick(28, &[None, spell(500.0)]),
            preferences: Wanted::said(wanted).expect("these are values that they can have"),
            ..Owner::new(300.0, 60.0)
        }
    }

    /// An anchor node that only measures, and volunteers with their owners over thin, nervous links.
    pub fn population(&self) -> Population {
        let link = |group| Group {
            up_mbit: Dist::Drawn(Drawn::LogUniform([0.005, 0.5])),
            down_mbit: Dist::Drawn(Drawn::LogUniform([0.01, 1.0])),
            latency_ms: Dist::Fixed(5.0),
            latency_jitter: 40.0,
            loss: 0.03,
            message_loss: 0.01,
            tokens_per_s_jitter: 0.1,
            ..group
        };
        let speeds = Dist::Drawn(Drawn::LogUniform([8.0, 240.0]));
        let anchor = Group { role: Role::Examiner, ..Group::new("anchor", 1, speeds.clone()) };
        let volunteers = Group { owner: Some(self.owner()), ..Group::new("volunteer", self.volunteers, speeds) };
        Population {
            name: "swarm".into(),
            start_hour: 0.0,
            coordinator_up_mbit: 0.0,
            coordinator_down_mbit: 0.0,
            group: vec![link(anchor), link(volunteers)],
        }
    }

    /// All of it.
    pub fn setup(&self) -> Setup {
        let mut setup = Setup::new("swarm", self.seed, self.spec(), self.dataset(), self.population());
        setup.chaos =
            Chaos { kills: self.kills, kills_per_mille: self.kills_per_mille, settling_deltas: SETTLING_DELTAS };
        setup
    }
}
