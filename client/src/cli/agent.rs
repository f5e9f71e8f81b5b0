//! `join`, `run`, `anchor` and `leave`: the commands that are, or become, an agent.

use super::{format::Format, preferences::PreferenceFlags, running::Running};
use anyhow::{Context, Result};
use clap::Args;
use nightjar_agent::{
    control::Command,
    event_loop::{self, Setup},
    home::Home,
    identity::Identity,
    journal,
    lease::LeaseKind,
    link::{Dialer, LinkError},
    membership::Membership,
    preferences::PreferencesFile,
    sensor::Sensors,
    session::Ending,
    worker::Processes,
};
use nightjar_shared::wire::Role;
use std::{
    io::Write,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The coordinator is waited for so long while a device joins.
const KNOCK_MAX: Duration = Duration::from_secs(5);

#[derive(Args)]
pub(super) struct Join {
    /// The invite: a link that starts with "nightjar:"
    invite: String,
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
    preferences: PreferenceFlags,
    /// Only measure held-out loss; do not train
    #[arg(long)]
    evaluate_only: bool,
}

pub(super) fn join(home: &Home, join: &Join, format: Format) -> Result<ExitCode> {
    let _lock = home.lock()?;
    let identity = Identity::load_or_create(home)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let device = identity.device().short();
    let membership = Membership::from_link(&join.invite, join.name.as_deref().unwrap_or(&device), now)?;
    let answers = knock(&identity, &membership)?;
    let disk = home.disk();
    if !Membership::load(&*disk).is_ok_and(|before| before.is_same_run(&membership)) {
        // Weights and leases of another run are of no use in this one.
        journal::forget(&*disk).context("cannot clear this device's folder")?;
    }
    membership.store(&*disk)?;
    let (role, article, next) = match membership.role() {
        Role::Anchor => ("anchor", "an anchor node", "anchor"),
        _ => ("volunteer", "a volunteer", "run"),
    };
    let (run, name) = (&membership.invite.run_name, &membership.name);
    let silent = format!("the coordinator does not answer at the moment; `nightjar {next}` keeps trying\n");
    let silent = if answers { "" } else { &silent };
    format.say(
        &serde_json::json!({ "run": run, "role": role, "device": device, "name": name, "coordinator_answers": answers }),
        format_args!("joined \"{run}\" as {article}; this device is {device} ({name})\n{silent}next: nightjar {next}"),
    )
}

/// Whether the coordinator of an invite answers. One that does not today may do so tonight; one with another key is not
/// the one that the invite is for.
fn knock(identity: &Identity, membership: &Membership) -> Result<bool> {
    let dialer = Dialer::new(identity, &membership.invite)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(async {
        match tokio::time::timeout(KNOCK_MAX, dialer.connect()).await {
            Ok(Ok(link)) => {
                link.close().await;
                Ok(true)
            }
            Ok(Err(error @ LinkError::WrongKey(_))) => Err(error.into()),
            Ok(Err(_)) | Err(_) => Ok(false),
        }
    })
}

pub(super) fn run(home: Home, flags: &PreferenceFlags, format: Format) -> Result<ExitCode> {
    let preferences = flags.load(&home)?;
    agent(home, preferences, Task::Volunteer, format)
}

pub(super) fn anchor(home: Home, anchor: &Anchor, format: Format) -> Result<ExitCode> {
    let preferences = anchor.preferences.load_with(&home, &[("policy", "always")])?;
    agent(home, preferences, Task::Anchor { evaluate_only: anchor.evaluate_only }, format)
}

pub(super) fn leave(home: Home, format: Format) -> Result<ExitCode> {
    if let Some(running) = Running::find(&home) {
        running.send(Command::Leave)?;
        return format.say(&serde_json::json!({ "left": false, "leaving": true }), "the agent is leaving the run");
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
    let _lock = home.lock()?;
    let membership = Membership::load(&*home.disk())?;
    let identity = Identity::load_or_create(&home)?;
    let workshop = Box::new(workshop(&home)?);
    // A pipe whose reader is gone must not end the training.
    let say = Box::new(move |line: &str| {
        // Scripts want the answer alone.
        drop(if format.json { writeln!(std::io::stderr(), "{line}") } else { writeln!(std::io::stdout(), "{line}") });
    });
    let leave = task == Task::Leave;
    let setup = Setup {
        home,
        identity,
        membership,
        preferences,
        kinds: task.kinds(),
        eyes: Box::new(|wants, changed| Box::new(Sensors::start(wants, changed))),
        workshop,
        say,
        tray: task == Task::Volunteer,
        leave,
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("cannot start the runtime")?;
    let (ended, words) = match runtime.block_on(event_loop::run(setup))? {
        Ending::Asked if leave => ("left", "left the run".to_owned()),
        Ending::Asked => ("stopped", "stopped".to_owned()),
        Ending::RunOver(sentence) => ("run over", format!("the run is over: {sentence}")),
        Ending::Refused(sentence) => anyhow::bail!("the coordinator refused this device: {sentence}"),
    };
    format.say(&serde_json::json!({ "ended": ended, "left": ended == "left" }), words)
}

fn workshop(home: &Home) -> Result<Processes> {
    let program = std::env::current_exe().context("cannot find this program's own file, which the worker is started from")?;
    let mut arguments: Vec<_> = ["worker", "serve", "--state"].iter().map(Into::into).collect();
    arguments.push(home.folder().into());
    Ok(Processes { program, arguments, log: home.path("worker.log") })
}
