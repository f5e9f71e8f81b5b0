//! `nightjar-coordinator`: prepares data, serves a run, and looks into its ledger.

mod cli;

fn main() -> std::process::ExitCode {
    cli::run()
}
