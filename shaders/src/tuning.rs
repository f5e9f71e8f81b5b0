//! How much the GPU runtime measures before it settles on kernels, and where it keeps what it found.

use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig, autotune::AutotuneLevel, cache::CacheConfig};
use std::path::PathBuf;

/// Effort of autotuning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tuning {
    /// The runtime's own default: right for a GPU, which earns it back.
    Normal,
    /// As little as possible: on a software adapter the normal level costs minutes before the first step.
    Minimal,
}

/// Settles both for this process; without a `cache` folder results are kept where the runtime keeps them by default.
/// The runtime's own files and variables (`cubecl.toml`, `CUBECL_*`) are read first; `CUBECL_AUTOTUNE_LEVEL` wins.
///
/// Works once, before the first device is used; returns whether it did.
pub fn configure(tuning: Tuning, cache: Option<PathBuf>) -> bool {
    let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
    if tuning == Tuning::Minimal && std::env::var_os("CUBECL_AUTOTUNE_LEVEL").is_none() {
        config.autotune.level = AutotuneLevel::Minimal;
    }
    if let Some(folder) = cache {
        config.environment.path = CacheConfig::Directory(folder);
    }
    CubeClRuntimeConfig::try_set(config)
}
