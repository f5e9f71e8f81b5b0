//! `token`: tokens of the HTTP API, made and ended in the ledger itself. Whoever can write the state folder is trusted.

use super::{Failure, ledger::LedgerFlag, say, table};
use clap::{Args, Subcommand, ValueEnum};
use nightjar_coordinator::{
    engine::orders::Giver,
    server::{state::StateFolder, token, wall_now},
    store::{
        Access, Ledger, LedgerError, TokenRecord,
        desk::{NAME_BYTES_MAX, Note, TOKENS_MAX},
    },
};
use nightjar_shared::time::Wall;
use serde_json::json;
use std::{path::PathBuf, sync::Arc};

const DAY_MS: u64 = 24 * 3600 * 1000;

/// Let people and programs look after the run over HTTP
#[derive(Subcommand)]
pub enum Token {
    /// Make a token and print it: it is shown this once
    Create(Create),
    /// List tokens; none can be shown again
    List(List),
    /// End a token
    Revoke(Revoke),
}

#[derive(Args)]
struct Of {
    /// The run's state folder, as given to `serve`
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    #[command(flatten)]
    ledger: LedgerFlag,
}

#[derive(Args)]
#[command(after_help = "Examples:
  nightjar-coordinator token create --role operator --name ann --state state > ann.token
  nightjar-coordinator device list --token-file ann.token")]
pub struct Create {
    /// Viewers read; operators change the run, too
    #[arg(long, value_enum)]
    role: Role,
    /// Who will have it: the audit log names them so, and no two tokens ever have the same name
    #[arg(long, value_name = "NAME", value_parser = name)]
    name: String,
    /// Days until it ends by itself [default: never ends]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=36_500))]
    expires_days: Option<u64>,
    #[command(flatten)]
    of: Of,
}

#[derive(Args)]
pub struct List {
    /// Print JSON, for scripts
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    of: Of,
}

#[derive(Args)]
pub struct Revoke {
    /// Its name, as `token list` has it
    name: String,
    #[command(flatten)]
    of: Of,
}

#[derive(Clone, Copy, ValueEnum)]
enum Role {
    Viewer,
    Operator,
}

/// A name that the audit log can tell without doubt.
fn name(text: &str) -> Result<String, String> {
    let is_plain = text.chars().all(|c| c.is_alphanumeric() || " -_.@".contains(c)) && text.trim() == text;
    match is_plain && !text.is_empty() && text.len() <= NAME_BYTES_MAX {
        true => Ok(text.to_owned()),
        false => Err(format!("a name has 1 to {NAME_BYTES_MAX} bytes of letters, digits, spaces and - _ . @")),
    }
}

/// Whoever gives a command on the coordinator's own computer.
pub fn local_giver() -> Giver {
    let user = ["USER", "USERNAME", "LOGNAME"].iter().find_map(|key| std::env::var(key).ok());
    Giver { name: format!("local: {}", user.as_deref().unwrap_or("unknown")), from: "this computer".into() }
}

impl Of {
    async fn open(&self) -> Result<Arc<dyn Ledger>, Failure> {
        let state = StateFolder::open(&self.state).map_err(Failure::input)?;
        let place = state.ledger(self.ledger.database()?.as_ref()).map_err(Failure::input)?;
        place.open_desk().await.map_err(Failure::input)
    }
}

impl Token {
    pub async fn run(self) -> Result<(), Failure> {
        match self {
            Token::Create(command) => command.run().await,
            Token::List(command) => command.run().await,
            Token::Revoke(command) => command.run().await,
        }
    }
}

impl Create {
    async fn run(self) -> Result<(), Failure> {
        let desk = self.of.open().await?;
        let now = wall_now();
        let good = desk.tokens().await.map_err(Failure::midway)?.iter().filter(|token| token.is_good(now)).count();
        if good >= TOKENS_MAX {
            return Err(Failure::input(format!("there are {good} tokens already; `token revoke` ends one")));
        }
        let secret = token::draw_token().map_err(Failure::midway)?;
        let role = match self.role {
            Role::Viewer => Access::Viewer,
            Role::Operator => Access::Operator,
        };
        let record = TokenRecord {
            name: self.name.clone(),
            role,
            hash: token::hash(&secret),
            created_at: now,
            expires_at: self.expires_days.map(|days| Wall { unix_ms: now.unix_ms + days * DAY_MS }),
            used_at: None,
            revoked_at: None,
        };
        let entry = local_giver().record(now, "token create", &self.name, role.name());
        let written = desk.note(&[Note::Token(record), Note::Audit(entry)]).await;
        desk.close().await;
        written.map_err(|error| match error {
            LedgerError::Contradiction(_) => Failure::input(format!(
                "there is or was a token called {} already; give this one another name, so that the audit log tells them apart",
                self.name
            )),
            error => Failure::midway(error),
        })?;
        eprintln!("note: this {} token is shown once; keep it as you would a password", role.name());
        say(&secret);
        Ok(())
    }
}

impl List {
    async fn run(self) -> Result<(), Failure> {
        let desk = self.of.open().await?;
        let tokens = desk.tokens().await;
        desk.close().await;
        let tokens = tokens.map_err(Failure::midway)?;
        let at = |at: Option<Wall>| at.map(|at| at.unix_ms);
        if self.json {
            let told = tokens.iter().map(|token| {
                json!({
                    "name": token.name,
                    "role": token.role,
                    "created_unix_ms": token.created_at.unix_ms,
                    "expires_unix_ms": at(token.expires_at),
                    "used_unix_ms": at(token.used_at),
                    "revoked_unix_ms": at(token.revoked_at),
                })
            });
            say(&json!(told.collect::<Vec<_>>()).to_string());
            return Ok(());
        }
        let moment = |moment: Option<Wall>| at(moment).map_or_else(|| "-".to_owned(), table::utc);
        let rows: Vec<_> = tokens
            .iter()
            .map(|token| {
                let moments = [Some(token.created_at), token.used_at, token.expires_at, token.revoked_at];
                let moments = moments.map(moment);
                [token.name.clone(), token.role.name().to_owned()].into_iter().chain(moments).collect()
            })
            .collect();
        table::print(&["name", "role", "created", "last used", "ends", "revoked"], &rows);
        Ok(())
    }
}

impl Revoke {
    async fn run(self) -> Result<(), Failure> {
        let (desk, now) = (self.of.open().await?, wall_now());
        let entry = local_giver().record(now, "token revoke", &self.name, "revoked");
        let revoked = Note::TokenRevoked { name: self.name.clone(), at: now };
        let written = desk.note(&[revoked, Note::Audit(entry)]).await;
        desk.close().await;
        written.map_err(|error| match error {
            LedgerError::Contradiction(_) => {
                Failure::input(format!("no token called {} is good for anything; `token list` shows all", self.name))
            }
            error => Failure::midway(error),
        })?;
        say(&format!("{} is revoked: it is refused from now on", self.name));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tokens_name_is_plain() {
        for good in ["ann", "night-shift 2", "bücher@lab.example"] {
            assert_eq!(name(good), Ok(good.to_owned()));
        }
        for bad in ["", " ann", "a\nb", "<b>", "a/b", &"x".repeat(65)] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }
}
