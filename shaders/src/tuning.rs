//! What is settled by measuring, once a device: how much the GPU runtime tries before it settles on kernels of its own,
//! and for each operation whether our kernel or Burn's way is the faster one here.

mod bandwidth;
mod measure;
mod remembered;
pub mod trials;

pub use bandwidth::leave_bandwidth_unknown;
pub use measure::{NEVER_MS, Timing, copy_speed, measure, settle};
pub use remembered::{Key, Remembered};

use crate::kernel::{self, Elem, MatrixUnits};
use burn::tensor::{DType, Device, Tensor};
use cubecl::{
    config::{CubeClRuntimeConfig, RuntimeConfig, autotune::AutotuneLevel, cache::CacheConfig},
    records::RecordLevel,
};
use std::{
    fmt,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

/// Effort of autotuning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tuning {
    /// The runtime's own default: right for a GPU, which earns it back.
    Normal,
    /// As little as possible: on a software adapter the normal level costs minutes before the first step.
    Minimal,
}

/// Settles both for this process; without a `cache` folder nothing that is found out is kept.
/// The runtime's own files and variables (`cubecl.toml`, `CUBECL_*`) are read first; `CUBECL_AUTOTUNE_LEVEL` wins.
///
/// Works once, before the first device is used; returns whether it did.
pub fn configure(tuning: Tuning, cache: Option<PathBuf>) -> bool {
    let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
    if tuning == Tuning::Minimal && std::env::var_os("CUBECL_AUTOTUNE_LEVEL").is_none() {
        config.autotune.level = AutotuneLevel::Minimal;
    }
    config.environment.records.level = RecordLevel::Off;
    if let Some(folder) = &cache {
        discard_damaged(folder);
    }
    // What has no folder is kept in memory: the runtime goes without a file where none can be, such as below the
    // executable.
    let folder = cache.or_else(|| std::env::current_exe().ok());
    config.environment.path = folder.map_or_else(CacheConfig::default, CacheConfig::Directory);
    CubeClRuntimeConfig::try_set(config)
}

/// The runtime leaves a file alone that is none of its own, and would keep nothing ever after.
fn discard_damaged(folder: &Path) {
    const FILES: [&str; 3] = ["default.db", "default.db-wal", "default.db-shm"];
    const BEGINS: &[u8] = b"SQLite format 3\0";
    let mut begins = [0; BEGINS.len()];
    let Ok(mut file) = File::open(folder.join(FILES[0])) else { return };
    if file.read_exact(&mut begins).is_ok() && begins == BEGINS {
        return;
    }
    for name in FILES {
        // One that stays costs time at each start, and nothing else.
        let _ = fs::remove_file(folder.join(name));
    }
}

