//! `key`: the run's key, and the spare that may take its place.

use super::{Failure, ledger::LedgerFlag, say};
use clap::{Args, Subcommand};
use nightjar_coordinator::{
    identity::{self, Identity, IdentityError},
    server::{state::StateFolder, wall_now},
    store::{LedgerError, carry},
};
use nightjar_shared::ids::DeviceId;
use std::{fs::File, io::Read, path::PathBuf};

/// Look at the run's key, or change it
///
/// Devices know the run by its key, and pin a spare beside it. `rotate` puts the spare in the key's place, so that no
/// device is lost when the key was seen by others, or is changed every year. A device that was away during two changes
/// needs a new invite.
#[derive(Subcommand)]
#[command(after_help = "Examples:
  nightjar-coordinator key show --state state
  mv state/coordinator.spare.pk8 /media/safe/          # the spare is needed to rotate, and for nothing else
  nightjar-coordinator key rotate --state state --spare /media/safe/coordinator.spare.pk8
  nightjar-coordinator key rotate --state state --distrust   # the key was stolen: invites that it signed end")]
pub enum Key {
    Show(Show),
    Rotate(Rotate),
}

/// Show the fingerprints of the key, of the spare, and of keys of before
#[derive(Args)]
pub struct Show {
    /// The run's state folder, as given to `serve`
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
}

/// Put the spare in the key's place, and draw another spare
///
/// The coordinator must not be running. Devices that have said hello since the spare was drawn come back by themselves.
#[derive(Args)]
pub struct Rotate {
    /// The run's state folder, as given to `serve`
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    #[command(flatten)]
    ledger: LedgerFlag,
    /// The spare's file, where it is not in the state folder
    #[arg(long, value_name = "FILE")]
    spare: Option<PathBuf>,
    /// Others may have the key: invites that it signed are refused from now on
    #[arg(long)]
    distrust: bool,
}

/// No key's file is longer.
const KEY_BYTES_MAX: u64 = 4096;

impl Key {
    pub async fn run(self) -> Result<(), Failure> {
        match self {
            Key::Show(show) => show.run(),
            Key::Rotate(rotate) => rotate.run().await,
        }
    }
}

impl Show {
    fn run(self) -> Result<(), Failure> {
        let state = StateFolder::open(&self.state).map_err(Failure::input)?;
        show(&Identity::open(&*state.disk).map_err(Failure::input)?);
        Ok(())
    }
}

fn show(identity: &Identity) {
    say(&format!("key       {}", identity.fingerprint()));
    match identity.pins().get(1) {
        Some(spare) => say(&format!("spare     {}", identity::id_of(spare).short())),
        None => say("spare     none yet: the next start draws one"),
    }
    for former in identity.former() {
        say(&format!("former    {}: invites that it signed are good", identity::id_of(former).short()));
    }
}

impl Rotate {
    async fn run(self) -> Result<(), Failure> {
        let state = StateFolder::open(&self.state).map_err(Failure::input)?;
        let _lock = state.lock().map_err(Failure::input)?;
        let place = state.ledger(self.ledger.database()?.as_ref()).map_err(Failure::input)?;
        let identity = Identity::open(&*state.disk).map_err(Failure::input)?;
        let known = place.look().await.map_err(Failure::input)?.key.map(DeviceId);
        let kept = self.spare.as_ref().map(read_key).transpose()?;
        let before = identity.id();
        let spare = identity.spare(&*state.disk, kept).map_err(Failure::input)?;
        match known {
            // A rotation that was cut short goes on.
            Some(known) if known == spare.id() => {}
            Some(known) if known != before => return Err(Failure::input(LedgerError::OtherKey(known.short()))),
            _ => {
                let change = place.change_key(before, spare.id(), wall_now().unix_ms / 1000);
                carry::alone(&place, change).await.map_err(Failure::input)?.map_err(Failure::midway)?;
            }
        }
        let identity = identity.rotate(&*state.disk, &spare, !self.distrust).map_err(Failure::midway)?;
        say(&format!("rotated   from {} to {}", before.short(), identity.fingerprint()));
        show(&identity);
        say("next      start the coordinator: devices come back by themselves; invite others with new links");
        Ok(())
    }
}

fn read_key(file: &PathBuf) -> Result<Vec<u8>, Failure> {
    let mut bytes = vec![];
    let read = File::open(file).and_then(|file| file.take(KEY_BYTES_MAX).read_to_end(&mut bytes));
    let failed = |source| IdentityError::Io { file: file.display().to_string(), source };
    read.map_err(|error| Failure::input(failed(error)))?;
    Ok(bytes)
}
