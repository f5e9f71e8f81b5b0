//! What is settled by measuring, once a device: how much the GPU runtime tries before it settles on kernels of its own,
//! and for each operation whether our kernel or Burn's way is the faster one here. And whether the device is right at all.

mod bandwidth;
mod known;
mod measure;
mod remembered;
pub mod trials;

pub use bandwidth::leave_bandwidth_unknown;
pub use known::wrong;
pub use measure::{NEVER_MS, copy_speed, measure, settle};
pub use remembered::{Key, Remembered, Timing};

use cubecl::{
    config::{CubeClRuntimeConfig, RuntimeConfig, autotune::AutotuneLevel, cache::CacheConfig},
    records::RecordLevel,
};
use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
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
}
