//! Starts a coordinator and crowds of devices, and tells what they measured.

use crate::{
    bed::Bed,
    figures::{Process, Taken, percentile},
    orders::{Order, Report},
};
use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

/// Devices that begin each second, of all crowds together: handshakes take most of a core at this rate.
pub const NEW_A_SECOND: usize = 400;
/// Before anything is measured, things calm down for so long.
const CALM: Duration = Duration::from_secs(5);
/// For so long the system counts syncs, where it does.
const SYNCS_S: u64 = 5;
/// The connections that memory is told for.
const MANY: f64 = 100_000.0;

/// How to measure.
#[derive(Args)]
pub struct Options {
    /// Devices that are connected, each with a lease that it keeps
    #[arg(long, default_value_t = 20_000)]
    devices: usize,
    /// Of these so many deliver and lease again, as fast as they are let
    #[arg(long, default_value_t = 1000)]
    at_work: usize,
    /// Seconds of each measurement of leases
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Where the ledger is: `sqlite`, or postgres://USER@HOST/DATABASE with an empty database
    #[arg(long, default_value = "sqlite")]
    ledger: String,
    /// Where to; the folder is made, and removed at the end
    #[arg(long, default_value = "/tmp/nightjar-load")]
    folder: PathBuf,
    /// The coordinator's program
    #[arg(long)]
    coordinator: PathBuf,
    /// Processes of devices
    #[arg(long, default_value_t = 4)]
    processes: usize,
    /// Write the figures to this file as well, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What was measured.
#[derive(Debug, Default, Serialize)]
struct Figures {
    /// As asked for.
    ledger: String,
    /// Devices that were connected.
    devices: usize,
    /// Of memory, by the slope between a quarter of them and all.
    bytes_a_connection: f64,
    /// The coordinator's memory with all of them.
    memory: u64,
    /// The same with a hundred thousand, by the slope.
    memory_of_many: f64,
    /// Cores that it takes while nobody asks for anything.
    cores_idle: f64,
    /// At full load, and at half of that.
    full: Load,
    half: Load,
}

/// Leases under one load.
#[derive(Debug, Default, Serialize)]
struct Load {
    leases_a_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    cpu_ms_a_lease: f64,
    /// The same, of the devices: they are on the same cores.
    devices_cpu_ms_a_lease: f64,
    written_a_lease: f64,
    syncs_a_lease: Option<f64>,
    refused: u64,
    broken: u64,
}

/// Measures, prints, and keeps the figures where asked to.
pub fn run(options: &Options) -> Result<()> {
    let url = (options.ledger != "sqlite").then_some(options.ledger.as_str());
    let bed = Bed::new(&options.folder, &options.coordinator, url)?;
    let invites = bed.invites(options.devices)?;
    let mut crowds = Crowds::start(options, &bed, &invites)?;
    let mut figures =
        Figures { ledger: if url.is_some() { "postgres" } else { "sqlite" }.into(), ..Figures::default() };
    let process = Process::new(bed.process());

    let few = (options.devices / 4).max(options.at_work).min(options.devices);
    crowds.connect(few)?;
    sleep(CALM);
    let before = process.taken()?;
    if options.devices > few {
        crowds.connect(options.devices)?;
        sleep(CALM);
    }
    let (idle_from, begun) = (process.taken()?, Instant::now());
    sleep(2 * CALM);
    let all = process.taken()?;
    figures.devices = options.devices;
    figures.cores_idle = (all.cpu - idle_from.cpu).as_secs_f64() / begun.elapsed().as_secs_f64();
    figures.memory = all.memory;
    if options.devices > few {
        let slope = (all.memory as f64 - before.memory as f64) / (options.devices - few) as f64;
        figures.bytes_a_connection = slope;
        figures.memory_of_many = all.memory as f64 + slope * (MANY - options.devices as f64);
    }
    // Shorter than a stranger is believed to train takes longer: it would be told to come again.
    figures.full = crowds.load(&process, options, 25_000, "full load")?;
    let think_s = options.at_work as f64 / (figures.full.leases_a_second / 2.0).max(1.0);
    figures.half = crowds.load(&process, options, (think_s * 1e6) as u64, "half load")?;
    print(&figures);
    if let Some(file) = &options.json {
        fs::write(file, serde_json::to_vec_pretty(&figures)?)?;
    }
    Ok(())
}

fn print(figures: &Figures) {
    let Figures { ledger, devices, bytes_a_connection, memory, memory_of_many, cores_idle, full, half } = figures;
    let mib = |bytes: f64| bytes / (1 << 20) as f64;
    println!("\nledger {ledger}, {devices} devices connected, each with a lease:");
    println!("  memory of the coordinator   {:>9.0} MiB", mib(*memory as f64));
    if *bytes_a_connection > 0.0 {
        println!("  bytes a connection          {bytes_a_connection:>9.0}");
        println!("  so with 100,000             {:>9.0} MiB", mib(*memory_of_many));
    }
    println!("  cores, while nobody asks    {cores_idle:>9.2}");
    println!(
        "\n| ledger | load | leases/s | p50 ms | p99 ms | CPU ms a lease | of devices | syncs a lease | KiB written a lease |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for (name, load) in [("full", full), ("half", half)] {
        let Load { leases_a_second, p50_ms, p99_ms, cpu_ms_a_lease, devices_cpu_ms_a_lease, .. } = load;
        let Load { written_a_lease, syncs_a_lease, .. } = load;
        let syncs = syncs_a_lease.map_or("?".into(), |syncs| format!("{syncs:.2}"));
        println!(
            "| {ledger} | {name} | {leases_a_second:.0} | {p50_ms:.1} | {p99_ms:.1} | {cpu_ms_a_lease:.2} | {devices_cpu_ms_a_lease:.2} | {syncs} | {:.1} |",
            written_a_lease / 1024.0
        );
    }
}

/// The processes with devices.
struct Crowds {
    crowds: Vec<Crowd>,
}

struct Crowd {
    child: Child,
    orders: ChildStdin,
    told: BufReader<ChildStdout>,
}

impl Crowds {
    fn start(options: &Options, bed: &Bed, invites: &[String]) -> Result<Self> {
        let program = std::env::current_exe()?;
        let start = |number: usize| -> Result<Crowd> {
            let blobs = options.folder.join(format!("crowd-{number}"));
            let mut command = Command::new(&program);
            command.args(["crowd", "--number", &number.to_string(), "--to", &bed.address.to_string(), "--blobs"]);
            command.arg(blobs).args(["--new-a-second", &(NEW_A_SECOND / options.processes).max(1).to_string()]);
            // Each its own, as far as they go: what is bounded by invite stays so.
            command
                .args(invites.iter().skip(number % invites.len()).chain(invites.iter().take(number % invites.len())));
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
            let orders = child.stdin.take().context("no stdin")?;
            let told = BufReader::new(child.stdout.take().context("no stdout")?);
            Ok(Crowd { child, orders, told })
        };
        Ok(Crowds { crowds: (0..options.processes).map(start).collect::<Result<_>>()? })
    }

