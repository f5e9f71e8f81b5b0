//! `cargo xtask bench coordinator`: what a coordinator carries on this machine. The devices are load/'s; this builds them
//! and the coordinator, and starts them.

use super::{claims::Claim, processor, report::Carried};
use crate::{cargo, children::Children, root};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::process::Command;

/// How to measure.
#[derive(Args)]
pub struct Options {
    /// Build with optimizations, as `cargo build --release` does.
    #[arg(long)]
    release: bool,
    /// Put the figures into docs/performance.md, in place of older ones of the same machine and ledger.
    #[arg(long)]
    pub docs: bool,
    /// Passed on: --devices N, --at-work N, --seconds S, --ledger sqlite or postgres://..., --folder DIR.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Builds both programs and measures.
pub fn measure(options: &Options, children: &Children) -> Result<Carried> {
    let profile = if options.release { "release" } else { "debug" };
    // This program lies in the folder of its own profile, beside that of the other.
    let program = std::env::current_exe()?;
    let target = program.parent().and_then(|folder| folder.parent()).context("this program lies in no folder")?;
    let mut build = cargo();
    build.args(["build", "-p", "nightjar-coordinator", "-p", "nightjar-load"]).current_dir(root()?);
    build.args(options.release.then_some("--release"));
    if !children.run("cargo", &mut build)?.success() {
        bail!("the build failed; see above");
    }
    let built = |name: &str| target.join(profile).join(name).with_extension(std::env::consts::EXE_EXTENSION);
    let figures = std::env::temp_dir().join(format!("nightjar-load-{}.json", std::process::id()));
    let mut command = Command::new(built("nightjar-load"));
    command.arg("measure").arg("--coordinator").arg(built("nightjar-coordinator"));
    command.arg("--json").arg(&figures).args(&options.args);
    if !children.run("nightjar-load", &mut command)?.success() {
        bail!("the measurement failed; see above");
    }
    let read = std::fs::read(&figures).with_context(|| format!("{} has no figures", figures.display()))?;
    let _ = std::fs::remove_file(&figures);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let machine = format!("{}, {cores} cores", processor());
    Ok(Carried { machine, profile: profile.into(), ..serde_json::from_slice(&read)? })
}

/// Devices that a coordinator must hold, and by which a measurement is of them rather than of leases.
const MANY: usize = 20_000;

/// What is asked of a coordinator with its devices beside it on two cores: that it holds many, and that it is quick.
pub fn claims(carried: &Carried) -> Vec<Claim> {
    let claim = |what: &str, asked, figure: String, held| Claim { what: what.into(), asked, figure, held };
    let (full, half) = (&carried.full, &carried.half);
    let mut claims = vec![];
    if carried.devices >= MANY {
        claims.push(claim("devices connected", "≥ 20,000", carried.devices.to_string(), true));
    } else {
        claims.push(claim(
            "leases a second, granted and settled",
            "≥ 1,200",
            format!("{:.0}", full.leases_a_second),
            full.leases_a_second >= 1200.0,
        ));
    }
    claims.push(claim(
        "p99 of a lease request, half load",
        "≤ 50 ms",
        format!("{:.1} ms", half.p99_ms),
        half.p99_ms <= 50.0,
    ));
    claims
}
