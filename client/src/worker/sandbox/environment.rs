//! The variables that drivers read: their caches of compiled shaders go into the worker's folder, the only one that it
//! may write to; and they are told of no display, no session bus and no terminal, since they could not talk to them
//! anyway.

use std::{env, path::Path};

/// Where drivers put what they have compiled. The first is Mesa's, the second NVIDIA's, the third everybody's.
const CACHES: [&str; 4] = ["MESA_SHADER_CACHE_DIR", "__GL_SHADER_DISK_CACHE_PATH", "CUDA_CACHE_PATH", "XDG_CACHE_HOME"];
/// Temporary files, which some drivers compile with.
const TEMPORARY: &str = "TMPDIR";
/// What leads to other programs.
const LEADS: [&str; 4] = ["DISPLAY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS", "DBUS_SYSTEM_BUS_ADDRESS"];

/// Sets them for this process.
#[expect(unsafe_code, reason = "the environment can be changed only while nobody reads it")]
pub(super) fn lead_caches_into(folder: &Path) {
    // A cache that cannot be made costs time at each start, and nothing else.
    let _ = std::fs::create_dir_all(folder);
    for name in CACHES.into_iter().chain([TEMPORARY]) {
        // SAFETY: this process has a single thread as yet.
        unsafe { env::set_var(name, folder) };
    }
    for name in LEADS {
        // SAFETY: as above.
        unsafe { env::remove_var(name) };
    }
}
