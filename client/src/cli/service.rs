//! `service`: the agent as a part of the owner's session.

use super::{
    format::Format,
    running::{Found, Running},
};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use nightjar_agent::{
    home::{Home, HomeError},
    membership::Membership,
    service::{self, ServiceState},
};
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
    Status,
}

pub(super) fn service(home: &Home, args: &Service, format: Format) -> Result<ExitCode> {
    match args.action {
        Action::Install => {
            let this = service::Service::of_this_program(home).context("cannot find this program's own file")?;
            // Beside another agent the service would fail, and be started again and again.
            if !service::state().is_ok_and(|state| state.running)
                && !matches!(Running::or_lock(home)?, Found::Nobody(_))
            {
                bail!(
                    "an agent runs already with this home folder; end it (Ctrl-C where `nightjar run` was started), \
                    then install"
                );
            }
            let state = this.install()?;
            let words = match Membership::load(&*home.disk()) {
                Ok(_) => "it runs from now on, and from every login on; `nightjar why` says what it does",
                Err(_) => {
                    "it runs from now on, and from every login on, and waits for an invite: `nightjar open` has a place for it, \
                     or use `nightjar join INVITE`"
                }
            };
            format.say(&answer(&state, state.running), format_args!("installed: {}\n{words}", state.place))
        }
        Action::Remove => {
            service::remove()?;
            let running = is_in_use(home);
            let removed = serde_json::json!({ "installed": false, "running": running });
            let words = if running {
                "removed; an agent runs on with this home folder: end it from its tray, or by Ctrl-C where it was \
                started"
            } else {
                "removed; your key, membership and preferences stay"
            };
            format.say(&removed, words)
        }
        Action::Status => {
            let state = service::state()?;
            let running = state.running || Running::find(home).is_some() || is_in_use(home);
            let word = |is| if is { "yes" } else { "no" };
            let installed = format!("installed  {} ({})", word(state.installed), state.place);
            format.say(&answer(&state, running), format_args!("{installed}\nrunning    {}", word(running)))
        }
    }
}

/// Whether an agent has this home, even one that does not answer here.
fn is_in_use(home: &Home) -> bool {
    matches!(home.lock(), Err(HomeError::InUse { .. }))
}

fn answer(state: &ServiceState, running: bool) -> serde_json::Value {
    serde_json::json!({ "installed": state.installed, "running": running, "place": state.place })
}
