//! `run` and `audit`: a served run is paused, resumed, drained or extended, and everybody can read who did what.

use super::{
    Failure,
    remote::{Api, Remote},
    say,
    table::{self, cell, moment},
};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::{thread::sleep, time::Duration};

/// How often a drain looks whether the last lease has ended.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Pause, resume, drain or extend a served run
#[derive(Args)]
#[command(after_help = "Examples:
  nightjar-coordinator run show --token-file ann.token
  nightjar-coordinator run drain --token-file ann.token && systemctl stop nightjar-coordinator
  nightjar-coordinator run extend 4000000000 --token-file ann.token")]
pub struct Run {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Subcommand)]
enum Command {
    /// Show how the run stands
    Show,
    /// Give out no more leases; those that are out are still merged. It stays paused when `serve` starts again
    Pause,
    /// Give out leases again
    Resume,
    /// Pause, and wait until the last lease has ended
    Drain,
    /// Go on until more tokens are merged than the run file says
    Extend {
        /// The new token budget
        tokens: u64,
    },
}

impl Run {
    pub fn run(self) -> Result<(), Failure> {
        let (api, json) = (self.remote.open()?, self.remote.json);
        let stands = match self.command {
            Command::Show => api.get("/run")?,
            Command::Pause => api.post("/run/pause", &json!({}))?,
            Command::Resume => api.post("/run/resume", &json!({}))?,
            Command::Drain => drain(&api, json)?,
            Command::Extend { tokens } => api.post("/run/extend", &json!({ "token_budget": tokens }))?,
        };
        if json {
            say(&stands.to_string());
        } else {
            show(&stands);
        }
        Ok(())
    }
}

fn drain(api: &Api, json: bool) -> Result<Value, Failure> {
    let mut stands = api.post("/run/pause", &json!({}))?;
    let mut told = None;
    while stands["leases_open"] != 0 {
        if stands["paused_unix_ms"].is_null() {
            return Err(Failure::midway("somebody has resumed the run; it is not drained"));
        }
        if !json && told.as_ref() != Some(&stands["leases_open"]) {
            say(&format!("leases out {}", stands["leases_open"]));
            told = Some(stands["leases_open"].clone());
        }
        sleep(LOOK_EVERY);
        stands = api.get("/run")?;
    }
    stands["told"] = "drained: no lease is out, and none will be until `run resume`".into();
    Ok(stands)
}

fn show(run: &Value) {
    if let Some(told) = run["told"].as_str() {
        say(told);
    }
    let paused = moment(&run["paused_unix_ms"]);
    let state = match (run["finished"] == true, paused.as_str()) {
        (true, _) => "over".to_owned(),
        (false, "-") => "going on".to_owned(),
        (false, since) => format!("paused since {since} UTC"),
    };
    say(&format!("state       {state}"));
    let budget = format!("{} of {}", cell(&run["tokens"]), cell(&run["token_budget"]));
    say(&format!("tokens      {budget}, {} a second", cell(&run["tokens_per_s"])));
    say(&format!("version     {}", cell(&run["version"])));
    say(&format!("leases out  {}", cell(&run["leases_open"])));
}

/// Show who did what to a served run, newest first
#[derive(Args)]
pub struct Audit {
    /// Entries at most
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    #[command(flatten)]
    remote: Remote,
}

impl Audit {
    pub fn run(self) -> Result<(), Failure> {
        let entries = self.remote.open()?.list("/audit", &[], "entries", self.limit)?;
        if self.remote.json {
            say(&json!(entries).to_string());
            return Ok(());
        }
        let rows: Vec<_> = entries
            .iter()
            .map(|entry| {
                let cells = ["name", "from", "action", "subject", "outcome"].map(|key| cell(&entry[key]));
                [moment(&entry["unix_ms"])].into_iter().chain(cells).collect()
            })
            .collect();
        table::print(&["when (UTC)", "who", "from", "what", "of", "outcome"], &rows);
        Ok(())
    }
}