    /// The part of so many that each crowd has.
    fn shares(&self, devices: usize) -> impl Iterator<Item = usize> + use<> {
        let crowds = self.crowds.len();
        (0..crowds).map(move |number| devices / crowds + usize::from(number < devices % crowds))
    }

    fn order(&mut self, order: impl Fn(usize) -> Order, devices: usize) -> Result<()> {
        let shares = self.shares(devices);
        for (crowd, share) in self.crowds.iter_mut().zip(shares) {
            serde_json::to_writer(&crowd.orders, &order(share))?;
            crowd.orders.write_all(b"\n")?;
        }
        Ok(())
    }

    /// What all of them tell.
    fn report(&mut self) -> Result<Report> {
        self.order(|_| Order::Report, 0)?;
        let mut sum = Report::default();
        for crowd in &mut self.crowds {
            let mut line = String::new();
            crowd.told.read_line(&mut line)?;
            sum.add(serde_json::from_str(&line).context("a crowd of devices has ended")?);
        }
        Ok(sum)
    }

    /// Waits until so many devices are connected.
    fn connect(&mut self, devices: usize) -> Result<()> {
        self.order(Order::Connect, devices)?;
        let (begun, mut before, mut since) = (Instant::now(), 0, Instant::now());
        loop {
            sleep(Duration::from_secs(2));
            let report = self.report()?;
            if report.connected > before {
                (before, since) = (report.connected, Instant::now());
            }
            let left = devices.saturating_sub(report.connected).div_ceil(NEW_A_SECOND);
            eprintln!("connected {before:>6} of {devices}, about {left} s left  {}", report.why);
            if report.connected >= devices {
                return Ok(());
            }
            if since.elapsed() > Duration::from_secs(60) {
                bail!(
                    "only {before} of {devices} devices were connected in {} s: {}",
                    begun.elapsed().as_secs(),
                    report.why
                );
            }
        }
    }

