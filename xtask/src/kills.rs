//! `cargo xtask kills`: a run's leader, doors, devices and database are killed, over and over, at a seed.

use crate::{cargo, children::Children, root, setup};
use anyhow::{Result, bail};
use clap::Args;

/// How many, and which.
#[derive(Args)]
pub struct Options {
    /// SIGKILLs
    #[arg(long, value_name = "N", default_value_t = 200)]
    kills: u64,
    /// Chooses whom and when; printed, so that a run can be repeated [default: another one each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

/// Runs the one test that does it, which says how far it is.
pub fn run(options: &Options, children: &Children) -> Result<()> {
    setup::run(setup::Need::Everything, children)?;
    let mut test = cargo();
    // With what every other build has, or cargo would choose other features and build all anew.
    test.args(["test", "--workspace", "--test", "serve", "--", "--exact", "--nocapture"]);
    test.arg("many_kills::whoever_is_killed_each_acknowledged_delta_counts_once");
    test.env("NIGHTJAR_KILLS", options.kills.to_string()).current_dir(root()?);
    // Without a database or a store it fails, where a test run would only skip it.
    test.env("CI", "true");
    if let Some(seed) = options.seed {
        test.env("NIGHTJAR_SEED", seed.to_string());
    }
    if !children.run("cargo", &mut test)?.success() {
        bail!("after a kill something did not hold; see above, with the command that repeats it");
    }
    Ok(())
}
