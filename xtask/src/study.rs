//! `cargo xtask study`: builds the simulator and lets it run the comparisons of docs/study.md.

use crate::{cargo, children::Children, root};
use anyhow::{Context, Result, bail};
use std::process::Command;

/// Builds, then hands all arguments on to `nightjar-sim study`.
pub fn run(args: &[String], children: &Children) -> Result<()> {
    // Asked before the build, which may replace this very program's file.
    let binaries = std::env::current_exe()?.parent().context("this program lies in no folder")?.to_owned();
    let built = children.run("cargo", cargo().args(["build", "--workspace", "--bins"]).current_dir(root()?))?;
    if !built.success() {
        bail!("the build failed; see above");
    }
    let mut study = Command::new(binaries.join("nightjar-sim"));
    study.arg("study").args(args).current_dir(root()?);
    // A simulated device's state is large vectors, made and freed at every lease: with glibc's defaults half of that
    // time goes into giving their pages back and fetching them again.
    study.envs([("MALLOC_MMAP_THRESHOLD_", "1000000000"), ("MALLOC_TRIM_THRESHOLD_", "4000000000")]);
    let ended = children.run("nightjar-sim", &mut study)?;
    if !ended.success() {
        bail!("the study did not end well; what was run is kept, so the same command goes on where it stopped");
    }
    Ok(())
}
