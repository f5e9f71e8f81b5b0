//! `service`: the agent as a part of the owner's session.

use super::running::Running;
use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use nightjar_agent::{home::Home, membership::Membership, service};
use std::process::ExitCode;

#[derive(Args)]
pub(super) struct Service {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Start the agent now, and at every login
    Install,
    /// End the agent, and start it at login no longer
    Remove,
    /// Say whether it is installed and runs
    Status {
        /// Print JSON, for scripts
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn service(home: &Home, args: &Service) -> Result<ExitCode> {
    match args.action {
        Action::Install => {
            // One that has not joined would only be started in vain, again and again.
            Membership::load(&*home.disk())?;
            let this = service::Service::of_this_program(home).context("cannot find this program's own file")?;
            let standing = this.install()?;
            println!("installed: {}", standing.place);
            println!("it runs from now on, and from every login on; `nightjar why` says what it does");
        }
        Action::Remove => {
            service::remove()?;
            println!("removed; your key, membership and preferences stay");
        }
        Action::Status { json } => {
            let standing = service::standing()?;
            let running = standing.running || Running::find(home).is_some();
            if json {
                let (installed, place) = (standing.installed, standing.place);
                println!("{}", serde_json::json!({ "installed": installed, "running": running, "place": place }));
            } else {
                let word = |is| if is { "yes" } else { "no" };
                println!("installed  {} ({})", word(standing.installed), standing.place);
                println!("running    {}", word(running));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
