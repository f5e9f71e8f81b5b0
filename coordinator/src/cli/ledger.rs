//! `--ledger`: where a run's ledger is, for every command that opens one.

use super::Failure;
use clap::Args;
use nightjar_coordinator::store::DatabaseUrl;

/// Where the ledger is.
#[derive(Args, Default)]
pub struct LedgerFlag {
    /// Keep the ledger in this PostgreSQL database: postgres://USER@HOST/DATABASE [default: where the state folder says; a
    /// file there for a new run]
    ///
    /// The state folder remembers the address, but no password: give that in the address, in PGPASSWORD, or in ~/.pgpass.
    // Text here, since an argument that cannot be read is shown as it was given, and a password with it.
    #[arg(long = "ledger", value_name = "URL", env = "NIGHTJAR_LEDGER", hide_env_values = true)]
    url: Option<String>,
}

impl LedgerFlag {
    /// The database's address, where one was given.
    pub fn database(&self) -> Result<Option<DatabaseUrl>, Failure> {
        self.url.as_deref().map(str::parse).transpose().map_err(Failure::input)
    }
}
