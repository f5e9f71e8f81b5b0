//! The command line: what the owner can say, and the words that explain it.

mod agent;
mod bench;
mod completions;
mod control;
mod devices;
mod format;
mod ledger;
mod log;
mod man;
mod model;
mod open;
mod preferences;
mod running;
mod service;

use anyhow::Result;
use clap::{
    Args, Parser, Subcommand,
    builder::{OsStringValueParser, TypedValueParser},
};
use format::Format;
use nightjar_agent::home::{HOME_VARIABLE, Home};
use std::{
    ffi::{OsStr, OsString},
    io::IsTerminal,
    path::PathBuf,
    process::ExitCode,
};
use tracing_subscriber::EnvFilter;

const AFTER_HELP: &str = "\
First steps:
  nightjar join 'nightjar:…'        join the run of an invite that you were given
  nightjar service install          train whenever your preferences allow it, from every login on
  nightjar open                     see what it does in your browser
  nightjar why                      the same in one sentence

Every day:
  nightjar pause 2h                 not now; `nightjar resume` ends it
  nightjar run-now until 7:00       now, although somebody is there
  nightjar prefs set schedule 'mon-fri 22:00-07:00, sat-sun 00:00-24:00'

Exit codes: 0 all is well, 1 something failed (one line says what),
2 the command was not understood, 3 no agent is running.";

/// Lends this computer's idle hours to training one AI model together with others.
#[derive(Parser)]
#[command(name = "nightjar", version, after_help = AFTER_HELP)]
struct Cli {
    /// Folder for this device's key, membership, preferences and work [default: the user's data and configuration
    /// folders]
    // An empty one comes through, and is refused in words that name the variable.
    #[arg(long, global = true, env = HOME_VARIABLE, value_name = "DIR", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    home: Option<PathBuf>,
    #[command(flatten)]
    format: Format,
    #[command(subcommand)]
    command: Command,
}

/// A command line that clap takes and that makes no sense all the same.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Misunderstood(pub String);

/// The exit code of commands that were not understood.
pub(crate) const NOT_UNDERSTOOD: u8 = 2;

#[derive(Subcommand)]
enum Command {
    /// Join a run with the invite that you were given
    Join(agent::Join),
    /// Train whenever the preferences allow it, until stopped with Ctrl-C or SIGTERM
    Run(agent::Run),
    /// Run as an anchor node: always on, measuring the model's held-out loss, and training too
    Anchor(agent::Anchor),
    /// Show what the agent does, in your browser
    Open(open::Open),
    /// Show what the running agent does and has done
    Status,
    /// Say in one sentence what it does, or why it holds
    Why,
    /// Stop training for a while, or until `nightjar resume`
    Pause(control::Pause),
    /// Train for a while, or until `nightjar resume`, although the preferences would hold; heat, short memory and a
    /// full disk still do
    RunNow(control::RunNow),
    /// End a pause, or `run-now`: the preferences decide again
    Resume,
    /// Show or change what you want of it
    Prefs(preferences::Prefs),
    /// List what this computer can train on
    Devices(devices::Devices),
    /// List what this device has delivered
    Ledger(ledger::Ledger),
    /// Show what the agent has told
    Log(log::Log),
    /// Have the agent started with your session, or no longer
    Service(service::Service),
    /// Leave the run: give back what is leased, and forget invite and downloads (the device's key stays)
    Leave,
    /// Print a text that an exported model makes up
    Sample(model::Sample),
    /// Measure an exported model on a text, or print its logits
    Eval(model::Eval),
    /// Measure how many tokens a second this computer trains on, or how fast it is given back
    Bench(bench::Bench),
    /// Print completions for a shell
    Completions(completions::Completions),
    /// Write the manual's pages, one a command: for packages
    #[command(hide = true)]
    Man(man::Man),
    /// The icon in the menu bar: started by the agent, since macOS wants a process of its own for it
    #[cfg(target_os = "macos")]
    #[command(hide = true)]
    Tray,
    /// What trains: started by the other commands, in a process of its own
    #[command(hide = true)]
    Worker {
        #[command(subcommand)]
        task: Task,
    },
}

/// What a worker process is for.
#[derive(Subcommand)]
enum Task {
    /// Train leases that come in over stdin
    Serve(Serve),
    /// See `nightjar sample`
    Sample(model::Sample),
    /// See `nightjar eval`
    Eval(model::Eval),
    /// See `nightjar bench`
    Bench(bench::Bench),
    /// List the devices that can train, as JSON
    Devices,
}

/// What a worker that trains leases is started with.
#[derive(Args)]
pub(crate) struct Serve {
    /// The home folder.
    #[arg(long)]
    pub state: PathBuf,
    /// What computes.
    #[command(flatten)]
    pub compute: model::Compute,
    /// A GPU that `auto` passes over, by the name it gives itself.
    #[arg(long)]
    pub avoid: Vec<String>,
    /// The control group to join.
    #[arg(long)]
    pub cgroup: Option<PathBuf>,
}

