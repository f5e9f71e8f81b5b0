//! What a worker gets of the environment that its agent was started in: a short list, since the shell of a developer
//! holds tokens, and a taken-over worker is whoever took it over. Everything else stays behind, and so do open files.

use nightjar_shared::fail;
use std::ffi::{OsStr, OsString};

/// Variables that it gets, and what for.
const NAMED: &[&str] = &[
    // Finding programs and libraries; the loader's other variables would run code of their own in it.
    "PATH",
    "LD_LIBRARY_PATH",
    "DYLD_FALLBACK_LIBRARY_PATH",
    // Where drivers look for manifests, settings and, but for what the worker sets by itself, caches.
    "HOME",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_DIRS",
    "XDG_CONFIG_HOME",
    "XDG_DATA_DIRS",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "TMPDIR",
    // In which language and time it writes its log.
    "LANG",
    "LANGUAGE",
    "TZ",
    // Which GPU, of several.
    "DRI_PRIME",
    "GPU_DEVICE_ORDINAL",
    "NVIDIA_DRIVER_CAPABILITIES",
    "NVIDIA_VISIBLE_DEVICES",
    // What it says of its own faults, and how it takes memory.
    "RUST_BACKTRACE",
    "RUST_LIB_BACKTRACE",
    "RUST_LOG",
    "RUST_MIN_STACK",
    "GLIBC_TUNABLES",
    // How many threads libraries start.
    "OMP_NUM_THREADS",
    "RAYON_NUM_THREADS",
    // Another folder in the place of `/sys` and `/proc`, for tests.
    "NIGHTJAR_SENSOR_ROOT",
    // Without these a program does not start on Windows, and finds no driver.
    "SYSTEMROOT",
    "SYSTEMDRIVE",
    "WINDIR",
    "COMSPEC",
    "TEMP",
    "TMP",
    "USERPROFILE",
    "APPDATA",
    "LOCALAPPDATA",
    "PROGRAMDATA",
    "PROGRAMFILES",
    "PROGRAMFILES(X86)",
    "PROGRAMW6432",
    "NUMBER_OF_PROCESSORS",
    "PROCESSOR_ARCHITECTURE",
];

/// How the names of drivers' and runtimes' own settings begin.
const FAMILIES: &[&str] = &[
    // The language of each kind of thing.
    "LC_", // Vulkan's loader, its layers and its drivers.
    "VK_", "VULKAN_", // Mesa, its parts and its drivers.
    "MESA_", "LIBGL_", "GALLIUM_", "LP_", "RADV_", "ANV_", "NVK_", "ACO_", "INTEL_", "TU_", "ZINK_",
    // NVIDIA's, CUDA's, and AMD's for computing.
    "__GL_", "__GLX_", "__EGL_", "__NV_", "CUDA_", "HIP_", "HSA_", "ROCR_", // Apple's.
    "MTL_", "METAL_", // The runtimes that the worker computes with.
    "WGPU_", "CUBECL_", "BURN_", // How memory is taken.
    "MALLOC_",
];

/// Words in the names of what nobody else is to know, whatever family it seems to be of.
const SECRETS: &[&str] = &["TOKEN", "SECRET", "PASS", "CREDENTIAL", "AUTH", "API", "_KEY", "_ID"];

/// The variables of this process that a worker gets.
pub(super) fn handed_on() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| is_handed_on(name))
}

fn is_handed_on(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    // Windows does not tell apart how they are written.
    let name = if cfg!(windows) { name.to_ascii_uppercase() } else { name.to_owned() };
    let is_secret = || SECRETS.iter().any(|word| name.contains(word));
    let of_a_family = || FAMILIES.iter().any(|family| name.starts_with(family)) && !is_secret();
    // A fail point armed for the agent must not fire in its worker too.
    name != fail::VARIABLE && (NAMED.contains(&name.as_str()) || of_a_family())
}

/// Marks every open file but the first three to be closed in whatever this process starts: what Rust opens is marked
/// already, but not what the shell left open that started the agent.
#[cfg(unix)]
#[expect(unsafe_code, reason = "no safe crate at hand takes a descriptor by its number")]
pub(super) fn keep_files() -> std::io::Result<()> {
    use rustix::io::{FdFlags, fcntl_setfd};
    use std::os::fd::BorrowedFd;
    for entry in std::fs::read_dir("/dev/fd")? {
        let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if number > 2 {
            // SAFETY: the number is not negative, and nothing but its mark is touched. Who has closed it meanwhile
            // makes the call fail; whatever was opened in its place bears the mark already.
            let file = unsafe { BorrowedFd::borrow_raw(number) };
            let _ = fcntl_setfd(file, FdFlags::CLOEXEC);
        }
    }
    Ok(())
}

/// Nothing to do: only what is marked for it is inherited.
#[cfg(not(unix))]
pub(super) fn keep_files() -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_settings_are_handed_on_and_nothing_else() {
        for name in [
            "PATH",
            "HOME",
            "LANG",
            "LC_ALL",
            "XDG_RUNTIME_DIR",
            "VK_ICD_FILENAMES",
            "VK_LAYER_PATH",
            "VK_ADD_DRIVER_FILES",
            "MESA_VK_DEVICE_SELECT",
            "LIBGL_ALWAYS_SOFTWARE",
            "CUDA_VISIBLE_DEVICES",
            "NVIDIA_VISIBLE_DEVICES",
            "__GL_SHADER_DISK_CACHE_PATH",
            "CUBECL_AUTOTUNE_LEVEL",
            "RUST_LOG",
            "RUST_BACKTRACE",
            "LD_LIBRARY_PATH",
            "NIGHTJAR_SENSOR_ROOT",
        ] {
            assert!(is_handed_on(name.as_ref()), "{name}");
        }
        for name in [
            "AWS_SECRET_ACCESS_KEY",
            "AWS_ACCESS_KEY_ID",
            "GITHUB_TOKEN",
            "GH_TOKEN",
            "HF_TOKEN",
            "OPENAI_API_KEY",
            "NVIDIA_API_KEY",
            "VK_ACCESS_TOKEN",
            "VK_API_KEY",
            "CUDA_REGISTRY_PASSWORD",
            "INTEL_AUTH",
            "SSH_AUTH_SOCK",
            "DBUS_SESSION_BUS_ADDRESS",
            "DISPLAY",
            "WAYLAND_DISPLAY",
            "KUBECONFIG",
            "DATABASE_URL",
            "LD_PRELOAD",
            "LD_AUDIT",
            "DYLD_INSERT_LIBRARIES",
            "PWD",
            "USER",
            "MAIL",
            "NIGHTJAR_HOME",
            "NIGHTJAR_FAIL_POINT",
            "NIGHTJAR_POLICY",
            "path",
            "PATH_TO_KEY",
            "",
        ] {
            assert!(!is_handed_on(name.as_ref()), "{name}");
        }
    }
}
