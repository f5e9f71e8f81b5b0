//! `cargo xtask bench train`: how fast training is on each device of this machine, against the device's own ceiling,
//! with Burn's own operations alone, with our kernels, and beside PyTorch where that is installed; and how memory
//! grows.
//! `cargo xtask bench codec`: the same question of the delta codecs. `cargo xtask bench prepare`: of text on its way to a
//! dataset. `cargo xtask bench coordinator`: how many devices and leases a coordinator carries. `cargo xtask bench build`:
//! a newcomer's wait.
//!
//! Each row is a process of its own (client/train/examples/bench/), so that one row's memory is not another's, and a
//! device that fails takes one row with it.

mod claims;
mod codec;
mod coordinator;
mod first_build;
mod page;
mod prepare;
mod report;
mod torch;

use crate::{cargo, children::Children, root};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use report::{Carried, Ceiling, Device, Growth, Guest, Machine, Report, Row, Shape, Start, Starts};
use serde::de::DeserializeOwned;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// What to measure.
#[derive(Subcommand)]
pub enum Bench {
    /// Tokens a second, share of the device's ceiling, and memory of training steps.
    Train(Options),
    /// How fast deltas are encoded, and decoded and accumulated, beside a plain copy.
    Codec {
        /// Put the figures into docs/performance.md, in place of older ones of the same processor.
        #[arg(long)]
        docs: bool,
    },
    /// How many connected devices and leases a second a coordinator carries, beside the devices, on this machine.
    Coordinator(coordinator::Options),
    /// How fast `dataset prepare` reads text, and how much memory it takes, for inputs of several sizes.
    Prepare(prepare::Options),
    /// How long a newcomer waits: clones the last commit and builds and tests it from nothing.
    Build {
        /// Where to; the folder must not be there yet. By default one of the system's temporary folders.
        #[arg(long)]
        folder: Option<PathBuf>,
        /// Build only, without running the tests.
        #[arg(long)]
        no_tests: bool,
        /// Keep the folder, with cargo's report of where the time went.
        #[arg(long)]
        keep: bool,
        /// Put the table into docs/development.md.
        #[arg(long)]
        docs: bool,
    },
    /// Write docs/performance.md anew from docs/performance.json, without measuring.
    Page,
}

/// How to measure.
#[derive(Args)]
pub struct Options {
    /// Write the figures to this file as well, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Put the figures into docs/performance.md, in place of older ones of the same devices.
    #[arg(long)]
    docs: bool,
    /// Only these devices: flex, wgpu:0, ...
    #[arg(long, value_delimiter = ',')]
    devices: Vec<String>,
    /// Only these sizes: 0.8M, 10M, 125M, 1B. Without it, those that fit and end in reasonable time.
    #[arg(long, value_delimiter = ',')]
    sizes: Vec<String>,
    /// Seconds of steps of each row, after two steps that do not count.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Leave out how memory grows.
    #[arg(long)]
    no_memory: bool,
    /// Measure only how memory grows, and leave a device's other figures in docs/performance.md as they are.
    #[arg(long, conflicts_with = "no_memory")]
    only_memory: bool,
    /// Devices that the program is built for besides: cuda, vulkan. Building them takes a while.
    #[arg(long, value_delimiter = ',')]
    features: Vec<String>,
    /// The program that measures (target/debug/examples/bench), built already: for a machine without cargo.
    #[arg(long, conflicts_with = "features")]
    program: Option<PathBuf>,
    /// The Python that has PyTorch, if any.
    #[arg(long, default_value = "python3")]
    python: PathBuf,
}

