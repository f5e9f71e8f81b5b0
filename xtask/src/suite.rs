//! `cargo xtask test`: every test of the workspace, the one way that everybody runs them.

use crate::{cargo, children::Children, root, setup};
use anyhow::{Result, bail};
use std::time::Instant;

/// Sets up, builds, and runs the tests; `args` go to the test runner.
pub fn run(args: &[String], children: &Children) -> Result<()> {
    setup::run(setup::Need::Everything, children)?;
    let since = Instant::now();
    // The whole-system tests start the binaries, which a test build alone need not make.
    let build =
        children.run("cargo", cargo().args(["build", "--workspace", "--bins", "--tests"]).current_dir(root()?))?;
    if !build.success() {
        bail!("the build failed; see above");
    }
    let nextest = setup::in_path("cargo-nextest").is_some();
    let (runner, words): (&str, &[&str]) =
        if nextest { ("cargo nextest", &["nextest", "run"]) } else { ("cargo test", &["test"]) };
    let mut command = cargo();
    command.args(words).args(["--workspace", "--no-fail-fast"]).args(args).current_dir(root()?);
    let ended = children.run(runner, &mut command)?;
    let took = since.elapsed().as_secs();
    let again = if nextest { "cargo xtask test -E 'test(NAME)'" } else { "cargo xtask test NAME" };
    if !ended.success() {
        bail!("tests failed after {} min {} s; run one again with: {again}", took / 60, took % 60);
    }
    println!("tests: all passed with {runner} in {} min {} s", took / 60, took % 60);
    Ok(())
}
