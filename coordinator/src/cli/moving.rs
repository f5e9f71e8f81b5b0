//! `move`: carries a run to other stores.

use super::{Failure, say};
use clap::Args;
use nightjar_coordinator::{
    server::state::StateFolder,
    store::{
        Blobs, BucketUrl, LedgerPlace,
        carry::{self, CarriedBlobs, Progress},
    },
};
use nightjar_shared::ids::DeviceId;
use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::{Instant, MissedTickBehavior, interval};

const EXAMPLES: &str = "\
Examples:
  nightjar-coordinator move --state state --to postgres://nightjar@db.lab/run
  nightjar-coordinator move --state state --to s3://nightjar/run
  nightjar-coordinator move --state state --from postgres://nightjar@db.lab/run --to file --to folder

Stop the coordinator first. Broken off, the same command goes on where it was.";

/// How often it is said how far it is.
const SAY_EVERY: Duration = Duration::from_secs(2);
/// Damaged blobs that are named.
const NAMED_MAX: usize = 5;

/// Carry a run to another store
///
/// Copies the ledger to a PostgreSQL database or into a file, or the blobs into an S3 bucket or into the state folder;
/// verifies every blob by its hash and every row by reading it back; and then lets the state folder say where they are.
/// What is where the run was stays there. Its ledger is marked, so that no coordinator writes it any more.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Move {
    /// The run's state folder, as given to `serve`
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Where to: postgres://… or `file` for the ledger, s3://… or `folder` for the blobs; twice for both
    // Text here, since an argument that cannot be read is shown as it was given, and a password with it.
    #[arg(long, value_name = "PLACE", required = true)]
    to: Vec<String>,
    /// Where it is, in the same words, where a password is needed or an address has changed [default: as the state
    /// folder says]
    #[arg(long, value_name = "PLACE")]
    from: Vec<String>,
}

/// Addresses as they were given.
#[derive(Default)]
struct Places {
    ledger: Option<Ledger>,
    blobs: Option<Option<BucketUrl>>,
}

enum Ledger {
    File,
    Database(nightjar_coordinator::store::DatabaseUrl),
}

impl Places {
    fn read(given: &[String]) -> Result<Self, Failure> {
        let mut places = Places::default();
        for place in given {
            let is_second = match place.as_str() {
                "file" => places.ledger.replace(Ledger::File).is_some(),
                "folder" => places.blobs.replace(None).is_some(),
                s3 if s3.starts_with("s3:") => {
                    places.blobs.replace(Some(s3.parse().map_err(Failure::input)?)).is_some()
                }
                database => {
                    places.ledger.replace(Ledger::Database(database.parse().map_err(Failure::input)?)).is_some()
                }
            };
            if is_second {
                return Err(Failure::input("a ledger has one place, and blobs have one: name each once"));
            }
        }
        Ok(places)
    }
}

impl Move {
    pub async fn run(self) -> Result<(), Failure> {
        let (from, to) = (Places::read(&self.from)?, Places::read(&self.to)?);
        let state = StateFolder::open(&self.state).map_err(Failure::input)?;
        let _lock = state.lock().map_err(Failure::input)?;
        let given = match &from.ledger {
            Some(Ledger::Database(url)) => Some(url),
            _ => None,
        };
        let ledger = state.ledger(given).map_err(Failure::input)?;
        let bucket = state.bucket(from.blobs.as_ref().and_then(Option::as_ref)).map_err(Failure::input)?;
        if let Some(to) = to.blobs {
            self.blobs(&state, &ledger, bucket, to).await?;
        }
        if let Some(to) = to.ledger {
            let to = match to {
                Ledger::File => state.ledger_file(),
                Ledger::Database(url) => LedgerPlace::Database(url),
            };
            self.ledger(&state, &ledger, to).await?;
        }
        Ok(())
    }

