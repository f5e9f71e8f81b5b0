//! `stats`: what the ledger tells about a run, as a table for people and as JSON for programs.

mod figures;

use super::{Failure, gc::mega, opened::RunFolders, say};
use clap::Args;
use figures::Figures;
use nightjar_coordinator::{
    baseline::{self, SampleRange},
    store::Weight,
};

/// Show what was trained, by whom, and what travelled
///
/// Shows what was trained, by whom, how stale it was and what travelled, with what counting alone achieves on the same
/// samples. Losses are in nats a byte of held-out text; with --json also the loss curve, every lease and every version.
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

impl Stats {
    pub async fn run(self) -> Result<(), Failure> {
        let run = self.folders.open().await?;
        let merged = figures::merged_ranges(&run.facts).map(|(lease, samples)| SampleRange {
            shard: lease.shard,
            first: lease.first_sample,
            samples,
        });
        let counted = baseline::baselines(&run.dataset, merged, run.spec.evaluate.samples).map_err(Failure::midway)?;
        let figures = Figures::of(&run.spec, &run.facts, run.counters, run.generation, counted);
        if self.json {
            let mut json = serde_json::to_value(&figures).map_err(Failure::midway)?;
            json["disk"] = serde_json::to_value(run.disk).map_err(Failure::midway)?;
            json["kept"] = serde_json::to_value(run.kept).map_err(Failure::midway)?;
            say(&serde_json::to_string_pretty(&json).map_err(Failure::midway)?);
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
