//! `invite`: a signed link, and nothing else, on stdout.

use super::{Failure, say};
use clap::{Args, ValueEnum};
use nightjar_coordinator::{
    identity::{self, Identity},
    server::{state::StateFolder, wall_now},
    store::{LedgerError, SqliteLedger, look},
};
use nightjar_shared::{ids::DeviceId, invite, run_spec::RunSpec, wire};
use std::path::PathBuf;

const DAY_MS: u64 = 24 * 3600 * 1000;

/// Print a link that lets a device join
///
/// Prints a link that lets devices join the run. It names where the coordinator listens, pins its key, and is signed by
/// it. Whoever has the link can join, so hand it on as you would a key.
#[derive(Args)]
#[command(after_help = "Examples:
  nightjar-coordinator invite --state state --address my.host.org:4433
  nightjar-coordinator invite --state state --address 192.0.2.7:4433 --expires-days 30 --devices 10
  nightjar-coordinator invite --state state --address 10.0.0.2:4433 --role anchor --devices 1

On the device:
  nightjar join 'nightjar:…'")]
pub struct Invite {
    /// The run's state folder, as given to `serve`
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// What the holder may be: volunteers train; anchor nodes are trusted to measure held-out loss
    #[arg(long, value_enum, default_value_t = InvitedRole::Volunteer)]
    role: InvitedRole,
    /// Where devices reach the coordinator (UDP); several are tried in order
    #[arg(long, value_name = "HOST:PORT", required = true, num_args = 1.., value_parser = host_and_port)]
    address: Vec<String>,
    /// Days until nobody can join with it any more [default: never ends]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=36_500))]
    expires_days: Option<u64>,
    /// Devices that may join with it [default: any number]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    devices: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
enum InvitedRole {
    Volunteer,
    Anchor,
}

fn host_and_port(text: &str) -> Result<String, String> {
    let is_good = |(host, port): (&str, &str)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0);
    if text.rsplit_once(':').is_some_and(is_good) {
        Ok(text.to_owned())
    } else {
        Err("write it as HOST:PORT, as in my.host.org:4433".into())
    }
}

impl Invite {
    pub async fn run(self) -> Result<(), Failure> {
        let state = StateFolder::open(&self.state).map_err(Failure::input)?;
        let identity = Identity::open(&*state.disk).map_err(Failure::input)?;
        let looked = look::look(&state.ledger()).await.map_err(Failure::input)?;
        if let Some(known) = looked.key.map(DeviceId).filter(|known| *known != identity.id()) {
            return Err(Failure::input(LedgerError::OtherKey(known.short())));
        }
        let ledger = SqliteLedger::open_to_read(&state.ledger()).await.map_err(Failure::input)?;
        let run: RunSpec = serde_json::from_str(&ledger.identity().spec_json).map_err(Failure::midway)?;
        let role = match self.role {
            InvitedRole::Volunteer => wire::Role::Volunteer,
            InvitedRole::Anchor => wire::Role::Anchor,
        };
        let token = identity.sign_invite(wire::Invite {
            addresses: self.address,
            public_keys: vec![],
            role: role as i32,
            run_name: run.name,
            expires_unix_ms: self.expires_days.map_or(0, |days| wall_now().unix_ms + days * DAY_MS),
            devices_max: self.devices.unwrap_or(0),
            nonce: identity::nonce().map_err(Failure::midway)?,
        });
        say(&invite::to_link(&token));
        Ok(())
    }
}