    /// Leases, with devices that take so long for each.
    fn load(&mut self, process: &Process, options: &Options, think_us: u64, what: &str) -> Result<Load> {
        eprintln!("{what}: about {} s", CALM.as_secs() + options.seconds + SYNCS_S);
        self.order(|devices| Order::Work { devices, think_us }, options.at_work)?;
        sleep(CALM);
        let begins = self.report()?;
        if !begins.why.is_empty() {
            eprintln!("{} leases at first, {} refused, lately: {}", begins.merged, begins.refused, begins.why);
        }
        let (from, devices_from, begun) = (process.taken()?, self.cpu()?, Instant::now());
        sleep(Duration::from_secs(options.seconds));
        let mut report = self.report()?;
        let (to, devices, seconds) = (process.taken()?, self.cpu()?, begun.elapsed().as_secs_f64());
        if !report.why.is_empty() {
            eprintln!("refused {} times, lately: {}", report.refused, report.why);
        }
        let syncs = self.syncs(process)?;
        let leases = report.merged.min(report.granted).max(1) as f64;
        let Taken { cpu, written, .. } = to;
        Ok(Load {
            leases_a_second: leases / seconds,
            p50_ms: f64::from(percentile(&mut report.requests_us, 0.5)) / 1e3,
            p99_ms: f64::from(percentile(&mut report.requests_us, 0.99)) / 1e3,
            cpu_ms_a_lease: (cpu - from.cpu).as_secs_f64() * 1e3 / leases,
            devices_cpu_ms_a_lease: (devices - devices_from).as_secs_f64() * 1e3 / leases,
            written_a_lease: (written - from.written) as f64 / leases,
            syncs_a_lease: syncs,
            refused: report.refused,
            broken: report.broken,
        })
    }
}

impl Crowds {
    /// What all of them took of all cores.
    fn cpu(&self) -> Result<Duration> {
        self.crowds.iter().map(|crowd| Ok(Process::new(crowd.child.id()).taken()?.cpu)).sum()
    }

    /// Syncs a lease, as `perf` counts them; `None` where there is none, or it may not.
    fn syncs(&mut self, process: &Process) -> Result<Option<f64>> {
        self.report()?;
        let mut perf = Command::new("perf");
        perf.args(["stat", "-x,", "-e", "syscalls:sys_enter_fsync,syscalls:sys_enter_fdatasync"]);
        perf.args(["-p", &process.id().to_string(), "sleep", &SYNCS_S.to_string()]);
        let Ok(out) = perf.output() else { return Ok(None) };
        let report = self.report()?;
        let told = String::from_utf8_lossy(&out.stderr);
        let counts = told.lines().filter_map(|line| line.split(',').next()?.parse::<f64>().ok());
        Ok(out.status.success().then(|| counts.sum::<f64>() / report.merged.max(1) as f64))
    }
}

impl Drop for Crowds {
    fn drop(&mut self) {
        for crowd in &mut self.crowds {
            // It may have ended by itself.
            let _ = crowd.child.kill();
            let _ = crowd.child.wait();
        }
    }
}
