//! `cargo xtask web`: what a page loads. WebAssembly of `client/web`, the JavaScript between the two, and what they
//! weigh. Where no toolchain for this target is there, the command says how to get one.
//!
//! Not here: `wasm-opt`. Behind the compiler's own optimisation it saves less than a tenth, and the version of Debian 12
//! writes modules that browsers refuse.

mod page;

use crate::{
    cargo,
    children::Children,
    root,
    setup::{self, in_path},
};
use anyhow::{Result, bail};
use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const TARGET: &str = "wasm32-unknown-unknown";
/// The module that the page's worker loads, and its JavaScript.
const MODULE: &str = "nightjar_web_bg.wasm";
const GLUE: &str = "nightjar_web.js";

/// What compiles for WebAssembly.
pub enum Toolchain {
    /// Cargo's own, with the target's standard library (rustup's).
    Own,
    /// Debian's, which has the standard library's sources and builds it once; with its linker.
    Debian(OsString),
}

/// What is on this machine; `None` if it has neither.
pub fn toolchain() -> Option<Toolchain> {
    let mut rustc = Command::new("rustc");
    let asked = rustc.args(["--print", "target-libdir", "--target", TARGET]).stderr(Stdio::null()).output();
    let folder = asked.ok().and_then(|output| String::from_utf8(output.stdout).ok());
    let has_std = |folder: String| {
        let files = fs::read_dir(folder.trim()).into_iter().flatten().flatten();
        files.into_iter().any(|file| file.file_name().to_string_lossy().starts_with("libstd-"))
    };
    if folder.is_some_and(has_std) {
        return Some(Toolchain::Own);
    }
    let debian = ["/usr/bin/cargo", "/usr/bin/rustc", "/usr/lib/rustlib/src/rust/library/std/Cargo.toml"];
    let linker = (14..100).rev().map(|version| format!("wasm-ld-{version}")).find(|name| in_path(name).is_some());
    linker.filter(|_| debian.iter().all(|file| Path::new(file).exists())).map(|linker| Toolchain::Debian(linker.into()))
}

/// How to come by one.
pub const ADVICE: &str = "rustup target add wasm32-unknown-unknown, or on Debian 12: \
    apt-get install rustc-web cargo-web rust-web-src lld-22";

/// Builds it all into a folder, and says what it weighs. With `probe`, for the tests, which drive the parts by
/// themselves.
pub fn run(probe: bool, children: &Children) -> Result<()> {
    let target = target_folder()?;
    let out = target.join(if probe { "probe" } else { "pkg" });
    let module = compiled(probe, &target, children)?;
    // The JavaScript's own program is of this machine, not of the page.
    let mut glue = cargo();
    glue.args(["run", "--quiet", "--locked", "--manifest-path"]).arg(root()?.join("client/web/glue/Cargo.toml"));
    glue.arg("--").arg(module).arg(&out).env("CARGO_TARGET_DIR", &target);
    succeed("cargo", &mut glue, children)?;
    println!("{:<24} {:>9} {:>9}", "", "bytes", "brotli");
    for name in [MODULE, GLUE] {
        let file = out.join(name);
        let brotli = brotli(&file).map_or("not here".into(), |bytes| bytes.to_string());
        println!("{name:<24} {:>9} {brotli:>9}", fs::metadata(&file)?.len());
    }
    if probe {
        return Ok(());
    }
    let page = target.join("page");
    page::assemble(&root()?, &out, &page)?;
    println!("web: {}", page.display());
    Ok(())
}

fn compiled(probe: bool, target: &Path, children: &Children) -> Result<PathBuf> {
    let mut build = match toolchain() {
        Some(Toolchain::Own) => cargo(),
        Some(Toolchain::Debian(linker)) => {
            // By their paths, and without rustup's: cargo calls the compiler that it is told of.
            let mut build = Command::new("/usr/bin/cargo");
            build.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
            build.env_remove("RUSTUP_TOOLCHAIN").env_remove("LD_LIBRARY_PATH");
            build.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
            build
        }
        None => bail!("nothing on this machine compiles for {TARGET}: {ADVICE}"),
    };
    build.args(["build", "--release", "--locked", "--target", TARGET]);
    if matches!(toolchain(), Some(Toolchain::Debian(_))) {
        build.arg("-Zbuild-std=std,panic_abort");
    }
    if probe {
        build.args(["--features", "probe"]);
    }
    // Its settings (.cargo/config.toml) are found from where it lies, and nobody else's come before them.
    build
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .current_dir(root()?.join("client/web"))
        .env("CARGO_TARGET_DIR", target);
    succeed("cargo", &mut build, children)?;
    Ok(target.join(TARGET).join("release/nightjar_web.wasm"))
}

/// Bytes of a file as a browser fetches it; `None` where the tool is missing.
fn brotli(file: &Path) -> Option<usize> {
    let output = Command::new(in_path("brotli")?).args(["--quality=11", "--stdout"]).arg(file).output().ok()?;
    output.status.success().then_some(output.stdout.len())
}

fn succeed(name: &str, command: &mut Command, children: &Children) -> Result<()> {
    if !children.run(name, command)?.success() {
        bail!("{name} failed; see above");
    }
    Ok(())
}

/// Where the page is built.
fn target_folder() -> Result<PathBuf> {
    Ok(setup::target_folder()?.join("web"))
}
