//! `stats`: what the ledger tells about a run, as a table for people and as JSON for programs.

pub mod count;
mod figures;

use super::{Failure, gc::mega, opened::RunFolders, say};
use clap::Args;
use count::Counted;
use figures::Figures;
use nightjar_coordinator::{
    baseline::{self, SampleRange},
    engine::snapshot::MergedRange,
    server::disk_reserve::DiskStatus,
    store::Weight,
};
use serde::Serialize;
use std::io;

/// Show what was trained, by whom, and what travelled
///
/// Shows what was trained, by whom, how stale it was and what travelled, with what counting alone achieves on the same
/// samples. Losses are in nats a byte of held-out text; with --json also the loss curve, every version and the newest
/// 100,000 leases.
#[derive(Args)]
#[command(after_help = "Examples:
  nightjar-coordinator stats --state state --data data
  nightjar-coordinator stats --state state --data data --json | jq .devices")]
pub struct Stats {
    #[command(flatten)]
    folders: RunFolders,
    /// Print everything as JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Printed {
    #[serde(flatten)]
    figures: Figures,
    disk: DiskStatus,
    kept: Weight,
}

impl Stats {
    pub async fn run(self) -> Result<(), Failure> {
        let run = self.folders.open().await?;
        let mut counted = Counted::default();
        run.ledger.go_through(&mut |piece| counted.take(&piece)).await.map_err(Failure::midway)?;
        let counters = run.ledger.counters().await.map_err(Failure::midway)?;
        let generation = run.ledger.generation();
        run.ledger.close().await;
        let merged = counted.epochs.values().flat_map(|ranges| ranges.iter());
        let merged = merged.map(|MergedRange { shard, first, samples }| SampleRange { shard, first, samples });
        let table = baseline::baselines(&run.dataset, merged, run.spec.evaluate.samples).map_err(Failure::midway)?;
        let figures = Figures::of(&run.spec, counted, counters, generation, table);
        if self.json {
            let printed = Printed { figures, disk: run.disk, kept: run.kept };
            serde_json::to_writer_pretty(io::stdout().lock(), &printed).map_err(Failure::midway)?;
            say("");
        } else {
            say(figures.table().trim_end());
            let Weight { versions, version_bytes, deltas, delta_bytes } = run.kept;
            let (of_versions, of_deltas) = (mega(version_bytes), mega(delta_bytes));
            say(&format!("\nkept: {versions} versions, {of_versions}; {deltas} merged deltas, {of_deltas}"));
            if run.disk.full {
                say("the disk is full: no new work is given out until there is room");
            }
        }
        Ok(())
    }
}
