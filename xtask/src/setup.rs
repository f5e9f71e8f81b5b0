//! What the repository needs beyond Rust: a C compiler, and for the tests a Vulkan loader with a driver, a browser, an
//! X server, D-Bus, systemd's tools, libfaketime, PostgreSQL, an S3 server, a browser's shader compiler, a compiler for
//! pages and the Python programs that labs use; what packs and judges packages. Found by trying, installed where that
//! is possible, else named.

mod tools;

pub use tools::own_tool;

use crate::{children::Children, web};
use anyhow::{Result, bail};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// How much to look for.
#[derive(Clone, Copy, PartialEq)]
pub enum Need {
    /// What a build needs.
    Build,
    /// What the tests need besides.
    Everything,
    /// What packages are made and judged with (`cargo xtask dist`).
    Packages,
}

/// One thing beyond Rust.
struct Requirement {
    what: &'static str,
    why: &'static str,
    present: fn() -> bool,
    /// Whether nothing works without it.
    essential: bool,
    /// Its packages under apt-get, dnf, pacman and apk.
    packages: [&'static str; 4],
}

const REQUIREMENTS: [Requirement; 16] = [
    Requirement {
        what: "a C compiler",
        why: "SQLite and the cryptography are compiled from C",
        present: c_compiler_works,
        essential: true,
        packages: ["gcc libc6-dev", "gcc glibc-devel", "gcc", "gcc musl-dev"],
    },
    Requirement {
        what: "a Vulkan loader",
        why: "the shader tests run on it",
        present: vulkan_loader_is_there,
        essential: false,
        packages: ["libvulkan1", "vulkan-loader", "vulkan-icd-loader", "vulkan-loader"],
    },
    Requirement {
        what: "a Vulkan driver",
        why: "the shader tests run on Mesa's software driver where there is no GPU",
        present: vulkan_driver_is_there,
        essential: false,
        packages: ["mesa-vulkan-drivers", "mesa-vulkan-drivers", "vulkan-swrast", "mesa-vulkan-swrast"],
    },
    Requirement {
        what: "Chromium with its driver",
        why: "a test uses the volunteer's page in it",
        present: browser_is_there,
        essential: false,
        packages: ["chromium chromium-driver", "chromium chromedriver", "chromium", "chromium chromium-chromedriver"],
    },
    Requirement {
        what: "an X server without a screen, with tools",
        why: "a scripted night and the sensors' tests type and open windows in it",
        present: || ["Xvfb", "xdotool", "xev"].into_iter().all(|program| in_path(program).is_some()),
        essential: false,
        packages: [
            "xvfb xdotool x11-utils",
            "xorg-x11-server-Xvfb xdotool xev",
            "xorg-server-xvfb xdotool xorg-xev",
            "xvfb xdotool xev",
        ],
    },
    Requirement {
        what: "D-Bus with python-dbusmock",
        why: "the same tests unplug a computer and send it to sleep with it",
        present: dbusmock_is_there,
        essential: false,
        packages: [
            "dbus python3-dbusmock",
            "dbus-daemon python3-dbusmock",
            "dbus python-dbusmock",
            "dbus py3-dbusmock",
        ],
    },
    Requirement {
        what: "systemd's tools",
        why: "systemd-analyze judges the service's unit",
        present: || in_path("systemd-analyze").is_some(),
        essential: false,
        // Alpine has none.
        packages: ["systemd", "systemd", "systemd", ""],
    },
    Requirement {
        what: "libfaketime",
        why: "a test sets the clock of an agent with it",
        present: faketime_is_there,
        essential: false,
        packages: ["faketime", "libfaketime", "libfaketime", "libfaketime"],
    },
    Requirement {
        what: "PostgreSQL",
        why: "tests keep a run's ledger in a server of their own",
        present: postgres_is_there,
        essential: false,
        packages: ["postgresql", "postgresql-server", "postgresql", "postgresql"],
    },
    Requirement {
        what: "SeaweedFS",
        why: "tests keep a run's blobs in an S3 server of their own",
        present: || tools::seaweedfs().is_some(),
        essential: false,
        // No system has it: it comes as a wheel.
        packages: ["", "", "", ""],
    },
    Requirement {
        what: "Flower",
        why: "a test has volunteers train for a SuperLink and an app of it",
        present: tools::flower_is_there,
        essential: false,
        // It comes from PyPI.
        packages: ["", "", "", ""],
    },
    Requirement {
        what: "Node with npm",
        why: "Tint runs in it",
        present: || ["node", "npm"].into_iter().all(|program| in_path(program).is_some()),
        essential: false,
        packages: ["nodejs npm", "nodejs npm", "nodejs npm", "nodejs npm"],
    },
    Requirement {
        what: "Tint",
        why: "a test compiles the kernels with it, as Chrome does",
        present: tools::tint_is_there,
        essential: false,
        // It comes from npm.
        packages: ["", "", "", ""],
    },
    Requirement {
        what: "a compiler for WebAssembly",
        why: "a page's part is built with it, and a test trains in a page",
        present: || web::toolchain().is_some(),
        essential: false,
        // Rustup's, or Debian's own.
        packages: ["", "", "", ""],
    },
    Requirement {
        what: "brotli",
        why: "what a page loads is weighed as a browser fetches it",
        present: || in_path("brotli").is_some(),
        essential: false,
        packages: ["brotli", "brotli", "brotli", "brotli"],
    },
    Requirement {
        what: "the Python programs that labs use",
        why: "tests open exports and curves with transformers, llama.cpp, TensorBoard, MLflow and W&B",
        present: tools::lab_programs_are_there,
        essential: false,
        // They come as wheels.
        packages: ["", "", "", ""],
    },
];

/// For packages, on Debian: elsewhere they are made, and less is judged.
const PACKAGING: [Requirement; 6] = [
    Requirement {
        what: "nfpm",
        why: "it packs deb, rpm and Arch packages",
        present: || own_tool("nfpm").is_some() || in_path("nfpm").is_some(),
        essential: false,
        // It comes as a wheel.
        packages: ["", "", "", ""],
    },
    Requirement {
        what: "lintian",
        why: "it judges debs",
        present: || in_path("lintian").is_some(),
        essential: false,
        packages: ["lintian", "", "", ""],
    },
    Requirement {
        what: "the desktop's validators",
        why: "they judge the menu's entry and what catalogues show",
        present: || ["desktop-file-validate", "appstreamcli"].into_iter().all(|program| in_path(program).is_some()),
        essential: false,
        packages: [
            "desktop-file-utils appstream",
            "desktop-file-utils appstream",
            "desktop-file-utils appstream",
            "desktop-file-utils appstream",
        ],
    },
    Requirement {
        what: "rpm",
        why: "it reads the rpm again",
        present: || in_path("rpm").is_some(),
        essential: false,
        packages: ["rpm", "rpm", "rpm-tools", "rpm"],
    },
    Requirement {
        what: "umoci",
        why: "it unpacks the container's image",
        present: || in_path("umoci").is_some(),
        essential: false,
        packages: ["umoci", "umoci", "umoci", "umoci"],
    },
    Requirement {
        what: "mmdebstrap",
        why: "a package is installed in a fresh Debian",
        present: || in_path("mmdebstrap").is_some(),
        essential: false,
        packages: ["mmdebstrap", "", "", ""],
    },
];

/// The package managers that `Requirement::packages` speaks of, with the words that install.
const MANAGERS: [(&str, &str); 4] = [
    ("apt-get", "apt-get install --yes --no-install-recommends"),
    ("dnf", "dnf install --assumeyes"),
    ("pacman", "pacman -S --noconfirm"),
    ("apk", "apk add"),
];

/// Finds what is missing and installs it, or names the command. Fails only where something essential stays missing.
pub fn run(need: Need, children: &Children) -> Result<()> {
    tools::install(need, children)?;
    let missing = look(need);
    if missing.is_empty() {
        match need {
            Need::Build => {}
            Need::Everything => println!("setup: all that the build and the tests need is there"),
            Need::Packages => println!("setup: all that packages are made and judged with is there"),
        }
        return Ok(());
    }
    for requirement in &missing {
        println!("setup: {} is missing ({})", requirement.what, requirement.why);
    }
    let Some(manager) = MANAGERS.iter().position(|(name, _)| in_path(name).is_some()) else {
        return conclude(&missing, "install it with this system's package manager");
    };
    let packages: Vec<&str> = missing.iter().flat_map(|r| r.packages[manager].split_whitespace()).collect();
    if packages.is_empty() {
        return conclude(&missing, "see what pip or npm says above");
    }
    let install = format!("{} {}", MANAGERS[manager].1, packages.join(" "));
    let prefix = match privilege() {
        Some(prefix) if MANAGERS[manager].0 == "apt-get" => prefix,
        _ => return conclude(&missing, &format!("install it with: sudo {install}")),
    };
    println!("setup: running: {prefix}{install}");
    // Package lists may be older than the packages; a failed refresh shows in the installation.
    let script = format!("{prefix}apt-get update --quiet; {prefix}{install}");
    children.run("apt-get", Command::new("sh").args(["-c", &script]).env("DEBIAN_FRONTEND", "noninteractive"))?;
    // Now there may be what they come by.
    tools::install(need, children)?;
    conclude(&look(need), &format!("the installation did not help; try: sudo {install}"))
}

fn look(need: Need) -> Vec<&'static Requirement> {
    let needed: Box<dyn Iterator<Item = &Requirement>> = match need {
        Need::Build => Box::new(REQUIREMENTS.iter().filter(|r| r.essential)),
        Need::Everything => Box::new(REQUIREMENTS.iter()),
        Need::Packages => Box::new(PACKAGING.iter()),
    };
    needed.filter(|r| !(r.present)()).collect()
}

