//! `device`: the devices of a served run.

use super::{
    Failure,
    remote::{Api, Remote},
    say,
    table::{self, cell, moment},
};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

/// Look at the devices of a served run, and take one out
#[derive(Args)]
#[command(after_help = "Examples:
  nightjar-coordinator device list --state training --token-file ann.token
  nightjar-coordinator device show 5f3a9c01 --token-file ann.token
  nightjar-coordinator device hide-name 5f3a9c01 --token-file ann.token
  nightjar-coordinator device revoke 5f3a9c01 --token-file ann.token")]
pub struct Device {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Subcommand)]
enum Command {
    /// List devices
    List {
        /// In this state alone
        #[arg(long, value_enum)]
        state: Option<State>,
        /// Of this role alone
        #[arg(long, value_enum)]
        role: Option<Role>,
        /// Devices at most
        #[arg(long, value_name = "N", default_value_t = 1000)]
        limit: usize,
    },
    /// Show one device and its newest leases
    Show {
        /// Its id, or the first 8 or more digits of it
        #[arg(value_parser = digits)]
        id: String,
        /// Leases at most
        #[arg(long, value_name = "N", default_value_t = 20)]
        leases: usize,
    },
    /// Take a device out of the run for good: its lease ends, and it cannot enrol again. What was merged of it stays
    Revoke {
        /// Its id, or the first 8 or more digits of it
        #[arg(value_parser = digits)]
        id: String,
    },
    /// Keep the name that its owner chose off the public page, and whatever else the owner may call it there
    HideName {
        /// Its id, or the first 8 or more digits of it
        #[arg(value_parser = digits)]
        id: String,
    },
    /// Let that name stand on the public page again
    ShowName {
        /// Its id, or the first 8 or more digits of it
        #[arg(value_parser = digits)]
        id: String,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum State {
    Training,
    Online,
    Offline,
    Left,
    Revoked,
}

#[derive(Clone, Copy, ValueEnum)]
enum Role {
    Volunteer,
    Anchor,
}

/// What may stand in a path.
pub fn digits(text: &str) -> Result<String, String> {
    match !text.is_empty() && text.len() <= 128 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        true => Ok(text.to_ascii_lowercase()),
        false => Err("it is named by hexadecimal digits, as a list shows them".into()),
    }
}

/// The word of a choice, as the API has it.
fn word(choice: impl ValueEnum) -> String {
    choice.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

impl Device {
    pub fn run(self) -> Result<(), Failure> {
        let (api, json) = (self.remote.open()?, self.remote.json);
        match self.command {
            Command::List { state, role, limit } => {
                let (state, role) = (state.map(word), role.map(word));
                let query = [("state", state.as_deref()), ("role", role.as_deref())];
                let query: Vec<_> = query.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
                let devices = api.list("/devices", &query, "devices", limit)?;
                if json {
                    say(&json!(devices).to_string());
                } else {
                    let rows: Vec<_> = devices.iter().map(row).collect();
                    table::print(&["id", "name", "role", "state", "tokens", "leases", "tokens/s", "enrolled"], &rows);
                }
            }
            Command::Show { id, leases } => {
                let device = api.get(&format!("/devices/{id}"))?;
                let leases = api.list(&format!("/devices/{id}/leases"), &[], "leases", leases)?;
                if json {
                    say(&json!({ "device": device, "leases": leases }).to_string());
                } else {
                    show(&device, &leases);
                }
            }
            Command::Revoke { id } => order(&api, &id, "revoke", json)?,
            Command::HideName { id } => order(&api, &id, "hide-name", json)?,
            Command::ShowName { id } => order(&api, &id, "show-name", json)?,
        }
        Ok(())
    }
}

fn order(api: &Api, id: &str, what: &str, json: bool) -> Result<(), Failure> {
    let done = api.post(&format!("/devices/{id}/{what}"), &json!({}))?;
    say(&if json { done.to_string() } else { cell(&done["told"]) });
    Ok(())
}

fn row(device: &Value) -> Vec<String> {
    let id = device["id"].as_str().unwrap_or_default().chars().take(8).collect();
    let cells = ["name", "role", "state", "tokens", "leases", "tokens_per_s"].map(|key| cell(&device[key]));
    [id].into_iter().chain(cells).chain([moment(&device["enrolled_unix_ms"])]).collect()
}

fn show(device: &Value, leases: &[Value]) {
    for (head, key) in [
        ("id", "id"),
        ("name", "name"),
        ("device", "device"),
        ("role", "role"),
        ("state", "state"),
        ("invite", "invite"),
        ("tokens", "tokens"),
        ("leases", "leases"),
        ("tokens/s", "tokens_per_s"),
    ] {
        say(&format!("{head:<10}{}", cell(&device[key])));
    }
    say(&format!("{:<10}{}", "enrolled", moment(&device["enrolled_unix_ms"])));
    if let Some(name) = device["public_name"].as_str() {
        let hidden = if device["name_hidden"] == true { " (hidden)" } else { "" };
        say(&format!("{:<10}{name}{hidden}", "public"));
    }
    if !device["revoked_unix_ms"].is_null() {
        say(&format!("{:<10}{}", "revoked", moment(&device["revoked_unix_ms"])));
    }
    say("");
    let rows: Vec<_> = leases
        .iter()
        .map(|lease| {
            let cells = ["id", "kind", "base_version", "steps"].map(|key| cell(&lease[key]));
            let outcome = lease["outcome"].as_str().unwrap_or("open").to_owned();
            let ends = [moment(&lease["issued_unix_ms"]), moment(&lease["closed_unix_ms"]), outcome];
            cells.into_iter().chain(ends).collect()
        })
        .collect();
    table::print(&["lease", "kind", "from version", "steps", "issued", "ended", "outcome"], &rows);
}
