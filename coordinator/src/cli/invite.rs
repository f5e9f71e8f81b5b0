//! `invite`: a signed link, and nothing else, on stdout.

use super::{
    Failure,
    device::digits,
    ledger::LedgerFlag,
    remote::Remote,
    say,
    table::{self, cell, moment},
    token::local_giver,
};
use clap::{Args, Subcommand, ValueEnum};
use data_encoding::HEXLOWER;
use nightjar_coordinator::{
    engine::orders::Giver,
    identity::Identity,
    server::{
        issue::{DAYS_MAX, Reachable, Terms, issue},
        state::StateFolder,
        wall_now,
    },
    store::{
        DatabaseUrl, LedgerError, LedgerPlace,
        desk::{InviteRecord, Note},
    },
};
use nightjar_shared::{ids::DeviceId, invite, run_spec::RunSpec, wire};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Print a link that lets a device join
///
/// Prints a link that lets devices join the run. It names where the coordinator listens, pins its key, and is signed by
/// it. Whoever has the link can join, so hand it on as you would a key.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "Examples:
  nightjar-coordinator invite --state state --address my.host.org:4433
  nightjar-coordinator invite --state state --address 192.0.2.7:4433 --expires-days 30 --devices 10
  nightjar-coordinator invite --state state --address 10.0.0.2:4433 --role anchor --devices 1
  nightjar-coordinator invite --state state --address my.host.org:4433 --page https://my.host.org/join/
  nightjar-coordinator invite list --token-file ann.token
  nightjar-coordinator invite revoke 0f12… --token-file ann.token

On the device:
  nightjar join 'nightjar:…'")]
pub struct Invite {
    #[command(subcommand)]
    command: Option<Command>,
    /// The run's state folder, as given to `serve`
    #[arg(long, value_name = "DIR", required = true)]
    // An option to the compiler alone: `list` and `revoke` do without it.
    state: Option<PathBuf>,
    #[command(flatten)]
    ledger: LedgerFlag,
    /// What the holder may be: volunteers train; anchor nodes are trusted to measure held-out loss
    #[arg(long, value_enum, default_value_t = InvitedRole::Volunteer)]
    role: InvitedRole,
    /// Where devices reach the coordinator (UDP): this computer's name or address as theirs find it; several may be
    /// given
    #[arg(long, value_name = "HOST:PORT", required = true, num_args = 1.., value_parser = Reachable::parse)]
    address: Vec<Reachable>,
    /// Days until nobody can join with it any more [default: never ends]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=DAYS_MAX))]
    expires_days: Option<u64>,
    /// Devices that may join with it [default: any number]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    devices: Option<u64>,
    /// Print a link for browsers: the address of the page, as `serve --web-page` or any other place serves it. The
    /// coordinator must be served with --web
    #[arg(long, value_name = "URL", value_parser = page)]
    page: Option<String>,
}

/// The address of a page. Browsers give no key, storage or graphics processor to a page that came unprotected, but from
/// the same computer.
fn page(text: &str) -> Result<String, String> {
    let is_safe = text.starts_with("https://")
        || ["http://localhost", "http://127.0.0.1"]
            .iter()
            .any(|here| text.strip_prefix(here).is_some_and(|rest| rest.starts_with(['/', ':'])));
    if is_safe && !text.contains(['#', ' ']) {
        return Ok(text.to_owned());
    }
    Err("write it as https://HOST/PATH/; browsers need https, but for http://localhost".into())
}

/// What an invite makes of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InvitedRole {
    /// Trains.
    #[default]
    Volunteer,
    /// Measures too, and is trusted.
    Anchor,
}

impl From<InvitedRole> for wire::Role {
    fn from(role: InvitedRole) -> Self {
        match role {
            InvitedRole::Volunteer => wire::Role::Volunteer,
            InvitedRole::Anchor => wire::Role::Anchor,
        }
    }
}

#[derive(Subcommand)]
enum Command {
    /// List the invites of a served run
    List {
        /// Invites at most
        #[arg(long, value_name = "N", default_value_t = 1000)]
        limit: usize,
        #[command(flatten)]
        remote: Remote,
    },
    /// Let nobody enrol with an invite any more; devices that came with it stay
    Revoke {
        /// Its nonce, as the list shows it
        #[arg(value_parser = digits)]
        nonce: String,
        /// Take the devices that came with it out of the run, too
        #[arg(long)]
        with_devices: bool,
        #[command(flatten)]
        remote: Remote,
    },
}