fn conclude(missing: &[&Requirement], advice: &str) -> Result<()> {
    if missing.is_empty() {
        println!("setup: done");
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|r| r.what).collect();
    if missing.iter().any(|r| r.essential) {
        bail!("cannot build without {}: {advice}", names.join(" and "));
    }
    println!(
        "setup: going on without {}; what needs it will say that it skips. To have them: {advice}",
        names.join(" and ")
    );
    Ok(())
}

/// The words that give root's rights: none as root, sudo where it asks for no password.
fn privilege() -> Option<&'static str> {
    let sudo_without_password = || quiet(Command::new("sudo").args(["--non-interactive", "true"]));
    if rustix::process::geteuid().is_root() {
        Some("")
    } else if in_path("sudo").is_some() && sudo_without_password() {
        Some("sudo ")
    } else {
        None
    }
}

/// Compiles a program that includes a header: a compiler without the C library's headers is not enough.
fn c_compiler_works() -> bool {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let mut words = compiler.split_whitespace();
    let Some(program) = words.next() else { return false };
    let mut command = Command::new(program);
    command.args(words).args(["-x", "c", "-fsyntax-only", "-"]).stdin(Stdio::piped());
    let Ok(mut child) = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn() else { return false };
    if let Some(mut source) = child.stdin.take() {
        let _ =
            std::io::Write::write_all(&mut source, b"#include <stdlib.h>\nint main(void) { return EXIT_SUCCESS; }\n");
    }
    child.wait().is_ok_and(|status| status.success())
}