/// Declares [`Op`] with its names.
macro_rules! ops {
    ($($(#[$doc:meta])* $op:ident = $name:literal,)*) => {
        /// What there are two ways for: an operation with a kernel, and the type of products.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Op { $($(#[$doc])* $op),* }

        impl Op {
            /// All of them.
            pub const ALL: &'static [Op] = &[$(Op::$op),*];

            /// Its name in files and tables.
            pub fn name(self) -> &'static str {
                match self { $(Op::$op => $name),* }
            }
        }
    };
}

ops! {
    /// RMSNorm, forward.
    RmsNorm = "rms_norm",
    /// RMSNorm's gradients.
    RmsNormBackward = "rms_norm_backward",
    /// Rotary embedding in place.
    Rope = "rope",
    /// SwiGLU, forward.
    Swiglu = "swiglu",
    /// SwiGLU's gradient.
    SwigluBackward = "swiglu_backward",
    /// Attention, both ways.
    Attention = "attention",
    /// The head's product and the loss, both ways.
    CrossEntropy = "cross_entropy",
    /// Products of f16 by the GPU's matrix units, where it has such.
    Product = "product",
    /// Products of f16 instead of f32, accumulated in f32: no kernel of ours, but a choice of the device's all the
    /// same.
    HalfProducts = "half_products",
    /// The optimizer's update.
    AdamW = "adamw",
    /// A gradient's sum of squares.
    GradNorm = "grad_norm",
    /// The sparse delta's encoder.
    DeltaEncode = "delta_encode",
}

impl Op {
    /// Whether the device that this process trains on has what our kernel needs.
    pub fn has_two_ways(self) -> bool {
        self != Op::Product || MatrixUnits::current().is_some()
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// For which operations our kernels run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choices(u32);

impl Choices {
    /// Burn's own way for all: what holds before anything was measured.
    pub const NONE: Choices = Choices(0);

    /// Our kernels for all.
    pub fn all() -> Self {
        Op::ALL.iter().fold(Choices::NONE, |choices, op| choices.with(*op, true))
    }

    /// The same but for one operation.
    pub fn with(self, op: Op, ours: bool) -> Self {
        let bit = 1 << op as u8;
        Choices(if ours { self.0 | bit } else { self.0 & !bit })
    }

    /// Whether our kernel runs for it.
    pub fn has(self, op: Op) -> bool {
        self.0 >> op as u8 & 1 == 1
    }
}

/// A process trains on one device, so one set of choices is enough.
static CHOICES: AtomicU32 = AtomicU32::new(0);

/// Decides for this process, from its next operation on.
pub fn set(choices: Choices) {
    CHOICES.store(choices.0, Ordering::Relaxed);
}

/// What is decided.
pub fn current() -> Choices {
    Choices(CHOICES.load(Ordering::Relaxed))
}

/// Whether our kernel runs for an operation on this device.
pub fn uses(op: Op, device: &Device) -> bool {
    current().has(op) && kernel::runs_on(device)
}

/// Whether products are computed in f16 on this device: where it can, and was measured to gain.
pub fn halves_products(device: &Device) -> bool {
    uses(Op::HalfProducts, device) && device.supports_dtype(DType::F16)
}

/// Most values of a tensor. What walks over it in strides (`grad_norm.wgsl`: 16384 values a workgroup) reckons one
/// stride beyond the last, which must be countable in 32 bits too.
const VALUES_MAX: usize = (u32::MAX - (1 << 18)) as usize;

/// Whether a tensor's places are countable in 32 bits.
pub(crate) fn is_countable(values: usize) -> bool {
    values <= VALUES_MAX
}

/// Whether our kernel runs for an operation on this tensor: of a type that the kernel takes, not empty, and its places
/// countable in 32 bits.
pub fn takes<const D: usize>(op: Op, tensor: &Tensor<D>) -> bool {
    // What stands between two products is of their type; all else is f32.
    let between_products = matches!(op, Op::Attention | Op::CrossEntropy | Op::Rope | Op::Swiglu | Op::SwigluBackward);
    let is_held = match tensor.dtype() {
        dtype if between_products => Elem::of(dtype).is_some(),
        dtype if op == Op::Product => dtype == DType::F16,
        dtype => dtype == DType::F32,
    };
    let values = tensor.shape().num_elements();
    current().has(op) && is_held && values > 0 && is_countable(values) && kernel::runs_on(&tensor.device())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_no_database_is_discarded() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("default.db");
        discard_damaged(folder.path());
        for (bytes, stays) in [(&b"SQLite format 3\0 and so on"[..], true), (b"SQLite format 4\0", false), (b"", false)]
        {
            fs::write(&file, bytes).unwrap();
            discard_damaged(folder.path());
            assert_eq!(file.exists(), stays, "{bytes:?}");
        }
    }

    #[test]
    fn a_choice_is_one_operations_own() {
        assert!(Op::ALL.iter().all(|op| !Choices::NONE.has(*op) && Choices::all().has(*op)));
        let one = Choices::NONE.with(Op::Swiglu, true);
        assert!(Op::ALL.iter().all(|op| one.has(*op) == (*op == Op::Swiglu)));
        assert_eq!(one.with(Op::Swiglu, false), Choices::NONE);
    }
}
