//! The wall around files: landlock. The worker writes to its own two folders, plain files and folders alone, and to the
//! GPU's device nodes; it reads the blobs, what programs are made of (libraries, drivers' manifests, the system's
//! description of its devices) and itself. The device's key, the owner's files and other programs' are not there for
//! it.

use super::{CACHE, Gap};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

/// What is asked of the kernel; an older one does what it can, and that is said.
const WANTED: ABI = ABI::V6;

/// Read: what programs are made of, on any distribution.
const READ: &[&str] = &[
    // Libraries and data of programs.
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/opt",
    "/nix/store",
    "/gnu/store",
    "/run/opengl-driver",
    "/run/opengl-driver-32",
    "/run/host",
    "/app",
    "/snap",
    // How the loader finds libraries, and drivers their manifests and settings.
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
    "/etc/vulkan",
    "/etc/glvnd",
    "/etc/drirc",
    "/etc/nvidia",
    "/etc/amd",
    "/etc/localtime",
    // What the kernel says of devices, processors and memory, and of this process.
    "/sys",
    "/run/udev/data",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/version",
    "/proc/devices",
    "/proc/modules",
    "/proc/driver",
    "/proc/sys/vm",
    "/proc/sys/kernel/osrelease",
    "/dev/urandom",
    "/dev/random",
];
/// Folders of drivers' manifests, below these variables' folders or else the home folder's usual ones.
const MANIFESTS: [(&str, &str); 2] = [("XDG_DATA_HOME", ".local/share"), ("XDG_CONFIG_HOME", ".config")];
/// Variables by which an owner names manifests, layers and libraries; lists with colons in between.
const NAMED: [&str; 7] = [
    "VK_DRIVER_FILES",
    "VK_ICD_FILENAMES",
    "VK_ADD_DRIVER_FILES",
    "VK_LAYER_PATH",
    "VK_ADD_LAYER_PATH",
    "LD_LIBRARY_PATH",
    "LIBGL_DRIVERS_PATH",
];
/// Device nodes: of GPUs by their drivers' names, and two that every program may use.
const DEVICES: [&str; 5] = ["/dev/dri", "/dev/kfd", "/dev/dxg", "/dev/null", "/dev/zero"];
const DEVICES_BY_PREFIX: [&str; 3] = ["nvidia", "mali", "kgsl"];

/// Raises the wall around this thread and all that it will start.
pub(super) fn confine(state: &Path) -> Result<(), Gap> {
    for folder in ["work", "blobs", CACHE] {
        // What fails here fails again, with its own words, when it is used.
        let _ = fs::create_dir_all(state.join(folder));
    }
    match raise(state)? {
        RulesetStatus::FullyEnforced => Ok(()),
        RulesetStatus::PartiallyEnforced => Err(Gap::OldLandlock),
        RulesetStatus::NotEnforced => Err(Gap::NoLandlock),
    }
}

fn raise(state: &Path) -> Result<RulesetStatus, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = AccessFs::from_all(WANTED) & !(AccessFs::Execute | AccessFs::IoctlDev | strange());
    let device = AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::WriteFile | AccessFs::IoctlDev;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(WANTED))?
        .handle_access(AccessNet::from_all(WANTED))?
        .scope(Scope::from_all(WANTED))?
        .create()?;
    rules = rules.allow(READ, read)?.allow(named(), read)?.allow(env::current_exe(), read)?;
    rules = rules.allow(DEVICES, device)?.allow(devices()?, device)?;
    rules = rules.allow([state.join("blobs")], read)?.allow([state.join("work"), state.join(CACHE)], write)?;
    Ok(rules.restrict_self()?.ruleset)
}

/// What would lead whoever looks into the worker's folders elsewhere, or keep them waiting: links, pipes, sockets,
/// devices, and moving things from one folder into another. No driver's cache is made of these.
fn strange() -> BitFlags<AccessFs> {
    let made = AccessFs::MakeSym | AccessFs::MakeFifo | AccessFs::MakeSock | AccessFs::MakeChar | AccessFs::MakeBlock;
    made | AccessFs::Refer
}

trait Allow: Sized {
    /// Allows this below each of the paths that exist.
    fn allow(
        self,
        paths: impl IntoIterator<Item = impl AsRef<Path>>,
        access: BitFlags<AccessFs>,
    ) -> Result<Self, RulesetError>;
}

impl Allow for RulesetCreated {
    fn allow(
        mut self,
        paths: impl IntoIterator<Item = impl AsRef<Path>>,
        access: BitFlags<AccessFs>,
    ) -> Result<Self, RulesetError> {
        for path in paths {
            let Ok(opened) = PathFd::new(&path) else { continue };
            // What makes sense for folders only is an error for a file.
            let fitting = if path.as_ref().is_dir() { access } else { access & AccessFs::from_file(WANTED) };
            self = self.add_rule(PathBeneath::new(opened, fitting))?;
        }
        Ok(self)
    }
}

/// What the owner's environment names, and the manifests in their home.
fn named() -> Vec<PathBuf> {
    let home = env::var_os("HOME").map(PathBuf::from);
    let manifests = MANIFESTS.iter().filter_map(|(variable, usual)| {
        let folder = env::var_os(variable).filter(|v| !v.is_empty()).map(PathBuf::from);
        Some(folder.or_else(|| Some(home.as_ref()?.join(usual)))?.join("vulkan"))
    });
    let lists = NAMED.iter().filter_map(env::var_os);
    let listed: Vec<PathBuf> = lists.flat_map(|list| env::split_paths(&list).collect::<Vec<_>>()).collect();
    // A relative or empty one means the working folder, which is not for the worker.
    manifests.chain(listed).filter(|path| path.is_absolute()).collect()
}

/// Nodes in /dev by their names' beginnings.
fn devices() -> Result<Vec<PathBuf>, RulesetError> {
    let Ok(entries) = fs::read_dir("/dev") else { return Ok(vec![]) };
    let name = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
    let wanted = |name: &String| DEVICES_BY_PREFIX.iter().any(|prefix| name.starts_with(prefix));
    Ok(entries.filter_map(name).filter(wanted).map(|name| Path::new("/dev").join(name)).collect())
}
