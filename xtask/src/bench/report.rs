//! What was measured, as it is kept in docs/performance.json.

use serde::{Deserialize, Serialize};

/// All machines' devices.
#[derive(Default, Serialize, Deserialize)]
pub struct Report {
    pub machines: Vec<Machine>,
    /// The delta codecs on each processor.
    #[serde(default)]
    pub codecs: Vec<Codecs>,
    /// How text is prepared on each processor.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub preparing: Vec<Preparing>,
    /// What a coordinator carries, on each machine and with each ledger.
    #[serde(default)]
    pub coordinators: Vec<Carried>,
}

/// What a coordinator carries beside its devices on one machine.
#[derive(Serialize, Deserialize)]
pub struct Carried {
    /// The machine, in words.
    #[serde(default)]
    pub machine: String,
    /// `debug` or `release`.
    #[serde(default)]
    pub profile: String,
    /// Where the ledger is.
    pub ledger: String,
    /// Devices that were connected, each with a lease.
    pub devices: usize,
    /// Of memory; 0 where it was not measured.
    pub bytes_a_connection: f64,
    /// Bytes of memory with all of them, and with 100,000 by the slope.
    pub memory: u64,
    pub memory_of_many: f64,
    /// Cores that it takes while nobody asks for anything.
    pub cores_idle: f64,
    /// Leases at full load, and at half of that.
    pub full: Load,
    pub half: Load,
}

/// Leases under one load.
#[derive(Serialize, Deserialize)]
pub struct Load {
    pub leases_a_second: f64,
    /// Of a request for a lease.
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub cpu_ms_a_lease: f64,
    /// Bytes.
    pub written_a_lease: f64,
    pub syncs_a_lease: Option<f64>,
}

/// How text is prepared on one processor.
#[derive(Serialize, Deserialize)]
pub struct Preparing {
    pub processor: String,
    pub cores: usize,
    pub rows: Vec<PreparedRow>,
}

/// One input.
#[derive(Serialize, Deserialize)]
pub struct PreparedRow {
    /// Of text.
    pub megabytes: u64,
    pub seconds: f64,
    /// The most memory that the process had.
    pub peak_bytes: u64,
}

/// The delta codecs on one core; all speeds in bytes a second of dense f32 covered.
#[derive(Serialize, Deserialize)]
pub struct Codecs {
    pub processor: String,
    /// Of a plain copy in the same run.
    pub copy: f64,
    pub rows: Vec<CodecRow>,
}

/// One codec.
#[derive(Serialize, Deserialize)]
pub struct CodecRow {
    pub name: String,
    pub encode: f64,
    /// Decoded and accumulated.
    pub decode: f64,
}

/// One device and its figures.
#[derive(Serialize, Deserialize)]
pub struct Machine {
    pub device: Device,
    /// What else is to be known of the figures.
    #[serde(default)]
    pub note: String,
    pub ceiling: Option<Ceiling>,
    pub rows: Vec<Row>,
    #[serde(default)]
    pub starts: Option<Starts>,
    pub growth: Vec<Growth>,
    /// What the owner of a GPU feels, by what it does: `idle`, training in a queue of `low` or `normal` priority.
    #[serde(default)]
    pub guests: Vec<(String, Guest)>,
}

/// A device, as the example names it.
#[derive(Clone, Serialize, Deserialize)]
pub struct Device {
    /// How it is chosen on this machine.
    pub device: String,
    pub name: String,
    pub api: String,
    pub driver: String,
    /// The processor, or a program that plays GPU on it.
    pub software: bool,
    /// Whether its queue gives way to all others of the computer.
    #[serde(default)]
    pub gives_way: bool,
}

impl Device {
    pub fn same_as(&self, other: &Device) -> bool {
        (&self.name, &self.api) == (&other.name, &other.api)
    }
}

/// The most that the device does of either.
#[derive(Serialize, Deserialize)]
pub struct Ceiling {
    /// Side of the square matrices.
    pub matmul_side: u32,
    /// Operations a second of their product.
    pub matmul_flops: f64,
    /// The same in f16, on CUDA in bf16; `None` where the device has neither.
    #[serde(default)]
    pub matmul_flops_half: Option<f64>,
    /// Bytes a second, read and written.
    pub copy_bytes_per_s: f64,
}

/// One model in one batch.
#[derive(Clone, Copy)]
pub struct Shape {
    pub size: &'static str,
    pub samples: u32,
    pub context: u32,
    /// Whether layers are computed anew in the backward pass.
    pub recompute: bool,
}

impl Shape {
    pub fn told(&self) -> String {
        format!("{}×{}{}", self.samples, self.context, if self.recompute { ", recomputed" } else { "" })
    }
}

/// One model trained one way.
#[derive(Serialize, Deserialize)]
pub struct Row {
    pub size: String,
    /// `autodiff`, `nodes`, `burn` or `ours`, maybe with the type of products behind it, or a way of PyTorch.
    pub way: String,
    pub shape: String,
    pub outcome: Result<Trained, String>,
}

impl Row {
    /// Whether its products are of half the width.
    pub fn is_half(&self) -> bool {
        self.way.ends_with("f16")
    }
}

/// What training came to.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Trained {
    pub steps: u32,
    pub first_step_s: f64,
    pub loss_first: f64,
    pub tokens_per_s: f64,
    pub tokens_per_s_best: f64,
    pub tokens_per_s_worst: f64,
    /// Operations a second of those that the model needs.
    pub flops: f64,
    /// At the peak, where it can be asked.
    pub memory_bytes: Option<u64>,
}

/// Seconds from a worker's start to the end of its first step, on the smallest model.
#[derive(Serialize, Deserialize)]
pub struct Starts {
    /// On a device on which nothing was measured or compiled yet.
    pub new_s: f64,
    /// With what the first start left in the worker's cache folder.
    pub known_s: f64,
}

/// Memory of one operation, forward and backward, beyond that of an idle process.
#[derive(Serialize, Deserialize)]
pub struct Growth {
    /// `attention` or `loss`.
    pub what: String,
    pub way: String,
    pub tokens: u32,
    /// 0 for attention.
    pub vocabulary: u32,
    pub bytes: Result<u64, String>,
}

/// Milliseconds that a small piece of another program's work takes, sixty times a second.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Guest {
    pub median_ms: f64,
    pub p95_ms: f64,
    pub worst_ms: f64,
}

/// The example's answer to `start`.
#[derive(Deserialize)]
pub struct Start {
    pub seconds: f64,
}

/// The example's answer to `memory`.
#[derive(Deserialize)]
pub struct Memory {
    pub memory_bytes: u64,
}