    async fn blobs(
        &self,
        state: &StateFolder,
        ledger: &LedgerPlace,
        bucket: Option<BucketUrl>,
        to: Option<BucketUrl>,
    ) -> Result<(), Failure> {
        let is_there = match (&bucket, &to) {
            (Some(bucket), Some(to)) => bucket.is_same_place(to),
            (None, None) => true,
            _ => false,
        };
        if is_there {
            say("blobs     are there already");
            return Ok(());
        }
        let owner = ledger.open_to_read().await.map_err(Failure::input)?;
        let key = ledger.look().await.map_err(Failure::input)?.key;
        owner.ledger.close().await;
        let key =
            key.ok_or_else(|| Failure::input("the ledger knows no key yet: start the coordinator once, then move"))?;
        let source = state.blobs_to_read(bucket.as_ref()).map_err(Failure::input)?;
        let target = state.blobs_to_read(to.as_ref()).map_err(Failure::input)?;
        let run = owner.identity.run_id;
        let progress = Arc::new(Progress::default());
        let work = {
            let progress = progress.clone();
            move || -> Result<(CarriedBlobs, Blobs), String> {
                target.bucket().map_or(Ok(()), |bucket| bucket.claim(run, DeviceId(key))).map_err(|e| e.to_string())?;
                let carried = carry::carry_blobs(&source, &target, &progress).map_err(|e| e.to_string())?;
                Ok((carried, target))
            }
        };
        let work = tokio::task::spawn_blocking(work);
        let carried = told("blobs", "bytes", &progress, work).await.map_err(Failure::midway)?;
        let (CarriedBlobs { blobs, were_there, checkpoints, damaged }, _) = carried.map_err(Failure::midway)?;
        say(&format!(
            "blobs     {blobs} verified by their hashes and read back ({were_there} were there already), {checkpoints} checkpoints"
        ));
        if !damaged.is_empty() {
            let named: Vec<String> = damaged.iter().take(NAMED_MAX).map(ToString::to_string).collect();
            let (count, named) = (damaged.len(), named.join(", "));
            say(&format!(
                "note      {count} damaged where they were, and not carried: {named}. `verify` tells what they are"
            ));
        }
        state.switch_bucket(to.as_ref()).map_err(Failure::midway)?;
        let place = to.map_or_else(|| self.state.display().to_string(), |url| url.to_string());
        say(&format!("blobs     are in {place} from now on; what is where they were may be removed by hand"));
        Ok(())
    }

    async fn ledger(&self, state: &StateFolder, from: &LedgerPlace, to: LedgerPlace) -> Result<(), Failure> {
        if from.to_string() == to.to_string() {
            say("ledger    is there already");
            return Ok(());
        }
        let progress = Progress::default();
        let carried = told("ledger", "rows", &progress, carry::carry_ledger(from, &to, &progress)).await;
        let generation = carried.map_err(Failure::midway)?;
        let rows = progress.done.load(Ordering::Relaxed);
        carry::mark_moved(from, &to, generation).await.map_err(Failure::midway)?;
        state.switch_ledger(&to).map_err(Failure::midway)?;
        say(&format!(
            "ledger    {rows} rows copied or compared; it is {to} from now on, and the one at {from} is only a copy"
        ));
        Ok(())
    }
}

/// Does something, and says now and then how far it is.
async fn told<T>(what: &str, units: &str, progress: &Progress, work: impl Future<Output = T>) -> T {
    let (begun, mut due) = (Instant::now(), interval(SAY_EVERY));
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    due.tick().await;
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = due.tick() => {
                let (done, all) = (progress.done.load(Ordering::Relaxed), progress.all.load(Ordering::Relaxed));
                say(&line(what, units, done, all, begun.elapsed()));
            }
        }
    }
}

/// Each is counted twice: as it is copied, and as it is compared.
fn line(what: &str, units: &str, done: u64, all: u64, elapsed: Duration) -> String {
    if done == 0 || all == 0 {
        return format!("{what:<9} looking at what is there");
    }
    let share = done.min(all) as f64 / all as f64;
    let left = elapsed.mul_f64((1.0 - share) / share).as_secs();
    let left = if left < 100 { format!("{} s", left + 1) } else { format!("{} min", left.div_ceil(60)) };
    format!("{what:<9} {:.0} % of {} {units}, about {left} left", 100.0 * share, all / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_apart_and_each_is_named_once() {
        let read = |given: &[&str]| Places::read(&given.iter().map(ToString::to_string).collect::<Vec<_>>());
        let both = read(&["postgres://owl@host/run", "s3://night/run"]).ok().unwrap();
        assert!(matches!(both.ledger, Some(Ledger::Database(_))) && matches!(both.blobs, Some(Some(_))));
        let here = read(&["folder", "file"]).ok().unwrap();
        assert!(matches!(here.ledger, Some(Ledger::File)) && matches!(here.blobs, Some(None)));
        assert!(read(&["file", "postgres://owl@host/run"]).is_err() && read(&["s3://owl:hoot@night/x"]).is_err());
    }

    #[test]
    fn the_time_left_follows_from_what_is_done() {
        let line = |done, all| line("ledger", "rows", done, all, Duration::from_secs(10));
        assert_eq!(line(50, 400), "ledger    12 % of 200 rows, about 71 s left");
        assert_eq!(line(1, 4000), "ledger    0 % of 2000 rows, about 667 min left");
        assert_eq!(line(0, 0), "ledger    looking at what is there");
    }
}
