//! The command line: one file a command, and one way to fail.

mod backup;
mod blobs;
mod check;
mod compare;
mod dataset;
mod device;
mod export;
mod gc;
mod init;
mod invite;
mod key;
mod keys;
mod ledger;
mod log;
mod moving;
mod new;
mod opened;
mod operate;
mod places;
mod remote;
mod run_file;
mod serve;
mod serve_file;
mod shell;
mod signals;
mod stats;
mod table;
mod token;
mod top;
mod traces;
mod verify;

use clap::{Parser, Subcommand};
use std::{fmt::Display, io::Write, process::ExitCode};

/// Trains one model on many computers: leases work to devices, merges what they send back, publishes versions.
#[derive(Parser)]
#[command(version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    /// Say more about what happens, on stderr; twice: everything
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    /// How the log is written
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t, global = true)]
    log_format: log::Format,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
A run from nothing:
  nightjar-coordinator new myrun --data texts/ --model 10M --address my.host.org:4433
  nightjar-coordinator serve myrun
  nightjar-coordinator export model --state myrun/state --data myrun/data";

#[derive(Subcommand)]
enum Command {
    New(Box<new::New>),
    /// Make a dataset of texts
    #[command(subcommand)]
    Dataset(dataset::Dataset),
    Keys(keys::Keys),
    #[command(subcommand)]
    Key(key::Key),
    Serve(serve::Serve),
    Invite(invite::Invite),
    Device(device::Device),
    Run(operate::Run),
    Audit(operate::Audit),
    #[command(subcommand)]
    Token(token::Token),
    Verify(verify::Verify),
    Stats(stats::Stats),
    Compare(compare::Compare),
    Top(top::Top),
    Export(export::Export),
    Backup(backup::Backup),
    Restore(backup::Restore),
    Move(moving::Move),
    Gc(gc::Gc),
    Completions(shell::Completions),
    #[command(hide = true)]
    Man(shell::Man),
}

/// Why a command ends without success: one sentence, and the exit code.
#[derive(Debug)]
enum Failure {
    /// What was asked for cannot be done as it was asked: exit code 2.
    Input(String),
    /// It went wrong on the way: exit code 1.
    Midway(String),
    /// Everything is said already: exit code 1.
    Said,
}

impl Failure {
    fn input(why: impl Display) -> Self {
        Failure::Input(why.to_string())
    }

    fn midway(why: impl Display) -> Self {
        Failure::Midway(why.to_string())
    }

    /// Its sentence; empty where all is said.
    fn why(self) -> String {
        match self {
            Failure::Input(why) | Failure::Midway(why) => why,
            Failure::Said => String::new(),
        }
    }
}

/// Runs the command.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    log::begin(cli.log_format, cli.verbose);
    let outcome = match cli.command {
        Command::New(command) => in_runtime(command.run()),
        Command::Dataset(command) => command.run(),
        Command::Keys(command) => command.run(),
        Command::Key(command) => in_runtime(command.run()),
        Command::Serve(command) => in_runtime(command.run(cli.log_format)),
        Command::Invite(command) => in_runtime(command.run()),
        Command::Device(command) => command.run(),
        Command::Run(command) => command.run(),
        Command::Audit(command) => command.run(),
        Command::Token(command) => in_runtime(command.run()),
        Command::Verify(command) => in_runtime(command.run()),
        Command::Stats(command) => in_runtime(command.run()),
        Command::Compare(command) => in_runtime(command.run()),
        Command::Top(command) => command.run(),
        Command::Export(command) => in_runtime(command.run()),
        Command::Backup(command) => in_runtime(command.run()),
        Command::Restore(command) => in_runtime(command.run()),
        Command::Move(command) => in_runtime(command.run()),
        Command::Gc(command) => in_runtime(command.run()),
        Command::Completions(command) => command.run(),
        Command::Man(command) => command.run(),
    };
    let (code, why) = match outcome {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Input(why)) => (2, why),
        Err(Failure::Midway(why)) => (1, why),
        Err(Failure::Said) => return ExitCode::from(1),
    };
    eprintln!("error: {why}");
    ExitCode::from(code)
}

/// Threads that may wait for a disk at once: those of transfers, two that measure deltas, and some for what else there
/// is.
const BLOCKING_MAX: usize = 2 * nightjar_shared::wire::limits::FILES_AT_ONCE_MAX;

fn in_runtime(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.enable_all().max_blocking_threads(BLOCKING_MAX).build().map_err(Failure::midway)?;
    let ended = runtime.block_on(command);
    // Whoever asked for an end does not wait for work that nobody wants any more.
    runtime.shutdown_background();
    ended
}

/// Prints a line. A reader that has gone away (`| head`) is no reason to stop.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent_and_has_help() {
        Cli::command().debug_assert();
        for line in [&["x", "help"][..], &["x", "help", "serve"], &["x", "--help"], &["x", "dataset", "help"]] {
            let told = Cli::try_parse_from(line).err().map(|e| e.kind());
            assert_eq!(told, Some(clap::error::ErrorKind::DisplayHelp), "{line:?}");
        }
    }
}