/// Builds the program, measures, prints, and keeps the figures where asked to.
pub fn run(bench: &Bench, children: &Children) -> Result<()> {
    let docs = root()?.join("docs");
    match bench {
        Bench::Train(options) => train(options, &docs, children),
        Bench::Codec { docs: kept } => {
            let codecs = codec::measure(processor(), children)?;
            println!("{}", page::codecs(&codecs));
            let report = Report { codecs: vec![codecs], ..Report::default() };
            if *kept { keep(&docs, report) } else { Ok(()) }
        }
        Bench::Coordinator(options) => {
            let carried = coordinator::measure(options, children)?;
            println!("{}", page::carried(&carried));
            let report = Report { coordinators: vec![carried], ..Report::default() };
            if options.docs { keep(&docs, report) } else { Ok(()) }
        }
        Bench::Prepare(options) => {
            let preparing = prepare::measure(options, processor(), children)?;
            println!("{}", page::preparing(&preparing));
            let report = Report { preparing: vec![preparing], ..Report::default() };
            if options.docs { keep(&docs, report) } else { Ok(()) }
        }
        Bench::Build { folder, no_tests, keep, docs } => {
            let folder = folder.clone().unwrap_or_else(first_build::usual_folder);
            first_build::measure(&folder, !no_tests, *keep, *docs, children)
        }
        Bench::Page => keep(&docs, Report::default()),
    }
}

/// The processor's name, where the system tells it.
fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.into(), |(_, name)| name.trim().into())
}

fn train(options: &Options, docs: &Path, children: &Children) -> Result<()> {
    let path = match &options.program {
        Some(built) => built.canonicalize().with_context(|| {
            format!("cannot take {}: `cargo build --workspace --example bench` makes such a program", built.display())
        })?,
        None => build(&options.features, children)?,
    };
    let bench = Program { path, children };
    let found: Vec<Device> = bench.ask(&["devices".into()])?;
    let wanted = |d: &Device| options.devices.is_empty() || options.devices.contains(&d.device);
    let torch = torch::find(&options.python, children);
    let mut report = Report::default();
    for device in found.into_iter().filter(wanted) {
        let machine = measure(&bench, device, options, torch.as_ref())?;
        println!("{}", page::machine(&machine));
        report.machines.push(machine);
    }
    if report.machines.is_empty() {
        bail!("no such device; `cargo xtask bench train` without --devices names those that there are");
    }
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_string_pretty(&report)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    if options.docs {
        keep(docs, report)?;
    }
    Ok(())
}

/// Builds the example as the workspace is built by everything else here, so that Burn is not built anew.
fn build(features: &[String], children: &Children) -> Result<PathBuf> {
    // Asked before the build, which may replace this very program's file.
    let binaries = std::env::current_exe()?.parent().context("this program lies in no folder")?.to_owned();
    let mut build = cargo();
    build.args(["build", "--workspace", "--example", "bench"]).current_dir(root()?);
    // What is compared with ours is given the same.
    build.args(["--config", "profile.dev.package.burn-flex.opt-level=3"]);
    for feature in features {
        build.args(["--features", &format!("nightjar-train/{feature}")]);
    }
    let built = children.run("cargo", &mut build)?;
    if !built.success() {
        bail!("the build failed; see above");
    }
    Ok(binaries.join("examples").join("bench"))
}

/// The built example.
struct Program<'a> {
    path: PathBuf,
    children: &'a Children,
}

impl Program<'_> {
    /// What it answers: the last line of its output, whatever comes after. Software drivers are known to crash when a
    /// process with their threads ends, and by then all is said.
    fn ask<T: DeserializeOwned>(&self, words: &[String]) -> Result<T> {
        self.ask_with(words, None)
    }

    /// The same, where drivers keep what they compile in this folder, as they do for a worker.
    fn ask_with<T: DeserializeOwned>(&self, words: &[String], caches: Option<&Path>) -> Result<T> {
        eprintln!("bench {}", words.join(" "));
        let mut command = Command::new(&self.path);
        command.args(words);
        if let Some(folder) = caches {
            let variables = ["XDG_CACHE_HOME", "MESA_SHADER_CACHE_DIR", "__GL_SHADER_DISK_CACHE_PATH"];
            command.envs(variables.map(|variable| (variable, folder)));
        }
        let log = std::env::temp_dir().join(format!("nightjar-bench-{}.log", std::process::id()));
        let mut process = self.children.start("bench", &mut command, &log)?;
        let ended = process.wait(self.children, None);
        let output = std::fs::read_to_string(&log).unwrap_or_default();
        let _ = std::fs::remove_file(&log);
        ended?;
        match output.lines().rev().find_map(|line| serde_json::from_str(line).ok()) {
            Some(answer) => Ok(answer),
            None => bail!("{output}"),
        }
    }

    /// The same, with what went wrong as a sentence for the table; an interruption still ends everything.
    fn try_ask<T: DeserializeOwned>(&self, words: &[String]) -> Result<Result<T, String>> {
        let answer = self.ask(words);
        self.children.check()?;
        Ok(answer.map_err(|e| brief(&e)))
    }
}

