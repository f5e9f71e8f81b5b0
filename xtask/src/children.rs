//! Child processes that never outlive this one, however it ends.
//!
//! Each child leads a process group of its own, so that a Ctrl-C reaches only this process, which then ends its
//! children on the way out. If it is killed outright, the reaper does it: a second copy of this program that knows the
//! living groups from a pipe, and kills them when the pipe closes.

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufRead, Read, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

const POLL: Duration = Duration::from_millis(50);

/// The owner pressed Ctrl-C, closed the terminal, or asked this process to end.
#[derive(Debug)]
pub struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted: everything that was started has ended")
    }
}

impl std::error::Error for Interrupted {}

/// Starts children and answers for them.
#[derive(Clone)]
pub struct Children {
    interrupted: Arc<AtomicBool>,
    reaper: Arc<Mutex<ChildStdin>>,
}

impl Children {
    /// Takes over Ctrl-C and its relatives, and starts the reaper. A second Ctrl-C ends this process at once.
    pub fn new() -> Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
            signal_hook::flag::register_conditional_shutdown(signal, 130, interrupted.clone())?;
            signal_hook::flag::register(signal, interrupted.clone())?;
        }
        let mut reaper = Command::new(std::env::current_exe()?)
            .arg("reap")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start the process that cleans up")?;
        let pipe = reaper.stdin.take().context("the cleaning process has no pipe")?;
        Ok(Children { interrupted, reaper: Arc::new(Mutex::new(pipe)) })
    }

    /// Fails once the owner wants this to end.
    pub fn check(&self) -> Result<()> {
        if self.interrupted.load(Ordering::Relaxed) { Err(Interrupted.into()) } else { Ok(()) }
    }

    /// Waits, unless interrupted.
    pub fn sleep(&self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.check()?;
            std::thread::sleep(POLL.min(until.saturating_duration_since(Instant::now())));
        }
        self.check()
    }

    /// Starts a child whose output goes to the end of `log`.
    pub fn start(&self, name: &str, command: &mut Command, log: &Path) -> Result<Process> {
        let file = File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let mut process = self.spawn(name, command)?;
        process.log = Some(log.to_owned());
        Ok(process)
    }

    /// Runs a child to its end, with this terminal for its output.
    pub fn run(&self, name: &str, command: &mut Command) -> Result<ExitStatus> {
        self.spawn(name, command.stdin(Stdio::null()))?.wait(self, None)?.context("it did not end")
    }

    /// Runs a child to its end and returns what it wrote to its standard output; what it wrote to the other one
    /// explains a failure.
    pub fn output(&self, name: &str, command: &mut Command) -> Result<String> {
        self.spawn(name, command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))?.output(self)
    }

    /// Starts a child with the stdio that the command names.
    pub fn spawn(&self, name: &str, command: &mut Command) -> Result<Process> {
        self.check()?;
        let child = command.process_group(0).spawn().with_context(|| format!("cannot start {name}"))?;
        self.tell_reaper('+', child.id());
        Ok(Process { name: name.to_owned(), child, log: None, children: self.clone(), over: false })
    }

    fn tell_reaper(&self, sign: char, id: u32) {
        let mut pipe = self.reaper.lock().unwrap_or_else(PoisonError::into_inner);
        // A dead reaper is no reason to stop: the children still end with this process in every orderly way.
        let _ = writeln!(pipe, "{sign}{id}");
    }
}

/// A child and its process group. Dropping it kills the whole group.
pub struct Process {
    name: String,
    child: Child,
    log: Option<PathBuf>,
    children: Children,
    over: bool,
}

impl Process {
    /// Kills the whole group with SIGKILL, as a power cut would.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
        self.ended();
    }

    /// Asks the child to end in order, and kills it if it takes longer than `patience`. Returns whether it ended by
    /// itself.
    pub fn stop(&mut self, children: &Children, patience: Duration) -> Result<bool> {
        self.ask_to_end();
        let ended = self.wait(children, Some(patience))?.is_some();
        if !ended {
            self.kill();
        }
        Ok(ended)
    }

    /// Asks the child to end in order, without waiting.
    pub fn ask_to_end(&self) {
        if let (false, Some(pid)) = (self.over, Pid::from_raw(self.child.id() as i32)) {
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
    }

    /// How it ended, if it did.
    pub fn ended_with(&mut self) -> Result<Option<ExitStatus>> {
        let status = self.child.try_wait()?;
        if status.is_some() {
            self.ended();
        }
        Ok(status)
    }

    /// Waits for its end, at most for `patience`.
    pub fn wait(&mut self, children: &Children, patience: Option<Duration>) -> Result<Option<ExitStatus>> {
        let since = Instant::now();
        loop {
            if let Some(status) = self.ended_with()? {
                return Ok(Some(status));
            }
            if patience.is_some_and(|p| since.elapsed() > p) {
                return Ok(None);
            }
            children.sleep(POLL)?;
        }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that it has had, where the system tells it, until it ends.
    pub fn peak_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
    }

    /// The last lines that it wrote to its log.
    pub fn last_words(&self) -> String {
        let text = self.log.as_ref().and_then(|log| std::fs::read_to_string(log).ok()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }

    fn output(mut self, children: &Children) -> Result<String> {
        let out = drain(self.child.stdout.take());
        let err = drain(self.child.stderr.take());
        let status = self.wait(children, None)?.context("it did not end")?;
        let join = |thread: std::thread::JoinHandle<String>| thread.join().unwrap_or_default();
        let (out, err) = (join(out), join(err));
        if !status.success() {
            bail!("{} failed ({status}): {}{}", self.name, out.trim(), err.trim());
        }
        Ok(out)
    }

    fn signal(&self, signal: Signal) {
        if let (false, Some(group)) = (self.over, Pid::from_raw(self.child.id() as i32)) {
            let _ = kill_process_group(group, signal);
        }
    }

    /// The leader was waited for. Whatever it left in its group ends too; then the number may be used again.
    fn ended(&mut self) {
        self.signal(Signal::KILL);
        if !self.over {
            self.over = true;
            self.children.tell_reaper('-', self.child.id());
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.over {
            self.kill();
        }
    }
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    })
}

/// The reaper: keeps the list of living groups that comes in on standard input, and kills them when it closes.
pub fn reap() -> Result<()> {
    let mut groups = BTreeSet::new();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        match (line.chars().next(), line.get(1..).and_then(|id| id.parse().ok())) {
            (Some('+'), Some(id)) => groups.insert(id),
            (Some('-'), Some(id)) => groups.remove(&id),
            _ => bail!("this command is started by others; it has no use by itself"),
        };
    }
    for group in groups.into_iter().filter_map(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    Ok(())
}
