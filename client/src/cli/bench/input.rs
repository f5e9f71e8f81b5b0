//! What the owner's first input does, from end to end: a whole agent with its sensors, policy and worker trains on a
//! lease of nobody's; somebody types at a terminal that it watches; and the kernel is asked when the worker stood
//! still, and when its memory was free.

use super::{
    held::{self, Agent},
    yielding::{START_MAX, Yield, resident, states, wait},
};
use crate::cli::running::Running;
use anyhow::{Context, Result, bail};
use nightjar_agent::{
    control::Command as Ask,
    home::Home,
    journal::{Journal, Run},
    lease::Lease,
    sensor::ROOT_VARIABLE,
};
use nightjar_shared::{
    blob::BlobRef,
    disk::{Disk, FolderDisk},
    ids::{BlobHash, Generation, LeaseId, RunId, Version},
    lease::LeaseKind,
    wire::worker::Train,
};
use std::{
    fs::{self, File, FileTimes},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant, SystemTime},
};

/// Nobody has typed for so long when an agent starts.
const IDLE: Duration = Duration::from_secs(3600);
/// How often the agent is asked whether it trains yet.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// The terminal.
const TERMINAL: &str = "root/dev/pts/0";
/// It renews its lease in vain; what it is told there matters to nobody.
const KEEP_ALIVE_MS: u64 = 600_000;

/// A computer with one terminal, at which nobody sits, and the home of an agent that was killed in the middle of a
/// lease.
pub(super) struct Stage {
    folder: PathBuf,
    home: Home,
    journal: Journal,
}

/// What the first input did.
pub(super) struct Yielded {
    /// Until no thread of the worker ran any more.
    pub stopped: Duration,
    /// Until its memory was free.
    pub free: Duration,
}

impl Stage {
    /// In a folder of the bench, with the lease that a worker alone would train on `disk`.
    pub fn set(folder: &Path, disk: &FolderDisk, train: &Train) -> Result<Self> {
        let folder = folder.join("whole");
        let home = Home::open(Some(folder.join("home")))?;
        held::enrol(&home)?;
        fs::create_dir_all(folder.join("root/dev/pts")).context("cannot make a terminal")?;
        fs::write(folder.join(TERMINAL), "typed").context("cannot make a terminal")?;
        let (base, slice) =
            train.base.as_ref().zip(train.slice.as_ref()).context("the lease has no base or no samples")?;
        let lease = Lease {
            id: LeaseId(train.lease_id),
            generation: Generation(1),
            kind: LeaseKind::Train,
            base_version: Version(base.version),
            base_digest: BlobHash::from_bytes(&base.digest).context("the lease's base has no digest")?,
            keyframe: Some(adopt(disk, &base.keyframe_file, &home)?),
            updates: vec![],
            shard: adopt(disk, &slice.shard_file, &home)?,
            shard_samples: slice.shard_samples,
            first_sample: slice.first_sample,
            samples: slice.samples,
            steps: train.steps,
            progress_tokens: train.progress_tokens,
            progress_tokens_per_step: train.progress_tokens_per_step,
            codec: train.codec,
            ahead_steps: 0,
            ahead_of: None,
        };
        let run = Run { id: RunId([0; 32]), spec_json: train.run_spec_json.clone(), keep_alive_ms: KEEP_ALIVE_MS };
        Ok(Stage { folder, home, journal: Journal { run: Some(run), lease: Some(lease), ..Journal::default() } })
    }

    /// Once: an agent starts and trains for a while, and then somebody types.
    pub fn trial(&self, args: &Yield, trains_for: Duration) -> Result<Yielded> {
        // Each trial begins the lease anew.
        let _ = fs::remove_dir_all(self.home.path("work"));
        self.journal.store(&*self.home.disk())?;
        let terminal = self.folder.join(TERMINAL);
        let times = FileTimes::new().set_accessed(SystemTime::now() - IDLE);
        File::options().write(true).open(&terminal)?.set_times(times).context("cannot set a terminal's times")?;
        let mut agent = Agent::start(self.command(args)?)?;
        self.until_it_trains(&mut agent)?;
        thread::sleep(trains_for);
        let worker = worker_of(agent.id()).context("the agent has no worker")?;

        let typed = Instant::now();
        fs::read(&terminal).context("cannot type")?;
        let stopped =
            wait(|| states(worker).iter().all(|state| !"RSD".contains(*state))).context("the worker went on")?;
        let free = wait(|| resident(worker).is_none()).context("the worker did not end")?;
        Ok(Yielded { stopped: stopped.duration_since(typed), free: free.duration_since(typed) })
    }

    /// An agent that sees one terminal and nothing else, and minds nothing else.
    fn command(&self, args: &Yield) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe().context("cannot find this program's own file")?);
        for (name, _) in std::env::vars_os() {
            if ["NIGHTJAR_", "DBUS_", "DISPLAY", "WAYLAND_"]
                .iter()
                .any(|begin| name.to_string_lossy().starts_with(begin))
            {
                command.env_remove(name);
            }
        }
        command.env("XDG_RUNTIME_DIR", &self.folder).env(ROOT_VARIABLE, self.folder.join("root"));
        command.arg("--home").arg(self.home.folder()).args([
            "run",
            "--idle-minutes",
            "1",
            "--pressure-percent-max",
            "off",
        ]);
        command.args([
            "--waive",
            "power,temperature,metered,full_screen",
            "--memory-mib-min",
            "off",
            "--disk-mib-min",
            "off",
        ]);
        command.args(["--device", &args.compute.device, "--away-threads", &args.compute.threads.to_string()]);
        command.args(["--checkpoint-s", &args.checkpoint_s.to_string()]);
        Ok(command)
    }

    fn until_it_trains(&self, agent: &mut Agent) -> Result<()> {
        let started = Instant::now();
        while started.elapsed() < START_MAX {
            agent.runs()?;
            let status = Running::find(&self.home).map(|running| running.send(Ask::Status)).transpose()?;
            if status.is_some_and(|status| status.session.working && status.session.training.steps > 0) {
                return Ok(());
            }
            thread::sleep(ASK_EVERY);
        }
        bail!("the agent trained nothing in {} s", START_MAX.as_secs())
    }
}

/// Copies a file into a home as the blob that it is.
fn adopt(disk: &FolderDisk, file: &str, home: &Home) -> Result<BlobRef> {
    let bytes = disk.read(file)?.with_context(|| format!("{file} was not written"))?;
    let blob = BlobRef::of(&bytes);
    home.disk().write(&blob.file(), &bytes)?;
    Ok(blob)
}

/// The process that an agent trains with: its only child.
fn worker_of(agent: u32) -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parent = |id: u32| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok()
    };
    ids.find(|id| parent(*id) == Some(agent))
}