/// The last line that says something, short enough for a table.
fn brief(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no answer");
    line.chars().take(120).collect()
}

fn measure(bench: &Program<'_>, device: Device, options: &Options, torch: Option<&torch::Torch>) -> Result<Machine> {
    let text = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    let ways: &[&str] = match device.api.as_str() {
        "flex" => &["autodiff", "nodes", "ours"],
        // Our kernels are WGSL.
        "cuda" => &["burn", "burn-bf16"],
        _ => &["autodiff", "nodes", "burn", "ours", "burn-f16", "ours-f16"],
    };
    // How memory grows does not depend on the type, and is a question to single operations.
    let full: Vec<&str> = ways.iter().copied().filter(|way| ["burn", "ours"].contains(way)).collect();
    let growth = if options.no_memory { vec![] } else { growth(bench, &device, &full, options)? };
    if options.only_memory {
        return Ok(Machine {
            device,
            note: String::new(),
            ceiling: None,
            rows: vec![],
            starts: None,
            growth,
            guests: vec![],
        });
    }
    let ceiling: Option<Ceiling> = bench.try_ask(&text(&["ceiling", &device.device]))?.ok();
    let mut rows = vec![];
    for shape in shapes(&device, &options.sizes) {
        for way in ways {
            let mut words = text(&["train", &device.device, shape.size, way]);
            words.extend([shape.samples.to_string(), shape.context.to_string(), options.seconds.to_string()]);
            words.extend(shape.recompute.then(|| "recompute".to_owned()));
            rows.push(Row {
                size: shape.size.into(),
                way: (*way).into(),
                shape: shape.told(),
                outcome: bench.try_ask(&words)?,
            });
        }
        if let Some(torch) = torch {
            rows.extend(torch.rows(&device, &shape, options.seconds, bench.children)?);
        }
    }
    // On a processor a start compiles and measures nothing.
    let starts = if device.api == "flex" { None } else { starts(bench, &device)? };
    let guests = guests(bench, &device, options)?;
    Ok(Machine { device, note: String::new(), ceiling, rows, starts, growth, guests })
}

/// What the owner of a GPU feels of training; on a program that plays GPU, nobody draws.
fn guests(bench: &Program<'_>, device: &Device, options: &Options) -> Result<Vec<(String, Guest)>> {
    let priorities: &[&str] = match device {
        Device { software: false, gives_way: true, .. } => &["idle", "low", "normal"],
        Device { software: false, api, .. } if api != "cuda" => &["idle", "normal"],
        _ => &[],
    };
    let mut all = vec![];
    for priority in priorities {
        let words = ["guest", &device.device, priority, &options.seconds.to_string()].map(str::to_owned);
        all.extend(bench.try_ask::<Guest>(&words)?.ok().map(|guest| ((*priority).to_owned(), guest)));
    }
    Ok(all)
}

/// A worker's start on a new device, and the next one.
fn starts(bench: &Program<'_>, device: &Device) -> Result<Option<Starts>> {
    let folder = std::env::temp_dir().join(format!("nightjar-bench-{}-{}", std::process::id(), device.api));
    // Made here, or it is not ours to remove.
    std::fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let words = ["start", &device.device, "0.8M", "2", "128", &folder.display().to_string()].map(str::to_owned);
    let start = || bench.ask_with::<Start>(&words, Some(&folder));
    let [new, known] = [start(), start()];
    bench.children.check()?;
    let _ = std::fs::remove_dir_all(&folder);
    Ok(new.ok().zip(known.ok()).map(|(new, known)| Starts { new_s: new.seconds, known_s: known.seconds }))
}

