//! `bench yield`: how fast this computer is given back, twice over. A worker alone trains on a lease of nobody's; at a
//! moment drawn at random it is frozen and then ended, as the agent does, and the kernel is asked what became of its
//! threads and its memory: what the order costs. Then a whole agent does the same at a first input ([`super::input`]):
//! what the owner feels.

use super::{
    Load,
    figures::Figures,
    input::{Stage, Yielded},
};
use crate::cli::{format::Format, model::Compute};
use anyhow::{Context, Result, bail};
use clap::Args;
use nightjar_agent::{
    journal::CHECKPOINT,
    policy::Limits,
    worker::{Launcher, Order, Processes, WorkerEvent},
};
use nightjar_shared::{
    disk::FolderDisk,
    rng,
    run_spec::InnerOptimizer,
    wire::worker::{Progress, Ready, Train, from_worker, to_worker},
};
use nightjar_train::{CheckpointStore, StateSizes, work::synthetic};
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// More steps than any trial takes.
const STEPS: u32 = 4000;
/// A worker on a new GPU compiles and measures its kernels before the first step.
pub(super) const START_MAX: Duration = Duration::from_secs(600);
/// Shortest and longest time that a trial trains, in milliseconds.
const TRAIN_MS: [u64; 2] = [300, 3000];
/// What takes longer than this to stop or to end does not.
const YIELD_MAX: Duration = Duration::from_secs(20);
/// How often the kernel is asked.
const LOOK_EVERY: Duration = Duration::from_micros(200);
/// What its threads use up between two looks to take notice of the order and stop is not computing.
const STOPPING_NS: u64 = 100_000;
/// A frozen worker is watched so long: its threads must not run.
const WATCH: Duration = Duration::from_millis(50);

#[derive(Args)]
pub(super) struct Yield {
    /// How often to try
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    trials: u32,
    /// Seconds between checkpoints, as in the preferences
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub checkpoint_s: u64,
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    pub compute: Compute,
}

/// What one trial found.
struct Trial {
    ready: Ready,
    /// From the order to freeze until a thread was last seen computing.
    computed: Duration,
    /// From there until all had stopped: on a busy computer they must first be given a moment to do so.
    stopped: Duration,
    /// From the order to end until the memory was free.
    release: Duration,
    resident_bytes: u64,
    lost_s: f64,
    /// In that time, at the rate so far.
    lost_steps: f64,
    submit_us: u64,
}

pub(super) fn run(args: &Yield, format: Format) -> Result<ExitCode> {
    if !cfg!(target_os = "linux") {
        bail!("`bench yield` asks the kernel through /proc, which only Linux has");
    }
    let scratch = Scratch::new()?;
    let disk = FolderDisk::open(&scratch.0)?;
    let spec = args.load.spec();
    let lease =
        synthetic::lease(&disk, &spec, args.load.batch, STEPS).context("cannot write the lease that is trained on")?;
    let lease = Train { checkpoint_ms: args.checkpoint_s * 1000, ..lease };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let trials = runtime.block_on(async {
        let mut trials = Vec::new();
        for n in 0..args.trials {
            CheckpointStore::open(&disk, CHECKPOINT, StateSizes::of(&spec, InnerOptimizer::AdamW))?.clear()?;
            trials.push(trial(args, &scratch.0, &lease, n.into()).await?);
        }
        anyhow::Ok(trials)
    })?;
    drop(runtime);
    let stage = Stage::set(&scratch.0, &disk, &lease)?;
    let inputs = (0..args.trials).map(|n| stage.trial(args, trains_for(n.into()))).collect::<Result<Vec<_>>>()?;
    report(args, format, spec.parameters(), &trials, &inputs);
    Ok(ExitCode::SUCCESS)
}

/// How long a trial trains before somebody types.
fn trains_for(trial: u64) -> Duration {
    Duration::from_millis(TRAIN_MS[0] + rng::below(7, 0, trial, TRAIN_MS[1] - TRAIN_MS[0]))
}

