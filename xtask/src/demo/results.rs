//! The demo's outcome: the coordinator's own figures, checked by replaying its ledger, as a table and as JSON.

use super::prepare::DemoFiles;
use crate::children::Children;
use anyhow::{Context, Result, ensure};
use nightjar_shared::lease::LeaseKind;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

/// What `nightjar-coordinator stats --json` tells about the way there. Times are milliseconds since the Unix epoch.
#[derive(Deserialize)]
pub struct RunStats {
    /// Each measurement of held-out loss.
    pub loss_curve: Vec<Measurement>,
    /// Each lease.
    pub lease_timeline: Vec<Lease>,
}

/// A measurement of held-out loss.
#[derive(Deserialize)]
pub struct Measurement {
    /// When.
    pub wall: u64,
    /// Nats a byte.
    pub loss: f64,
}

/// A lease's place in time.
#[derive(Deserialize)]
pub struct Lease {
    /// Whose, by name.
    pub device: String,
    /// What it was for.
    pub kind: LeaseKind,
    /// When it was issued.
    pub start: u64,
    /// When it ended.
    pub end: Option<u64>,
    /// How it ended; `merged` if its delta counts.
    pub outcome: String,
}

/// The demo's final figures: the JSON file of `--json`.
#[derive(Deserialize, Serialize)]
pub struct Results {
    /// Of version 0; like all losses, nats a byte on the held-out slice.
    pub heldout_loss_start: f64,
    /// Of the last version that was measured.
    pub heldout_loss_end: f64,
    /// Of a model that counts pairs of bytes in the merged samples.
    pub order1_loss: f64,
    /// Of a model that counts triples of bytes in the merged samples.
    pub order2_loss: f64,
    /// Tokens merged.
    pub tokens: u64,
    /// Bytes that the coordinator received.
    pub bytes_up: u64,
    /// Bytes that the coordinator sent.
    pub bytes_down: u64,
    /// What data parallel training of the same inner steps would have moved, in bf16: gradients up, weights down.
    pub bytes_data_parallel_bf16: u64,
    /// Deltas merged.
    pub merged: u64,
    /// Deltas acknowledged.
    pub acknowledged: u64,
    /// Deltas merged twice.
    pub duplicates: u64,
    /// Samples of acknowledged leases that no merged delta holds.
    pub lost_samples: u64,
    /// Merged deltas by staleness.
    pub staleness: BTreeMap<u64, u64>,
    /// The volunteers.
    pub devices: Vec<Device>,
}

/// A device's part.
#[derive(Deserialize, Serialize)]
pub struct Device {
    /// As its owner calls it.
    pub name: String,
    /// Tokens merged from it.
    pub tokens: u64,
    /// Leases merged from it.
    pub leases: u64,
    /// Median wall time of its leases without the first, which measures its speed.
    pub lease_wall_s_median: Option<f64>,
    /// Share of its time in the run that it spent in inner steps.
    pub training_share: f64,
}

/// Replays the ledger, exports the model and gathers the figures. Fails where the replay finds a fault.
pub fn collect(files: &DemoFiles, children: &Children) -> Result<(Results, RunStats)> {
    let verified = children.run("nightjar-coordinator verify", &mut files.with_run(&["verify"]))?;
    ensure!(
        verified.success(),
        "the ledger does not hold what it should; the state is kept in {}",
        files.state().display()
    );
    let mut export = files.with_run(&["export"]);
    children.output("nightjar-coordinator export", export.arg(files.model()))?;
    let text = children.output("nightjar-coordinator stats", &mut files.with_run(&["stats", "--json"]))?;
    let missing = || format!("figures are missing; the logs in {} may tell why", files.logs().display());
    let mut results: Results = serde_json::from_str(&text).with_context(missing)?;
    results.devices.retain(|device| device.leases > 0);
    Ok((results, serde_json::from_str(&text).with_context(missing)?))
}

impl Results {
    /// The final table.
    pub fn table(&self) -> String {
        let mut text = String::from("\n");
        let mut row = |what: &str, figure: String| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {what:<34} {figure}");
        };
        row("held-out loss, nats a byte", format!("{:.3} → {:.3}", self.heldout_loss_start, self.heldout_loss_end));
        row("  counting pairs, triples of bytes", format!("{:.3}, {:.3}", self.order1_loss, self.order2_loss));
        row("tokens merged", format!("{:.2} million", self.tokens as f64 / 1e6));
        row(
            "deltas acknowledged, merged, twice",
            format!("{}, {}, {}", self.acknowledged, self.merged, self.duplicates),
        );
        row("samples unaccounted for", self.lost_samples.to_string());
        row(
            "staleness: deltas",
            self.staleness.iter().map(|(tau, count)| format!("{tau}: {count}")).collect::<Vec<_>>().join("  "),
        );
        row("bytes up, down", format!("{:.1} MB, {:.1} MB", self.bytes_up as f64 / 1e6, self.bytes_down as f64 / 1e6));
        row("  data parallel at bf16", format!("{:.1} MB", self.bytes_data_parallel_bf16 as f64 / 1e6));
        let _ = writeln!(
            text,
            "\n  {:<16}{:>12}{:>8}{:>18}{:>18}",
            "device", "tokens", "leases", "lease, median s", "time training"
        );
        for device in &self.devices {
            let wall = device.lease_wall_s_median.map_or("–".to_owned(), |s| format!("{s:.1}"));
            let share = format!("{:.0} %", 100.0 * device.training_share);
            let _ =
                writeln!(text, "  {:<16}{:>12}{:>8}{wall:>18}{share:>18}", device.name, device.tokens, device.leases);
        }
        text
    }

    /// Writes the figures for scripts.
    pub fn write_json(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }
}