/// What is trained on a device: less on a processor, and nearly nothing on a program that plays GPU.
fn shapes(device: &Device, sizes: &[String]) -> Vec<Shape> {
    let shape = |size, samples, context, recompute| Shape { size, samples, context, recompute };
    let all = if !device.software {
        vec![
            shape("0.8M", 64, 128, false),
            shape("10M", 64, 128, false),
            shape("125M", 8, 1024, false),
            shape("1B", 2, 2048, true),
        ]
    } else if device.device == "flex" {
        vec![
            shape("0.8M", 16, 128, false),
            shape("10M", 8, 128, false),
            shape("125M", 1, 1024, false),
            shape("1B", 1, 512, true),
        ]
    } else {
        vec![shape("0.8M", 2, 128, false), shape("10M", 1, 128, false)]
    };
    let usual = |s: &Shape| !(device.software && (s.size == "1B" || (device.device != "flex" && s.size != "0.8M")));
    let asked = |s: &Shape| if sizes.is_empty() { usual(s) } else { sizes.iter().any(|size| size == s.size) };
    all.into_iter().filter(asked).collect()
}

/// Memory of attention against the context, and of the loss against tokens and vocabulary.
fn growth(bench: &Program<'_>, device: &Device, ways: &[&str], options: &Options) -> Result<Vec<Growth>> {
    let small = device.software && device.device != "flex";
    let contexts: &[u32] = if small { &[256, 512, 1024] } else { &[512, 1024, 2048, 4096, 8192] };
    // Many logits take a program that plays GPU minutes, so they have to be asked for.
    let (tokens, vocabularies): (&[u32], &[u32]) = match (small, options.only_memory) {
        (false, _) => (&[1024, 4096, 16384], &[8192, 32768, 131072]),
        (true, true) => (&[1024, 16384], &[32768]),
        (true, false) => (&[], &[]),
    };
    let attention = contexts.iter().map(|t| ("attention", *t, 0));
    let loss = tokens.iter().flat_map(|t| vocabularies.iter().map(move |v| ("loss", *t, *v)));
    let cases: Vec<_> = attention.chain(loss).collect();
    let mut all = vec![];
    for way in ways {
        let ask = |kind: &str, tokens: u32, vocabulary: u32| {
            let words = ["memory", &device.device, way, kind, &tokens.to_string(), &vocabulary.max(1).to_string()];
            bench.try_ask::<report::Memory>(&words.map(str::to_owned))
        };
        // What a process takes that has hardly anything to do.
        let idle = ask("attention", 1, 1)?.map_or(0, |m| m.memory_bytes);
        for (kind, tokens, vocabulary) in &cases {
            let bytes = ask(kind, *tokens, *vocabulary)?.map(|m| m.memory_bytes.saturating_sub(idle));
            all.push(Growth {
                what: (*kind).into(),
                way: (*way).into(),
                tokens: *tokens,
                vocabulary: *vocabulary,
                bytes,
            });
        }
    }
    Ok(all)
}

/// Merges the figures into docs/performance.json, by device, and writes docs/performance.md from it.
fn keep(docs: &Path, new: Report) -> Result<()> {
    let file = docs.join("performance.json");
    let mut report: Report = match std::fs::read(&file) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("{} is not understood", file.display()))?,
        Err(_) => Report::default(),
    };
    for machine in new.machines {
        match report.machines.iter_mut().find(|m| m.device.same_as(&machine.device)) {
            // With nothing but growth in it, it was all that was measured.
            Some(old) if machine.rows.is_empty() => old.growth = machine.growth,
            Some(old) => *old = machine,
            None => report.machines.push(machine),
        }
    }
    for codecs in new.codecs {
        report.codecs.retain(|old| old.processor != codecs.processor);
        report.codecs.push(codecs);
    }
    for preparing in new.preparing {
        report.preparing.retain(|old| old.processor != preparing.processor);
        report.preparing.push(preparing);
    }
    for new in new.coordinators {
        let of = |c: &Carried| (c.machine.clone(), c.profile.clone(), c.ledger.clone(), c.devices);
        report.coordinators.retain(|old| of(old) != of(&new));
        report.coordinators.push(new);
    }
    std::fs::write(&file, serde_json::to_string_pretty(&report)? + "\n")?;
    std::fs::write(docs.join("performance.md"), page::whole(&report))?;
    println!("docs/performance.md and docs/performance.json are written");
    Ok(())
}