async fn trial(args: &Yield, state: &Path, lease: &Train, n: u64) -> Result<Trial> {
    let program =
        std::env::current_exe().context("cannot find this program's own file, which the worker is started from")?;
    let arguments = vec!["worker".into(), "serve".into(), "--state".into(), state.into()];
    let limits =
        Limits { duty: 1.0, threads: args.compute.threads as usize, memory_bytes: u64::MAX, tokens_per_s_max: 0.0 };
    let order = Order { device: args.compute.device.clone(), avoid: vec![], limits, file_bytes_max: None };
    let (events, mut heard) = mpsc::channel(16);
    let mut worker = Processes { program, arguments, log: state.join("worker.log") }.start(&order, events)?;
    worker.send(to_worker::Body::Train(lease.clone()));
    let mut ready = Ready::default();
    let started = Instant::now();
    let mut progress = loop {
        match hear(&mut heard, START_MAX.saturating_sub(started.elapsed())).await? {
            Some(from_worker::Body::Ready(said)) => ready = said,
            Some(from_worker::Body::Progress(progress)) => break (Instant::now(), progress),
            Some(_) => {}
            None => bail!("the worker made no step in {} s", START_MAX.as_secs()),
        }
    };
    let first_input = Instant::now() + trains_for(n);
    while let Some(said) = hear(&mut heard, first_input.saturating_duration_since(Instant::now())).await? {
        if let from_worker::Body::Progress(said) = said {
            progress = (Instant::now(), said);
        }
    }
    let (told, progress): (Instant, Progress) = progress;
    let pid = worker.pid().context("the worker ended by itself")?;
    let resident_bytes = resident(pid).unwrap_or(0);

    let asked = Instant::now();
    worker.freeze();
    let (computed, stopped) = watch(pid, asked).context("the worker's threads did not stop")?;
    // Told at least after each checkpoint, so this is never too little.
    let lost_s = (Duration::from_millis(progress.unsaved_ms) + asked.duration_since(told)).as_secs_f64();

    let ended = Instant::now();
    drop(worker);
    let free = wait(|| resident(pid).is_none()).context("the worker did not end")?;
    // The process is waited for in the background, which needs a moment of this thread.
    tokio::time::sleep(Duration::from_millis(10)).await;
    Ok(Trial {
        ready,
        computed,
        stopped,
        release: free.duration_since(ended),
        resident_bytes,
        lost_s,
        lost_steps: lost_s * 1000.0 * f64::from(progress.steps) / progress.train_ms.max(1) as f64,
        submit_us: progress.submit_us,
    })
}

/// What the worker says next; `None` if it says nothing for so long.
async fn hear(heard: &mut mpsc::Receiver<WorkerEvent>, patience: Duration) -> Result<Option<from_worker::Body>> {
    match tokio::time::timeout(patience, heard.recv()).await {
        Err(_) => Ok(None),
        Ok(Some(WorkerEvent::Says(from_worker::Body::Failed(failed)))) => {
            bail!("the worker failed: {}", failed.sentence)
        }
        Ok(Some(WorkerEvent::Says(from_worker::Body::Trained(_)))) => {
            bail!("the lease is done already; take a larger --model")
        }
        Ok(Some(WorkerEvent::Says(body))) => Ok(Some(body)),
        Ok(Some(WorkerEvent::Exited(crash))) => bail!("the worker ended: {crash}"),
        Ok(None) => bail!("the worker is gone"),
    }
}

/// When it first was so; `None` if it never was.
pub(super) fn wait(mut so: impl FnMut() -> bool) -> Option<Instant> {
    let start = Instant::now();
    while start.elapsed() < YIELD_MAX {
        if so() {
            return Some(Instant::now());
        }
        thread::sleep(LOOK_EVERY);
    }
    None
}

/// Watches a process that was told to stop: how long after that it was last seen computing, and how long until all of
/// its threads had stopped. `None` if they do not.
fn watch(pid: u32, asked: Instant) -> Option<(Duration, Duration)> {
    let (mut last, mut computed) = (Duration::ZERO, run_ns(pid));
    let mut look = || {
        let now = run_ns(pid);
        if now.saturating_sub(computed) > STOPPING_NS {
            last = asked.elapsed();
        }
        computed = now;
    };
    let stopped = wait(|| {
        look();
        states(pid).iter().all(|state| *state == 'T')
    })?;
    let watched = Instant::now();
    while watched.elapsed() < WATCH {
        thread::sleep(LOOK_EVERY);
        look();
    }
    Some((last, stopped.duration_since(asked)))
}

