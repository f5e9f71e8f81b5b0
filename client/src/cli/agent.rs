//! `join`, `run`, `anchor` and `leave`: the commands that are, or become, an agent.

use super::{
    format::Format,
    preferences::{AnchorFlags, PreferenceFlags},
    running::{Found, Running},
};
use anyhow::{Context, Result, bail};
use clap::Args;
use nightjar_agent::{
    clock,
    control::Command,
    event_loop::{self, AgentError, Setup},
    home::{Home, HomeError, HomeLock},
    identity::Identity,
    join::{JoinError, Joined, Member},
    membership::{Membership, MembershipError},
    preferences::PreferencesFile,
    sensor::Sensors,
    session::{Ending, run_is_over},
    worker::Processes,
};
use nightjar_shared::lease::LeaseKind;
use std::{
    io::Write,
    path::Path,
    process::ExitCode,
    sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    thread,
    time::{Duration, Instant},
};

/// Lines that wait to be printed.
const LINES_WAITING_MAX: usize = 256;
/// They are given so long at the end.
const PRINTED_MAX: Duration = Duration::from_secs(2);
/// Other commands hold the home's lock for a moment.
const LOCK_MAX: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(super) struct Join {
    /// The invite: a link that starts with "nightjar:"; in quotes, or as it was pasted
    #[arg(required = true, num_args = 1.., value_name = "INVITE")]
    invite: Vec<String>,
    /// How this computer is called in the run's roster [default: the first digits of its id]
    #[arg(long)]
    name: Option<String>,
}

#[derive(Args)]
pub(super) struct Run {
    #[command(flatten)]
    pub preferences: PreferenceFlags,
}

#[derive(Args)]
pub(super) struct Anchor {
    #[command(flatten)]
    preferences: AnchorFlags,
    /// Only measure held-out loss; do not train
    #[arg(long)]
    evaluate_only: bool,
}

pub(super) fn join(home: &Home, join: &Join, format: Format) -> Result<ExitCode> {
    // A shell takes a link that was broken into lines for several words.
    let (invite, name) = (join.invite.join(" "), join.name.as_deref());
    match Running::or_lock(home)? {
        Found::Running(running) => {
            let joined = running.join(&invite, name)?;
            tell_joined(
                &joined,
                "it trains from now on, whenever your preferences allow it; `nightjar why` says what it does",
                format,
            )
        }
        Found::Nobody(_lock) => {
            let identity = Identity::load_or_begin_anew(home)?;
            let member = Member::new(&invite, name, &identity, clock::wall_now())?;
            // What was done for another run would be lost.
            if let Ok(before) = Membership::load(&*home.disk())
                && !before.is_same_run(&member.membership)
            {
                return Err(JoinError::Already(before.invite.run_name).into());
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let answer = runtime.context("cannot start the runtime")?.block_on(member.say_hello())?;
            member.store(&*home.disk(), &answer)?;
            let joined = member.joined(&identity, &answer);
            let next = if joined.role == "anchor" { "next: nightjar anchor" } else { "next: nightjar run" };
            tell_joined(&joined, next, format)
        }
        Found::Silent => bail!("an agent runs, but does not answer; try again in a moment"),
    }
}

fn tell_joined(joined: &Joined, next: &str, format: Format) -> Result<ExitCode> {
    let Joined { run, role, device, name, coordinator_answers: _, silence } = joined;
    let article = if role == "anchor" { "an anchor node" } else { "a volunteer" };
    let silent = silence.as_ref().map_or_else(String::new, |why| format!("{why}; the agent keeps trying\n"));
    format.say(joined, format_args!("joined \"{run}\" as {article}; this device is {device} ({name})\n{silent}{next}"))
}

pub(super) fn run(home: Home, flags: &PreferenceFlags, format: Format) -> Result<ExitCode> {
    let preferences = flags.load(&home)?;
    agent(home, preferences, Task::Volunteer, format)
}

pub(super) fn anchor(home: Home, anchor: &Anchor, format: Format) -> Result<ExitCode> {
    let preferences = anchor.preferences.load(&home)?;
    agent(home, preferences, Task::Anchor { evaluate_only: anchor.evaluate_only }, format)
}

pub(super) fn leave(home: Home, format: Format) -> Result<ExitCode> {
    if let Some(running) = Running::find(&home) {
        if let Err(none @ MembershipError::None) = Membership::load(&*home.disk()) {
            return Err(none.into());
        }
        running.send(Command::Leave)?;
        let words = "the agent is leaving the run; a volunteer's stays, and holds until it joins another";
        return format.say(&serde_json::json!({ "left": false, "leaving": true }), words);
    }
    agent(home, PreferencesFile::defaults()?, Task::Leave, format)
}

/// What an agent is started for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Task {
    Volunteer,
    Anchor { evaluate_only: bool },
    Leave,
}

