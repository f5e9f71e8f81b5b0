//! How much this computer has at all, whatever is free of it: no floor above that is ever met.

use std::path::Path;
use sysinfo::{MemoryRefreshKind, System};

/// Bytes of the disk that a folder is on, those that are free and all; `None` where the system does not say.
#[cfg(unix)]
pub(crate) fn disk(folder: &Path) -> Option<(u64, u64)> {
    let about = rustix::fs::statvfs(folder).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(about.f_frsize);
    Some((bytes(about.f_bavail), bytes(about.f_blocks))).filter(|(_, all)| *all > 0)
}

/// Bytes of the disk that a folder is on, those that are free and all; `None` where the system does not say.
#[cfg(not(unix))]
pub(crate) fn disk(_: &Path) -> Option<(u64, u64)> {
    None
}

/// Bytes of memory; `None` where the system does not say.
pub(crate) fn memory() -> Option<u64> {
    let mut system = System::new().ok()?;
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    Some(system.total_memory()).filter(|all| *all > 0)
}