fn vulkan_loader_is_there() -> bool {
    let library_folders = ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib"].map(PathBuf::from);
    let by_architecture =
        library_folders.iter().map(|folder| folder.join(format!("{}-linux-gnu", std::env::consts::ARCH)));
    library_folders.iter().cloned().chain(by_architecture).any(|folder| folder.join("libvulkan.so.1").exists())
}

fn vulkan_driver_is_there() -> bool {
    let has_manifest = |folder: &str| std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    std::env::var_os("VK_ICD_FILENAMES").is_some()
        || std::env::var_os("VK_DRIVER_FILES").is_some()
        || ["/usr/share/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/etc/vulkan/icd.d"]
            .into_iter()
            .any(has_manifest)
}

fn browser_is_there() -> bool {
    let browsers = ["chromium", "chromium-browser", "google-chrome"];
    in_path("chromedriver").is_some() && browsers.into_iter().any(|browser| in_path(browser).is_some())
}

fn postgres_is_there() -> bool {
    // Debian keeps the server's programs out of the path.
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    in_path("initdb").is_some() || versions.map(|v| v.path().join("bin/initdb")).any(|file| is_program(&file))
}

fn faketime_is_there() -> bool {
    in_path("faketime").is_some()
}

fn dbusmock_is_there() -> bool {
    // Another Python may come first in the path than the one that packages are installed for.
    let knows = |python: &str| quiet(Command::new(python).args(["-c", "import dbusmock"]));
    in_path("dbus-daemon").is_some() && ["/usr/bin/python3", "python3"].into_iter().any(knows)
}

/// Where cargo builds.
pub fn target_folder() -> Result<PathBuf> {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => Ok(std::path::absolute(folder)?),
        None => Ok(crate::root()?.join("target")),
    }
}

/// Where a program is.
pub fn in_path(program: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths).map(|folder| folder.join(program)).find(|file: &PathBuf| is_program(file))
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

fn quiet(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