impl Invite {
    pub async fn run(self) -> Result<(), Failure> {
        match (self.command, &self.state) {
            (Some(Command::List { limit, remote }), _) => list(limit, &remote),
            (Some(Command::Revoke { nonce, with_devices, remote }), _) => revoke(&nonce, with_devices, &remote),
            (None, Some(_)) => Invite { command: None, ..self }.issue().await,
            (None, None) => Err(Failure::input("name the run's state folder with --state")),
        }
    }

    async fn issue(self) -> Result<(), Failure> {
        let database = self.ledger.database()?;
        let (role, for_pages) = (self.role.into(), self.page.is_some());
        let terms = Terms { role, addresses: self.address, days: self.expires_days, devices: self.devices, for_pages };
        let link = link(&self.state.unwrap_or_default(), database.as_ref(), &terms).await?;
        let link = self.page.map_or(link.clone(), |page| format!("{page}#{link}"));
        for here in terms.addresses.iter().filter(|address| address.is_loopback) {
            // Not on stdout, which has the link alone.
            eprintln!("note: only devices on this very computer can reach {here}");
        }
        for near in terms.addresses.iter().filter(|address| address.is_of_the_link()) {
            eprintln!(
                "note: only devices on the same cable or wireless network can reach {near}, if any can: it is \
                link-local"
            );
        }
        say(&link);
        Ok(())
    }
}

/// Signs an invite to the run of a state folder, has the ledger know of it, and returns its link.
pub async fn link(state: &Path, database: Option<&DatabaseUrl>, terms: &Terms) -> Result<String, Failure> {
    let state = StateFolder::open(state).map_err(Failure::input)?;
    let identity = Identity::open(&*state.disk).map_err(Failure::input)?;
    let place = state.ledger(database).map_err(Failure::input)?;
    let looked = place.look().await.map_err(Failure::input)?;
    if let Some(known) = looked.key.map(DeviceId).filter(|known| *known != identity.id()) {
        return Err(Failure::input(LedgerError::OtherKey(known.short())));
    }
    let opened = place.open_to_read().await.map_err(Failure::input)?;
    let run: RunSpec = serde_json::from_str(&opened.identity.spec_json).map_err(Failure::midway)?;
    let here = local_giver();
    let (token, record) = issue(&identity, &run.name, terms, &here.name, wall_now()).map_err(Failure::midway)?;
    if let Err(error) = write_down(&place, record, &here).await {
        eprintln!("note: the invite is good, and `invite list` shows it once a device has used it: {error}");
    }
    Ok(invite::to_link(&token))
}

/// Has the ledger know of an invite before anybody uses it.
async fn write_down(place: &LedgerPlace, record: InviteRecord, here: &Giver) -> Result<(), LedgerError> {
    let desk = place.open_desk().await?;
    let entry = here.record(record.issued_at, "invite create", &HEXLOWER.encode(&record.nonce), "issued");
    let written = desk.note(&[Note::Invite(record), Note::Audit(entry)]).await;
    desk.close().await;
    written
}

fn list(limit: usize, remote: &Remote) -> Result<(), Failure> {
    let invites = remote.open()?.list("/invites", &[], "invites", limit)?;
    if remote.json {
        say(&json!(invites).to_string());
        return Ok(());
    }
    let rows: Vec<_> = invites
        .iter()
        .map(|invite| {
            let cells = ["nonce", "role", "devices", "devices_max", "issued_by"].map(|key| cell(&invite[key]));
            let moments = ["issued_unix_ms", "expires_unix_ms", "revoked_unix_ms"].map(|key| moment(&invite[key]));
            cells.into_iter().chain(moments).collect()
        })
        .collect();
    table::print(&["nonce", "role", "devices", "at most", "by", "issued", "ends", "revoked"], &rows);
    Ok(())
}

fn revoke(nonce: &str, with_devices: bool, remote: &Remote) -> Result<(), Failure> {
    let body = json!({ "with_devices": with_devices });
    let done = remote.open()?.post(&format!("/invites/{nonce}/revoke"), &body)?;
    say(&if remote.json { done.to_string() } else { cell(&done["told"]) });
    Ok(())
}
