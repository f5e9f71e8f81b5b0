//! What a run will cost, reckoned from its spec before anything starts: what a device needs, what it moves, how long it
//! all takes. Plain arithmetic over the layouts of `shared`, so that no estimate knows other sizes than the programs.

use crate::engine::merge::needs;
use nightjar_shared::{
    delta,
    model_spec::ModelSpec,
    run_spec::RunSpec,
    shard::token_bytes,
    version::{keyframe, update},
};

/// Tokens a parameter that use a given amount of computing best (Hoffmann et al., arXiv 2203.15556).
pub const TOKENS_A_PARAMETER: u64 = 20;
/// A fixed line as many homes have: its way up, in bits a second (`sim/populations/homes.toml`).
const HOME_UP_BITS_PER_S: f64 = 14.7e6;
/// A lease is as long as this many of its deltas' ways up, so that a twentieth of it goes there.
const LEASE_OF_UPLOADS: f64 = 20.0;
/// Share of its time that a device trains (docs/results.md, "Time in use", with the defaults).
const USEFUL: f64 = 0.9;
/// Hours a day that a volunteer's computer is idle and may train: a night.
pub const HOURS_A_DAY: f64 = 8.0;

/// A kind of device, as it is assumed to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Assumed {
    /// For people.
    pub name: &'static str,
    /// Operations a second that training reaches on it.
    pub flops: f64,
    /// Bytes of memory that it may give.
    pub memory_bytes: u64,
    /// Where the two numbers are from.
    pub source: &'static str,
}

/// The kinds that are told.
pub const ASSUMED: [Assumed; 3] = [
    Assumed { name: "a phone", flops: 0.055e12, memory_bytes: 2 << 30, source: "a sixth of the laptop; a guess" },
    Assumed {
        name: "a laptop",
        flops: 0.33e12,
        memory_bytes: 8 << 30,
        source: "two cores with AVX-512, 10 M parameters (docs/results.md)",
    },
    Assumed {
        name: "an H100",
        flops: 30.1e12,
        memory_bytes: 80 << 30,
        source: "f16 by Vulkan, 125 M parameters (docs/performance.md); an H200 is not slower",
    },
];

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Of the model.
    pub parameters: u64,
    /// Tokens that are trained on in all.
    pub tokens: u64,
    /// Bytes of memory that a device needs to take part.
    pub device_bytes: u64,
    /// Bytes that a device fetches once, when it joins: the model.
    pub join_bytes: u64,
    /// Seconds between two deltas of a device.
    pub lease_s: f64,
    /// Bytes of a delta, which goes up once a lease.
    pub delta_bytes: u64,
    /// Bytes of a version's update, which comes down once a lease.
    pub update_bytes: u64,
    /// Bytes of text behind each token trained on, as they come down before they are packed.
    pub token_bytes: f64,
    /// Operations that a token takes, forwards and backwards.
    pub token_flops: f64,
    /// Bytes of memory that the coordinator takes.
    pub server_bytes: u64,
    /// Bytes on the coordinator's disk at the start.
    pub server_disk_bytes: u64,
}

impl Cost {
    /// Of a run.
    pub fn of(spec: &RunSpec) -> Self {
        let (model, context) = (&spec.model, f64::from(spec.model.max_position_embeddings));
        Cost {
            parameters: model.parameters() as u64,
            tokens: spec.token_budget,
            device_bytes: model.training_bytes(),
            join_bytes: keyframe::encoded_bytes(model),
            lease_s: spec.lease.wall_s,
            delta_bytes: *delta::bytes_allowed(model, &spec.delta).end(),
            update_bytes: update::bytes_most(model, spec.publish.codec),
            token_bytes: token_bytes(model.vocab_size) as f64 * (context + 1.0) / context,
            token_flops: token_flops(model),
            server_bytes: needs::memory_bytes(spec),
            server_disk_bytes: needs::run_bytes(spec),
        }
    }

    /// Bytes that a device sends in an hour.
    pub fn up_bytes_an_hour(&self) -> f64 {
        3600.0 / self.lease_s * self.delta_bytes as f64
    }

    /// Bytes that a device of a kind fetches in an hour: updates, and the text that it trains on.
    pub fn down_bytes_an_hour(&self, device: &Assumed) -> f64 {
        3600.0 * (self.update_bytes as f64 / self.lease_s + self.tokens_per_s(device) * self.token_bytes)
    }

    /// Tokens a second that a device of a kind trains, while it trains.
    pub fn tokens_per_s(&self, device: &Assumed) -> f64 {
        device.flops / self.token_flops
    }

    /// Whether a device of a kind has the memory.
    pub fn fits(&self, device: &Assumed) -> bool {
        self.device_bytes <= device.memory_bytes
    }

    /// Hours that devices of a kind take part for the whole of it.
    pub fn device_hours(&self, device: &Assumed) -> f64 {
        self.tokens as f64 / (self.tokens_per_s(device) * USEFUL) / 3600.0
    }

    /// Days that so many devices of a kind take, each for so many hours a day.
    pub fn days(&self, device: &Assumed, devices: u32, hours_a_day: f64) -> f64 {
        self.device_hours(device) / (f64::from(devices) * hours_a_day)
    }
}