impl Task {
    fn kinds(self) -> Vec<LeaseKind> {
        match self {
            Task::Volunteer => vec![LeaseKind::Train],
            Task::Anchor { evaluate_only: true } => vec![LeaseKind::Evaluate],
            Task::Anchor { evaluate_only: false } => vec![LeaseKind::Evaluate, LeaseKind::Train],
            Task::Leave => vec![],
        }
    }
}

/// Runs the agent in this process until it ends.
fn agent(home: Home, preferences: PreferencesFile, task: Task, format: Format) -> Result<ExitCode> {
    let _lock = lock(&home)?;
    let membership = match Membership::load(&*home.disk()) {
        // It waits for an invite, and says so.
        Err(e @ (MembershipError::None | MembershipError::Damaged(_))) if task == Task::Volunteer => Err(e),
        loaded => Ok(loaded?),
    };
    let identity = match task {
        Task::Leave => Identity::load_or_begin_anew(&home)?,
        Task::Volunteer | Task::Anchor { .. } => Identity::load_or_create(&home)?,
    };
    let launcher = Box::new(launcher(&home)?);
    let (lines, printed) = printer(format)?;
    // Who reads slower than it speaks misses lines; the log has them all.
    let say = Box::new(move |line: &str| drop(lines.try_send(line.to_owned())));
    let (leave, folder) = (task == Task::Leave, home.folder().to_path_buf());
    let setup = Setup {
        home,
        identity,
        membership,
        preferences,
        kinds: task.kinds(),
        start_sensors: Box::new(|wants, changed| Box::new(Sensors::start(wants, changed))),
        launcher,
        say,
        tray: task == Task::Volunteer,
        leave,
        stays: task == Task::Volunteer,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let ended = runtime.block_on(event_loop::run(setup));
    if printed.recv_timeout(PRINTED_MAX) == Err(RecvTimeoutError::Timeout) {
        // Nobody reads: the last word would wait for ever.
        return ended.map(|_| ExitCode::SUCCESS).map_err(|e| in_folder(e, &folder));
    }
    let (ended, words) = match ended.map_err(|e| in_folder(e, &folder))? {
        Ending::Left => ("left", "left the run".to_owned()),
        Ending::Asked => ("stopped", "stopped".to_owned()),
        Ending::RunOver(sentence) => ("run over", run_is_over(&sentence)),
        Ending::Refused(sentence) => bail!("the coordinator refused this device: {sentence}"),
    };
    format.say(&serde_json::json!({ "ended": ended, "left": ended == "left" }), words)
}

/// What the disk says names no file; the folder at least is told.
fn in_folder(error: AgentError, folder: &Path) -> anyhow::Error {
    let is_of_disk = matches!(error, AgentError::Disk(_));
    let error = anyhow::Error::from(error);
    if is_of_disk { error.context(format!("in {}", folder.display())) } else { error }
}

/// The home for this process alone.
fn lock(home: &Home) -> Result<HomeLock, HomeError> {
    let asked = Instant::now();
    loop {
        match home.lock() {
            Err(HomeError::InUse { .. }) if asked.elapsed() < LOCK_MAX => thread::sleep(LOCK_MAX / 20),
            locked => return locked,
        }
    }
}

/// Prints lines in a thread of its own, so that a terminal that is held, or a pipe that nobody reads or whose reader is
/// gone, stops nothing but the lines. The receiver disconnects once all is printed.
fn printer(format: Format) -> Result<(SyncSender<String>, Receiver<()>)> {
    let (lines, waiting) = mpsc::sync_channel::<String>(LINES_WAITING_MAX);
    let (done, printed) = mpsc::channel();
    let print = move || {
        let _done: mpsc::Sender<()> = done;
        for line in waiting {
            // Scripts want the answer alone.
            drop(if format.json {
                writeln!(std::io::stderr(), "{line}")
            } else {
                writeln!(std::io::stdout(), "{line}")
            });
        }
    };
    thread::Builder::new().name("printer".into()).spawn(print).context("cannot start a thread")?;
    Ok((lines, printed))
}

fn launcher(home: &Home) -> Result<Processes> {
    let program =
        std::env::current_exe().context("cannot find this program's own file, which the worker is started from")?;
    let mut arguments: Vec<_> = ["worker", "serve", "--state"].iter().map(Into::into).collect();
    arguments.push(home.folder().into());
    Ok(Processes { program, arguments, log: home.path("worker.log") })
}
