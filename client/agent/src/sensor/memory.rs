//! How much memory is free.

use crate::policy::Reading;
use sysinfo::{MemoryRefreshKind, System};

/// Reads the memory that programs may still take.
pub struct MemorySensor {
    system: Result<System, String>,
}

impl Default for MemorySensor {
    fn default() -> Self {
        MemorySensor { system: System::new().map_err(|e| e.to_string()) }
    }
}

impl MemorySensor {
    /// Free memory in bytes, within this process's control group where there is one.
    pub fn read(&mut self) -> Reading<u64> {
        let system = match &mut self.system {
            Ok(system) => system,
            Err(why) => return Reading::Unknown(why.clone()),
        };
        system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        if system.total_memory() == 0 {
            return Reading::Unknown("the system does not say".into());
        }
        let of_system = system.available_memory();
        let of_group = system.cgroup_limits().map_or(u64::MAX, |limits| limits.free_memory);
        Reading::Known(of_system.min(of_group))
    }
}