/// Operations that training on a token takes: six a weight, and six a layer, width and token attended to, of which a
/// causal model has half a context on average, twice (queries by keys, and by values). As `docs/performance.md` counts.
fn token_flops(model: &ModelSpec) -> f64 {
    let attended = f64::from(model.num_attention_heads) * model.head_size() as f64;
    let attention = f64::from(model.num_hidden_layers) * attended * f64::from(model.max_position_embeddings);
    6.0 * (model.parameters() as f64 + attention)
}

/// Seconds that a lease of a model should take, so that its deltas do not fill a home's line: at least a minute, in
/// whole minutes.
pub fn lease_s(spec: &RunSpec) -> f64 {
    let delta = *delta::bytes_allowed(&spec.model, &spec.delta).end();
    let up_s = delta as f64 * 8.0 / HOME_UP_BITS_PER_S;
    (up_s * LEASE_OF_UPLOADS / 60.0).ceil().clamp(1.0, 60.0) * 60.0
}

/// A peak of the learning rate for a model of so many parameters: GPT-3's, by size (arXiv 2005.14165, table 2.1); for
/// smaller ones, the most that trained well here.
pub fn learning_rate(parameters: u64) -> f64 {
    match parameters {
        0..5_000_000 => 2e-3,
        5_000_000..60_000_000 => 1e-3,
        60_000_000..200_000_000 => 6e-4,
        200_000_000..600_000_000 => 3e-4,
        _ => 2e-4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightjar_shared::{delta::CodecId, model_spec::Size};

    /// One of each number, small enough to reckon on paper.
    fn small() -> RunSpec {
        let mut spec = RunSpec::new("x", 3_600_000);
        (spec.model.vocab_size, spec.model.hidden_size, spec.model.intermediate_size) = (100, 8, 16);
        (spec.model.num_hidden_layers, spec.model.num_attention_heads, spec.model.num_key_value_heads) = (2, 2, 2);
        spec.model.max_position_embeddings = 50;
        spec.delta.codec = CodecId::F32;
        spec
    }

    #[test]
    fn a_small_run_is_reckoned_by_hand() {
        let cost = Cost::of(&small());
        // Embedding 100·8; a layer: two norms of 8, four matrices of 8·8, three of 8·16; a last norm of 8.
        let parameters = 100 * 8 + 2 * (2 * 8 + 4 * 64 + 3 * 128) + 8;
        assert_eq!(cost.parameters, parameters);
        assert_eq!(parameters, 2120);
        // 6 · (2120 + 2 layers · 8 wide · 50 tokens).
        assert_eq!(cost.token_flops, 17_520.0);
        // A delta of f32: four bytes each, and a head.
        assert!((4 * 2120..4 * 2120 + 100).contains(&cost.delta_bytes), "{}", cost.delta_bytes);
        // Sixty leases of a minute.
        assert_eq!(cost.up_bytes_an_hour(), 60.0 * cost.delta_bytes as f64);
        // 35 040 operations a second are two tokens, of two bytes, a fiftieth of them twice.
        let slow = Assumed { name: "", flops: 35_040.0, memory_bytes: 0, source: "" };
        assert_eq!(cost.tokens_per_s(&slow), 2.0);
        let down = 60.0 * cost.update_bytes as f64 + 3600.0 * 2.0 * 2.0 * 1.02;
        assert!((cost.down_bytes_an_hour(&slow) - down).abs() < 1e-6);
        // 3.6 million tokens at two a second are 500 hours, or 555.6 where a tenth of the time is lost.
        assert!((cost.device_hours(&slow) - 500.0 / 0.9).abs() < 1e-9);
        // Ten devices, eight hours a day.
        assert!((cost.days(&slow, 10, 8.0) - 500.0 / 0.9 / 80.0).abs() < 1e-9);
        assert!(!cost.fits(&slow));
        assert!(cost.join_bytes > 2 * 2120 && cost.join_bytes < 2 * 2120 + 200);
    }

    #[test]
    fn the_operations_are_those_that_were_measured() {
        // docs/performance.md: 125M, 42.2 k tokens and 30.1 T operations a second, over 32 000 tokens.
        let model = Size::find("125M").unwrap().model(32_000, 1024);
        let measured = 30.1e12 / 42.2e3;
        assert!((token_flops(&model) / measured - 1.0).abs() < 0.02, "{} and {measured}", token_flops(&model));
    }

    #[test]
    fn leases_grow_with_the_delta() {
        let spec = |size: &str| RunSpec { model: Size::find(size).unwrap().model(32_000, 1024), ..small() };
        let blocks4 = |mut spec: RunSpec| {
            spec.delta.codec = CodecId::Blocks4;
            spec
        };
        assert_eq!(lease_s(&blocks4(spec("1M"))), 60.0);
        // 110 M parameters at 4.06 bits are 56 MB, 30 s on the way up: ten minutes and a bit.
        assert_eq!(lease_s(&blocks4(spec("125M"))), 660.0);
        assert_eq!(lease_s(&small()), 60.0);
        assert_eq!(lease_s(&spec("1B")), 3600.0);
        assert_eq!([1, 10_000_000, 1 << 27, 1 << 28, 1 << 30].map(learning_rate), [2e-3, 1e-3, 6e-4, 3e-4, 2e-4]);
    }
}
