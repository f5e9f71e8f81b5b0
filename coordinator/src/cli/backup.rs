//! `backup` and `restore`: a run copied while it is served, and put back.

use super::{Failure, blobs::BlobsFlag, ledger::LedgerFlag, say};
use clap::Args;
use nightjar_coordinator::backup::{self, BackupError};
use std::path::{Path, PathBuf};

/// Copy a run to another folder, while it is served or not
///
/// Copies the ledger as it is at one moment, every blob that it names, the checkpoints and the run's key, wherever the run
/// keeps them. Each blob is held against its hash. Given the same folder again, it brings only what is new, and goes on
/// where it was cut short. On the same disk blobs are linked and take no room. The dataset is not copied.
#[derive(Args)]
#[command(after_help = "Examples:
  nightjar-coordinator backup --state state --to /mnt/backup/run1
  nightjar-coordinator backup --state state --to /mnt/backup/run1 --quick --quiet   # every hour")]
pub struct Backup {
    /// The run's state folder, as given to `serve`
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    #[command(flatten)]
    ledger: LedgerFlag,
    #[command(flatten)]
    blobs: BlobsFlag,
    /// The backup's folder: a new one, or that of this run's last backup
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Do not read through again what earlier backups have brought
    #[arg(long)]
    quick: bool,
    /// Show no progress
    #[arg(long)]
    quiet: bool,
}

/// Put a run back from a backup, into a new folder
///
/// Reads through everything in the backup, holds it against its hash, and says which state of the run it was. The folder
/// must be new or empty, and so must the database and the bucket's prefix, where the run is to have them. Serve it as the run was served, with the run.toml that lies in the backup and the same dataset.
#[derive(Args)]
#[command(after_help = "Examples:
  nightjar-coordinator restore --from /mnt/backup/run1 --state state2
  nightjar-coordinator restore --from /mnt/backup/run1 --state state2 --ledger postgres://nightjar@db.lab/run1b \\
    --blobs s3://nightjar/run1b
  nightjar-coordinator serve --run /mnt/backup/run1/run.toml --data data --state state2")]
pub struct Restore {
    /// The backup's folder
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// The new state folder
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    #[command(flatten)]
    ledger: LedgerFlag,
    #[command(flatten)]
    blobs: BlobsFlag,
    /// Show no progress
    #[arg(long)]
    quiet: bool,
}

impl Backup {
    pub async fn run(self) -> Result<(), Failure> {
        let options = backup::Options {
            state: self.state,
            ledger: self.ledger.database()?,
            blobs: self.blobs.bucket()?,
            to: self.to.clone(),
            quick: self.quick,
            quiet: self.quiet,
        };
        let taken = backup::take(&options).await.map_err(failure)?;
        say(&format!("backed up \"{}\" to {}: {}", taken.contents.run, self.to.display(), taken.contents.said()));
        let brought = taken.linked + taken.copied;
        say(&format!(
            "{} blobs, {brought} new; {} that the run has no more removed",
            taken.contents.blobs, taken.removed
        ));
        if taken.linked > 0 {
            say(
                "note: this folder shares its blobs with the run's, on the same disk; keep another copy on another disk",
            );
        }
        lost(&taken.contents.lost, "of the run are missing or damaged; `verify` names what they were")
    }
}

impl Restore {
    pub async fn run(self) -> Result<(), Failure> {
        let (ledger, blobs) = (self.ledger.database()?, self.blobs.bucket()?);
        let target = backup::Target { state: self.state.clone(), ledger, blobs };
        let restored = backup::restore(&self.from, &target, self.quiet).await.map_err(failure)?;
        let contents = &restored.contents;
        say(&format!("restored \"{}\" to {}: {}", contents.run, self.state.display(), contents.said()));
        say(&format!("{} blobs, all of them read through", contents.blobs - restored.lost.len() as u64));
        if restored.linked > 0 {
            say(
                "note: this folder shares its blobs with the backup's, on the same disk; keep another copy on another disk",
            );
        }
        say(&format!("serve it with: {}", serve(&self.from, &self.state)));
        lost(&restored.lost, "of the backup are missing or damaged; `verify` names what they were")
    }
}

fn serve(from: &Path, state: &Path) -> String {
    let run = from.join("run.toml");
    format!("nightjar-coordinator serve --run {} --data DATASET --state {}", run.display(), state.display())
}

/// Names a few; what is there is as good as it can be.
fn lost(blobs: &[nightjar_shared::ids::BlobHash], which: &str) -> Result<(), Failure> {
    const NAMED: usize = 3;
    if blobs.is_empty() {
        return Ok(());
    }
    let named: Vec<String> = blobs.iter().take(NAMED).map(ToString::to_string).collect();
    let more = if blobs.len() > NAMED { ", …" } else { "" };
    Err(Failure::midway(format!("{} blobs {which} ({}{more})", blobs.len(), named.join(", "))))
}

fn failure(error: BackupError) -> Failure {
    match error {
        BackupError::DiskFull(_)
        | BackupError::Io { .. }
        | BackupError::Damaged { .. }
        | BackupError::Store(_)
        | BackupError::Blob(_)
        | BackupError::Carry(_) => Failure::midway(error),
        error => Failure::input(error),
    }
}
