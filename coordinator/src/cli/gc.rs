//! `gc`: removes by the rule `[keep]` what a run needs no longer, while it is not served. While it is, the coordinator does
//! so by itself.

use super::{Failure, blobs::BlobsFlag, ledger::LedgerFlag, say};
use clap::Args;
use nightjar_coordinator::{
    identity::Identity,
    server::{state::StateFolder, wall_now},
    store::{
        Blobs, Ledger, LedgerError, carry,
        keeping::{
            Weight, chain,
            pass::{self, Due},
        },
    },
};
use nightjar_shared::run_spec::{KeepSpec, RunSpec};
use std::path::PathBuf;

/// Remove old versions and merged deltas by the rule [keep] in run.toml
///
/// Removes what the rule lets go, and nothing that a start, an open lease or the proof of what is kept needs. The ledger
/// keeps its rows, and notes what is removed before it goes. A coordinator that serves does so by itself; this command is
/// refused beside it, but for --dry-run.
#[derive(Args)]
#[command(after_help = "Examples:
  nightjar-coordinator gc --state state --dry-run
  nightjar-coordinator gc --state state")]
pub struct Gc {
    /// The run's state folder, as given to `serve`
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    #[command(flatten)]
    ledger: LedgerFlag,
    #[command(flatten)]
    blobs: BlobsFlag,
    /// Say what would go, and change nothing
    #[arg(long)]
    dry_run: bool,
}

impl Gc {
    pub async fn run(self) -> Result<(), Failure> {
        let state = StateFolder::open(&self.state).map_err(Failure::input)?;
        let place = state.ledger(self.ledger.database()?.as_ref()).map_err(Failure::input)?;
        let read = place.open_to_read().await.map_err(Failure::input)?;
        let spec: RunSpec = serde_json::from_str(&read.identity.spec_json)
            .map_err(|_| Failure::input(LedgerError::Damaged("its run spec cannot be read")))?;
        let bucket = state.bucket(self.blobs.bucket()?.as_ref()).map_err(Failure::input)?;
        let blobs = state.blobs_to_read(bucket.as_ref()).map_err(Failure::input)?;
        if self.dry_run {
            let looked = look(&*read.ledger, &blobs, &spec.keep).await;
            read.ledger.close().await;
            return looked;
        }
        read.ledger.close().await;
        let _lock = state.lock().map_err(Failure::input)?;
        let key = Identity::open(&*state.disk).map_err(Failure::input)?.id();
        let work = async {
            let open = place.take_over(&read.identity, key, wall_now().unix_ms / 1000).await.map_err(Failure::input)?;
            let removed = remove(&*open.ledger, &blobs, &spec.keep).await;
            open.ledger.close().await;
            removed
        };
        carry::alone(&place, work).await.map_err(Failure::input)?
    }
}

/// Says what would go, by the checkpoints that are in the chain already.
async fn look(ledger: &dyn Ledger, blobs: &Blobs, rule: &KeepSpec) -> Result<(), Failure> {
    say(&said(rule));
    let due = pass::due(ledger, blobs, rule, wall_now()).await.map_err(Failure::midway)?;
    let weight = pass::weight_of(ledger, rule, &due).await.map_err(Failure::midway)?;
    tell("would go", weight, &due);
    if !due.checkpoints.is_empty() {
        say(&format!("would go   {} checkpoints that nothing needs", due.checkpoints.len()));
    }
    what_stays(ledger).await
}

async fn remove(ledger: &dyn Ledger, blobs: &Blobs, rule: &KeepSpec) -> Result<(), Failure> {
    say(&said(rule));
    chain::extend(ledger, blobs).await.map_err(Failure::midway)?;
    let due = pass::due(ledger, blobs, rule, wall_now()).await.map_err(Failure::midway)?;
    if due.is_more_than(&ledger.kept().await.map_err(Failure::midway)?) {
        pass::give_up(ledger, &due).await.map_err(Failure::midway)?;
    }
    let before = pass::weight_kept(ledger).await.map_err(Failure::midway)?;
    pass::remove_checkpoints(blobs, due.checkpoints.clone()).await.map_err(Failure::midway)?;
    while pass::remove_page(ledger, blobs, rule, |_| ()).await.map_err(Failure::midway)? {}
    let after = pass::weight_kept(ledger).await.map_err(Failure::midway)?;
    let gone = Weight {
        versions: before.versions - after.versions,
        version_bytes: before.version_bytes - after.version_bytes,
        deltas: before.deltas - after.deltas,
        delta_bytes: before.delta_bytes - after.delta_bytes,
    };
    tell("gone", gone, &due);
    what_stays(ledger).await
}

/// The rule, in words.
fn said(rule: &KeepSpec) -> String {
    let limits = [
        rule.versions.map(|n| format!("the newest {n} versions")),
        rule.deltas.map(|n| format!("the newest {n} merged deltas")),
        rule.days.map(|n| format!("whatever is younger than {n} days")),
        rule.milestones.map(|n| format!("the keyframe of every {n} versions")),
    ];
    let limits: Vec<String> = limits.into_iter().flatten().collect();
    if limits.is_empty() {
        return "rule       the run file has no [keep]: everything stays".to_owned();
    }
    format!("rule       [keep] in the run file keeps {}, and what is needed", limits.join(", "))
}

fn tell(how: &str, weight: Weight, due: &Due) {
    let Weight { versions, version_bytes, deltas, delta_bytes } = weight;
    let (first, after) = (due.first_version, due.after_seq);
    say(&format!("{how:<10} {versions} versions, those before {first}: {}", mega(version_bytes)));
    say(&format!("{how:<10} {deltas} merged deltas, those up to {after}: {}", mega(delta_bytes)));
}

async fn what_stays(ledger: &dyn Ledger) -> Result<(), Failure> {
    let Weight { versions, version_bytes, deltas, delta_bytes } =
        pass::weight_kept(ledger).await.map_err(Failure::midway)?;
    let standing = ledger.standing().await.map_err(Failure::midway)?;
    let kept = standing.kept;
    say(&format!(
        "there now  {versions} versions: {}; {deltas} merged deltas: {}",
        mega(version_bytes),
        mega(delta_bytes)
    ));
    if kept.removed_versions < kept.first_version && standing.oldest_lease.is_some_and(|lease| lease <= kept.last_lease)
    {
        say(&format!(
            "waits      versions {} to before {}: devices with an open lease may be on their way over them",
            kept.removed_versions, kept.first_version
        ));
    }
    Ok(())
}

/// Bytes, for people.
pub fn mega(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