/// A file of each of a process's threads.
fn of_threads(pid: u32, file: &str) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.filter_map(|task| fs::read_to_string(task.path().join(file)).ok()).collect()
}

/// The states of a process's threads.
pub(super) fn states(pid: u32) -> Vec<char> {
    of_threads(pid, "stat").iter().filter_map(|stat| state(stat)).collect()
}

/// The state in `/proc/PID/task/TID/stat`. The name before it stands in brackets and may hold anything.
fn state(stat: &str) -> Option<char> {
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// Nanoseconds that a process's threads have computed.
pub(super) fn run_ns(pid: u32) -> u64 {
    let ns = |stat: &String| stat.split_whitespace().next()?.parse::<u64>().ok();
    of_threads(pid, "schedstat").iter().filter_map(ns).sum()
}

/// Bytes of memory that a process holds; `None` once it holds none.
pub(super) fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let words = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    words.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
}

fn report(args: &Yield, format: Format, parameters: usize, trials: &[Trial], inputs: &[Yielded]) {
    let of_inputs =
        |of: &dyn Fn(&Yielded) -> Duration| Figures::of(inputs.iter().map(|y| of(y).as_secs_f64() * 1000.0).collect());
    let figures = |of: &dyn Fn(&Trial) -> f64| Figures::of(trials.iter().map(of).collect());
    let ms = |d: Duration| d.as_secs_f64() * 1000.0;
    let submits = trials.iter().filter(|t| t.submit_us > 0).map(|t| t.submit_us as f64 / 1000.0).collect();
    let rows = [
        ("input_stopped_ms", "first input until its last thread has stopped, ms", of_inputs(&|y| y.stopped)),
        ("input_free_ms", "first input until its memory is free, ms", of_inputs(&|y| y.free)),
        ("computed_ms", "order until it was last seen computing, ms", figures(&|t| ms(t.computed))),
        ("stopped_ms", "order until its last thread has stopped, ms", figures(&|t| ms(t.stopped))),
        ("release_ms", "end until its memory is free, ms", figures(&|t| ms(t.release))),
        ("resident_mib", "memory that it gives back, MiB", figures(&|t| t.resident_bytes as f64 / f64::from(1 << 20))),
        ("lost_s", "training lost if it is not thawed, s", figures(&|t| t.lost_s)),
        ("lost_steps", "training lost if it is not thawed, steps", figures(&|t| t.lost_steps)),
        ("submit_ms", "longest that the GPU is given at once, ms", Figures::of(submits)),
    ];
    let ready = trials.first().map(|t| t.ready.clone()).unwrap_or_default();
    if format.json {
        let mut json = serde_json::json!({
            "device": ready.device, "gpu": ready.gpu, "sandbox": ready.sandbox, "parameters": parameters,
            "trials": trials.len(), "checkpoint_s": args.checkpoint_s,
        });
        for (key, _, figures) in rows {
            json[key] = figures.map_or(serde_json::Value::Null, Figures::json);
        }
        println!("{json}");
        return;
    }
    println!(
        "{} trials on {} ({parameters} parameters), a checkpoint every {} s",
        trials.len(),
        ready.device,
        args.checkpoint_s
    );
    println!("{:52} {:>9} {:>9} {:>9}", "", "p50", "p99", "max");
    for (_, words, figures) in rows {
        if let Some(Figures { p50, p99, max }) = figures {
            println!("{words:52} {p50:9.2} {p99:9.2} {max:9.2}");
        }
    }
    for note in ready.sandbox {
        println!("note: {note}");
    }
}

/// A folder for the bench, removed at its end.
pub(super) struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("nightjar-bench-{}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        Ok(Scratch(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left behind lies among temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_read_whatever_its_name() {
        assert_eq!(state("12 (a) R (b) T 1 12 12 0"), Some('T'));
        assert_eq!(state("12 (a"), None);
        assert_eq!(state("12 (a)"), None);
    }
}