/// Runs the command that the process was started with.
pub(crate) fn run() -> Result<ExitCode> {
    let cli = Cli::parse_from(with_json_first(std::env::args_os()));
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    let in_colour = wants_colour(std::io::stderr().is_terminal(), std::env::var_os("NO_COLOR").as_deref());
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(in_colour);
    // Which module says it means nothing to whoever reads it.
    lines.with_target(false).init();
    let home = || Home::open(cli.home.clone());
    let format = cli.format;
    if !matches!(
        cli.command,
        Command::Join(_) | Command::Run(_) | Command::Anchor(_) | Command::Leave | Command::Worker { .. }
    ) {
        end_with_the_reader();
    }
    match cli.command {
        Command::Join(join) => agent::join(&home()?, &join, format),
        Command::Run(run) => agent::run(home()?, &run.preferences, format),
        Command::Anchor(anchor) => agent::anchor(home()?, &anchor, format),
        Command::Status | Command::Why if !Home::is_there(cli.home.as_deref()) => control::no_home(format),
        Command::Status => control::status(&home()?, format),
        Command::Why => control::why(&home()?, format),
        Command::Open(open) => open::open(&home()?, &open, format),
        Command::Pause(pause) => control::pause(&home()?, &pause, format),
        Command::RunNow(run_now) => control::run_now(&home()?, &run_now, format),
        Command::Prefs(prefs) => preferences::prefs(&home()?, &prefs, format),
        Command::Devices(devices) => devices::devices(&home()?, &devices, format),
        Command::Ledger(ledger) => ledger::ledger(&home()?, &ledger, format),
        Command::Log(log) => log::log(&home()?, &log, format),
        Command::Service(service) => service::service(&home()?, &service, format),
        Command::Completions(completions) => completions::print::<Cli>(&completions),
        Command::Man(man) => man::write::<Cli>(&man),
        Command::Resume => control::resume(&home()?, format),
        Command::Leave => agent::leave(home()?, format),
        // These compute, so they run in a process of their own too: a driver that crashes takes only that down.
        Command::Sample(_) | Command::Eval(_) => model::in_worker(format),
        Command::Bench(bench) => bench::run(&bench, format),
        #[cfg(target_os = "macos")]
        Command::Tray => {
            nightjar_agent::tray::serve().map(|()| ExitCode::SUCCESS).map_err(|e| anyhow::anyhow!("no tray icon: {e}"))
        }
        Command::Worker { task: Task::Serve(serve) } => crate::worker::serve(&serve),
        Command::Worker { task: Task::Sample(sample) } => model::sample(&sample, format),
        Command::Worker { task: Task::Eval(eval) } => model::eval(&eval, format),
        Command::Worker { task: Task::Bench(bench) } => bench::measure(&bench, format),
        Command::Worker { task: Task::Devices } => crate::worker::list_devices(),
    }
}

/// The words of a command line with `--json` before the command. It may stand anywhere, also where a command such as
/// `bench` takes either flags or a command of its own, which clap could not know otherwise. What follows `--` is no
/// flag.
fn with_json_first(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let words: Vec<OsString> = words.collect();
    let flags = words.iter().position(|word| word == "--").unwrap_or(words.len());
    let is_json = |(at, word): &(usize, OsString)| *at < flags && word == "--json";
    let (json, mut others): (Vec<_>, Vec<_>) = words.into_iter().enumerate().partition(is_json);
    let program = others.len().min(1);
    others.splice(program..program, json.into_iter().take(1));
    others.into_iter().map(|(_, word)| word).collect()
}

/// Whether the log may have colours: on a terminal whose user has not said otherwise (no-color.org), and in no file or
/// pipe.
fn wants_colour(is_terminal: bool, no_color: Option<&OsStr>) -> bool {
    is_terminal && no_color.is_none_or(OsStr::is_empty)
}

/// A command whose output nobody reads any longer ends without a word, as other programs do. Not so an agent.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the standard library has no way to take back that it ignores SIGPIPE")]
fn end_with_the_reader() {
    // SAFETY: no other thread runs yet, and the default action is no handler of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

#[cfg(not(target_os = "linux"))]
fn end_with_the_reader() {}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_is_a_command_too() {
        for line in ["nightjar help", "nightjar help run", "nightjar --help", "nightjar prefs help"] {
            let told =
                Cli::try_parse_from(with_json_first(line.split(' ').map(OsString::from))).err().map(|e| e.kind());
            assert_eq!(told, Some(clap::error::ErrorKind::DisplayHelp), "{line}");
        }
    }

    #[test]
    fn a_home_without_a_name_is_refused_in_words() {
        let cli = Cli::try_parse_from(["nightjar", "--home", "", "why"]).unwrap();
        let told = Home::open(cli.home).map(|_| ()).unwrap_err().to_string();
        assert!(told.contains(HOME_VARIABLE), "{told}");
    }

    #[test]
    fn the_log_has_colours_on_a_terminal_alone() {
        assert!(wants_colour(true, None) && wants_colour(true, Some(OsStr::new(""))));
        assert!(!wants_colour(false, None) && !wants_colour(true, Some(OsStr::new("1"))));
    }

    #[test]
    fn the_flag_for_scripts_may_stand_anywhere() {
        for line in [
            "nightjar --json bench held",
            "nightjar bench --json held",
            "nightjar bench held --json",
            "nightjar why --json --json",
        ] {
            let words = with_json_first(line.split(' ').map(OsString::from));
            assert!(Cli::try_parse_from(&words).unwrap().format.json, "{line}");
        }
        let words = |line: &str| with_json_first(line.split(' ').map(OsString::from));
        assert!(
            Cli::try_parse_from(words("nightjar bench --seconds 5 held")).is_err(),
            "a flag of the other measurement"
        );
        assert_eq!(words("nightjar join -- --json"), ["nightjar", "join", "--", "--json"]);
        assert_eq!(words("nightjar"), ["nightjar"]);
    }

    #[test]
    fn every_preference_is_a_flag_of_run() {
        let command = Cli::command();
        let run = command.find_subcommand("run").unwrap();
        let flags: Vec<_> = run.get_arguments().filter_map(|a| a.get_long()).collect();
        for preference in nightjar_agent::preferences::PREFERENCES {
            assert!(flags.contains(&preference.flag), "{}", preference.key);
        }
    }
}
