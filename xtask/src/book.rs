//! `cargo xtask book`: the guides of docs/ as a web site, by mdBook.

use crate::{cargo, children::Children, root, setup};
use anyhow::{Context, Result, bail};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The version that `docs/book.toml` is written for.
const VERSION: &str = "0.5.4";

/// Builds the book and says where it is.
pub fn run(open: bool, children: &Children) -> Result<()> {
    let target = setup::target_folder()?;
    let program = match setup::in_path("mdbook") {
        Some(program) => program,
        None => installed(&target.join("tools"), children)?,
    };
    let out = target.join("book");
    let mut build = Command::new(program);
    build.arg("build").arg(root()?.join("docs")).arg("--dest-dir").arg(&out);
    if open {
        build.arg("--open");
    }
    if !children.run("mdbook", &mut build)?.success() {
        bail!("mdBook could not build the book; see above");
    }
    println!("book: {}", out.join("index.html").display());
    Ok(())
}

/// mdBook in a folder of its own; built there where it is not yet, without its server.
fn installed(tools: &Path, children: &Children) -> Result<PathBuf> {
    let program = tools.join("bin").join("mdbook");
    if !program.exists() {
        println!("mdBook is not installed; cargo builds it once, for this repository only (a few minutes)");
        let mut install = cargo();
        install.args(["install", "mdbook", "--version", VERSION, "--locked", "--no-default-features"]);
        install.args(["--features", "search", "--profile", "dev", "--root"]).arg(tools);
        // What it is made of is not wanted again.
        let build = tools.join("build");
        if !children.run("cargo", install.env("CARGO_TARGET_DIR", &build))?.success() {
            bail!("mdBook could not be built; install it yourself: cargo install mdbook --version {VERSION}");
        }
        std::fs::remove_dir_all(&build).with_context(|| format!("cannot remove {}", build.display()))?;
    }
    Ok(program)
}
