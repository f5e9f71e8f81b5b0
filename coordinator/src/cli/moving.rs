//! `move`: carries a run to other stores.

use super::{Failure, say};
use clap::Args;
use nightjar_coordinator::{
    server::state::StateFolder,
    store::{
        BucketUrl, DatabaseUrl, LedgerPlace,
        carry::{self, CarriedBlobs, CarryError, Progress},
    },
};
use nightjar_shared::{fail, ids::DeviceId};
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
    Database(DatabaseUrl),
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
        let to_bucket = to.blobs.filter(|to| !is_same(bucket.as_ref(), to.as_ref()));
        let to_ledger = to.ledger.map(|to| match to {
            Ledger::File => state.ledger_file(),
            Ledger::Database(url) => LedgerPlace::Database(url),
        });
        let to_ledger = to_ledger.filter(|to| to.to_string() != ledger.to_string());
        if to_bucket.is_none() && to_ledger.is_none() {
            say("the run is there already");
            return Ok(());
        }
        let carried = self.carry(&state, &ledger, bucket.as_ref(), to_bucket, to_ledger);
        carry::alone(&ledger, carried).await.map_err(Failure::midway)?
    }

    async fn carry(
        &self,
        state: &StateFolder,
        ledger: &LedgerPlace,
        bucket: Option<&BucketUrl>,
        to_bucket: Option<Option<BucketUrl>>,
        to_ledger: Option<LedgerPlace>,
    ) -> Result<(), Failure> {
        if let Some(to) = &to_bucket {
            carry_blobs(state, ledger, bucket, to.as_ref()).await?;
        }
        let mut generation = None;
        if let Some(to) = &to_ledger {
            let progress = Progress::default();
            let carried = told("ledger", "rows", &progress, carry::carry_ledger(ledger, to, &progress)).await;
            generation = Some(carried.map_err(Failure::midway)?);
            let rows = progress.all.load(Ordering::Relaxed) / 2;
            say(&format!("ledger    {rows} rows, all read back and compared"));
        }
        // All is there. Each of these steps leaves a run that can be served, or a move that can be finished.
        if let Some(to) = &to_bucket {
            state.switch_bucket(to.as_ref()).map_err(Failure::midway)?;
            let place = to.as_ref().map_or_else(|| self.state.display().to_string(), BucketUrl::to_string);
            say(&format!("blobs     are in {place} from now on; what is where they were may be removed by hand"));
        }
        if let Some((to, generation)) = to_ledger.zip(generation) {
            carry::mark_moved(ledger, &to, generation).await.map_err(Failure::midway)?;
            fail::point("move.marked");
            state.switch_ledger(&to).map_err(Failure::midway)?;
            say(&format!("ledger    is {to} from now on; {ledger} is only a copy, and no coordinator starts on it"));
        }
        Ok(())
    }
}

fn is_same(one: Option<&BucketUrl>, other: Option<&BucketUrl>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.is_same_place(other),
        (None, None) => true,
        _ => false,
    }
}

async fn carry_blobs(
    state: &StateFolder,
    ledger: &LedgerPlace,
    from: Option<&BucketUrl>,
    to: Option<&BucketUrl>,
) -> Result<(), Failure> {
    let owner = ledger.open_to_read().await.map_err(Failure::input)?;
    owner.ledger.close().await;
    let key = ledger.look().await.map_err(Failure::input)?.key;
    let key =
        key.ok_or_else(|| Failure::input("the ledger knows no key yet: start the coordinator once, then move"))?;
    let source = state.blobs_to_read(from).map_err(Failure::input)?;
    let target = state.blobs_to_read(to).map_err(Failure::input)?;
    let (run, progress) = (owner.identity.run_id, Arc::new(Progress::default()));
    let of_work = progress.clone();
    let work = tokio::task::spawn_blocking(move || -> Result<CarriedBlobs, CarryError> {
        target.bucket().map_or(Ok(()), |bucket| bucket.claim(run, DeviceId(key)))?;
        carry::carry_blobs(&source, &target, &of_work)
    });
    let carried = told("blobs", "bytes", &progress, work).await.map_err(Failure::midway)?;
    let CarriedBlobs { blobs, were_there, checkpoints, damaged } = carried.map_err(Failure::midway)?;
    say(&format!(
        "blobs     {blobs}, all read back and verified by their hashes ({were_there} were there already); {checkpoints} checkpoints"
    ));
    if !damaged.is_empty() {
        let named: Vec<String> = damaged.iter().take(NAMED_MAX).map(ToString::to_string).collect();
        let (count, named) = (damaged.len(), named.join(", "));
        say(&format!(
            "note      {count} damaged where they were, and not carried: {named}. `verify` tells what they are"
        ));
    }
    Ok(())
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
