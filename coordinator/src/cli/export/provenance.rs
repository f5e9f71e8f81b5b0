//! What the ledger says of a version, for its card.

use super::words;
use crate::cli::{Failure, opened::Opened, stats::count::Counted, table::utc};
use clap::Args;
use nightjar_coordinator::{
    export::{Kind, Provenance, Watts},
    replay::Shares,
    server::{history::VersionPoint, run_identity},
};
use nightjar_shared::wire::Role;
use std::collections::BTreeMap;

/// What the ledger does not know.
#[derive(Args)]
pub struct Card {
    /// The model's licence, as the card's field has it: apache-2.0, say
    #[arg(long, value_name = "SPDX")]
    license: Option<String>,
    /// Watts that training is assumed to draw on a volunteer's computer, above an idle one
    #[arg(long, value_name = "W", default_value_t = Watts::default().volunteer, value_parser = watts)]
    volunteer_watts: f64,
    /// The same of an anchor node
    #[arg(long, value_name = "W", default_value_t = Watts::default().anchor, value_parser = watts)]
    anchor_watts: f64,
}

fn watts(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|watts| (0.0..=1e6).contains(watts));
    number.ok_or_else(|| "a number of watts is needed, as in 30".to_owned())
}

impl Card {
    /// Reads all of the ledger that belongs to these versions.
    pub async fn provenance(&self, run: &Opened, shares: &Shares) -> Result<Provenance, Failure> {
        let lineage = run.ledger.lineage(shares.last()).await.map_err(Failure::midway)?;
        let through = lineage.place(shares.last()).map_or(0, |at| lineage.versions[at].through_seq);
        let mut counted = Counted::through(through);
        run.ledger.go_through(&mut |piece| counted.take(&piece)).await.map_err(Failure::midway)?;
        let counters = run.ledger.counters().await.map_err(Failure::midway)?;
        let (versions, losses) = counted.curves();
        let versions = &versions[..versions.partition_point(|version| version.version <= shares.last().0)];
        let losses = losses.into_iter().filter(|loss| loss.version <= shares.last().0);
        let at = |version: Option<&VersionPoint>| version.map_or_else(String::new, |point| utc(point.wall.unix_ms));
        let manifest = run.dataset.manifest();
        Ok(Provenance {
            run: run.spec.name.clone(),
            description: run.spec.description.clone(),
            operator: run.spec.operator.as_ref().map(|operator| operator.name.clone()).unwrap_or_default(),
            versions: words(shares),
            licence: self.license.clone(),
            data: run_identity(&run.spec, manifest).manifest_hash,
            samples: [&manifest.train, &manifest.heldout]
                .map(|shards| shards.iter().map(|shard| u64::from(shard.samples)).sum()),
            tokens: counted.tokens,
            token_budget: run.spec.token_budget,
            inner_steps: counted.inner_steps,
            deltas: counted.merged,
            published: versions.len() as u64,
            between: [at(versions.first()), at(versions.last())],
            bytes: [counters.bytes_up, counters.bytes_down],
            devices: kinds(&counted),
            losses: losses.map(|loss| (loss.tokens, loss.loss)).collect(),
            watts: Watts { volunteer: self.volunteer_watts, anchor: self.anchor_watts },
        })
    }
}

/// The devices that were merged, by what trained on them.
fn kinds(counted: &Counted) -> Vec<Kind> {
    let mut kinds: BTreeMap<(bool, String), Kind> = BTreeMap::new();
    for device in counted.devices.values().filter(|device| device.deltas > 0) {
        let record = device.record.as_ref();
        let are_anchors = record.is_some_and(|record| record.role == Role::Anchor);
        let name = record.map(|record| record.device.clone()).unwrap_or_default();
        let kind = kinds.entry((are_anchors, name.clone())).or_insert(Kind {
            device: name,
            are_anchors,
            count: 0,
            tokens: 0,
            train_h: 0.0,
        });
        kind.count += 1;
        kind.tokens += device.tokens;
        kind.train_h += device.train_ms as f64 / 3.6e6;
    }
    kinds.into_values().collect()
}
