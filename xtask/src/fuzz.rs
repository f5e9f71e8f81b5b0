//! `cargo xtask fuzz`: every reader of bytes from outside under libFuzzer (fuzz/), or one.

use crate::{cargo, children::Children, root};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::{fs, path::Path, process::Command};

/// What to look for, and for how long.
#[derive(Args)]
pub struct Options {
    /// One reader [default: all, one after the other]
    target: Option<String>,
    /// How long each is tried, after the build.
    #[arg(long, value_name = "N", default_value_t = 600)]
    seconds: u32,
    /// So many inputs of each instead, the same ones every time.
    #[arg(long, value_name = "N", conflicts_with = "seconds")]
    tries: Option<u32>,
}

/// Builds the fuzzer and runs it. What it finds stays in fuzz/found, where every test run goes through it.
pub fn run(options: &Options, children: &Children) -> Result<()> {
    let folder = root()?.join("fuzz");
    if !cfg!(any(target_os = "linux", target_os = "macos")) || !has_cpp_compiler() {
        println!(
            "fuzz: skipped: it needs Linux or macOS and a C++ compiler (g++ or clang++), which libFuzzer is built with"
        );
        return Ok(());
    }
    // Its own settings are found from its folder.
    let mut build = cargo();
    build.args(["build", "--release", "--locked"]).env_remove("RUSTFLAGS").current_dir(&folder);
    if !children.run("cargo", &mut build)?.success() {
        bail!("the fuzzer could not be built; see above");
    }
    let seeds = folder.join("seeds");
    let mut targets: Vec<String> = names(&seeds)?;
    if let Some(wanted) = &options.target {
        if !targets.contains(wanted) {
            bail!("there is no target {wanted}; there are {}", targets.join(", "));
        }
        targets = vec![wanted.clone()];
    }
    for target in targets {
        let found = folder.join("found").join(&target);
        // What was learnt stays for the next time: it begins where this one ends.
        let learnt = folder.join("target").join("learnt").join(&target);
        for folder in [&found, &learnt] {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let (bound, words) = match options.tries {
            Some(tries) => (vec!["-seed=1".into(), format!("-runs={tries}")], format!("{tries} inputs")),
            None => (vec![format!("-max_total_time={}", options.seconds)], format!("{} s", options.seconds)),
        };
        println!("fuzz: {target}, {words}");
        let mut fuzz = cargo();
        fuzz.args(["run", "--quiet", "--release", "--locked", "--"]).arg(&learnt).arg(seeds.join(&target)).arg(&found);
        fuzz.args(bound).arg(format!("-artifact_prefix={}/", found.display()));
        fuzz.args(["-rss_limit_mb=1024", "-timeout=10", "-print_final_stats=1", "-verbosity=0"]);
        fuzz.env("NIGHTJAR_FUZZ", &target).env_remove("RUSTFLAGS").current_dir(&folder);
        if !children.run("the fuzzer", &mut fuzz)?.success() {
            bail!(
                "{target}: the fuzzer has found something; it is in {}, and `cargo xtask test decoders` shows it",
                found.display()
            );
        }
    }
    Ok(())
}

fn has_cpp_compiler() -> bool {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    Command::new(compiler).arg("--version").output().is_ok_and(|output| output.status.success())
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}
