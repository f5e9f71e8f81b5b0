//! What a row runs: a comparison that has no coordinator, the real thing under a virtual clock, or only its cost.

use super::{
    row::Row,
    texts::{Corpora, Corpus, Texts},
    warm::{self, Warm},
};
use crate::{
    dataset::Dataset,
    lab::{Lab, Link, Method},
    population::Population,
    real::{Measure, Real},
    results::RunResult,
    run::run,
    scale,
    setup::{Setup, Until},
    text::{Partition, TextDataset, TextSettings, tokens},
    training::cost::Cost,
};
use anyhow::{Context, Result, ensure};
use nightjar_shared::{
    model_spec::ModelSpec,
    run_spec::{InnerSpec, RunSpec},
};
use serde::{Deserialize, Serialize};

/// Goes into the name of every row that the engine runs. Raise it when engine or session change what a run comes to.
const ENGINE: u32 = 2;

/// Runs of more devices are not replayed: their deltas would not fit into memory.
const PROVED_MAX: u64 = 64;
/// Memory is told of runs with as many devices: that of smaller ones is lost in what runs beside them.
const MEASURED_MIN: u64 = 100_000;

/// What a row runs. All that decides its outcome is in it, beside the texts and the seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Work {
    /// What Nightjar is compared with.
    Lab(LabWork),
    /// Engine, sessions, codecs and worker that ship, with real training.
    Sim(SimWork),
    /// The same without tensors.
    Cost(CostWork),
}

/// The data of a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// Which texts.
    pub corpus: Corpus,
    /// Whether each shard holds one domain only.
    pub by_domain: bool,
    /// Most samples in a shard.
    pub shard_samples: u32,
    /// Windows of each text on which a loss is measured.
    pub loss_samples: usize,
}

/// A comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabWork {
    /// Its data; the windows are drawn, so that shards do not matter.
    pub data: Data,
    /// How the devices train together.
    pub method: Method,
    /// The model.
    pub model: ModelSpec,
    /// The inner steps.
    pub inner: InnerSpec,
    /// Tokens of all devices together.
    pub token_budget: u64,
    /// Each device's tokens a second.
    pub speeds: Vec<f64>,
    /// Each device's link.
    pub link: Link,
    /// Measurements on the way.
    pub measurements: u32,
    /// What it starts from, if not from drawn weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm: Option<Warm>,
}

/// A run of the real thing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SimWork {
    /// Its data.
    pub data: Data,
    /// The run; its seed is replaced by the row's.
    pub spec: RunSpec,
    /// Who takes part.
    pub population: Population,
    /// It ends at its token budget, or after so many virtual seconds.
    pub virtual_s: f64,
    /// It ends at this loss.
    pub until_loss: Option<f64>,
    /// What it starts from, if not from drawn weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm: Option<Warm>,
}

/// A run without tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CostWork {
    /// The run.
    pub spec: RunSpec,
    /// Who takes part.
    pub population: Population,
    /// Virtual seconds.
    pub virtual_s: f64,
}

impl Work {
    /// The name under which its row with this seed is cached.
    pub fn name(&self, seed: u64, texts: &Texts) -> Result<String> {
        let digest = match self {
            Work::Lab(LabWork { data, .. }) | Work::Sim(SimWork { data, .. }) => texts.get(data.corpus)?.digest.clone(),
            Work::Cost(_) => String::new(),
        };
        match self {
            Work::Lab(_) => super::cache::name(&(self, digest), seed),
            Work::Sim(_) | Work::Cost(_) => super::cache::name(&(self, digest, ENGINE), seed),
        }
    }

    /// Carries it out, on one thread.
    pub fn run(&self, seed: u64, texts: &Texts) -> Result<Row> {
        match self {
            Work::Lab(work) => work.run(seed, texts),
            Work::Sim(work) => work.run(seed, texts),
            Work::Cost(work) => work.run(seed),
        }
    }
}

impl LabWork {
    fn run(&self, seed: u64, texts: &Texts) -> Result<Row> {
        let start = warm::start(texts, self.data.corpus, &self.model, self.warm, seed)?;
        let texts = &*texts.get(self.data.corpus)?;
        let lab = Lab {
            method: self.method,
            model: self.model.clone(),
            inner: self.inner.clone(),
            token_budget: self.token_budget,
            speeds: self.speeds.clone(),
            link: self.link,
            seed,
            text: tokens(&texts.train.concat()).into(),
            measure: self.data.measure(texts, &self.model),
            measurements: self.measurements,
            start: (start, None),
        };
        let found = lab.run().context("the comparison failed")?;
        let last = found.curve.last().context("nothing was measured")?;
        let result = RunResult {
            seed,
            virtual_s: last.virtual_s,
            tokens: last.tokens,
            versions: found.rounds,
            ..RunResult::default()
        };
        let result = RunResult { curve: found.curve.clone(), utilisation: found.utilisation, ..result };
        Ok(Row { bytes_up: last.bytes_up, bytes_down: last.bytes_down, ..Row::of(&result) })
    }
}

impl SimWork {
    fn run(&self, seed: u64, texts: &Texts) -> Result<Row> {
        let start = warm::start(texts, self.data.corpus, &self.spec.model, self.warm, seed)?;
        let texts = &*texts.get(self.data.corpus)?;
        let setup = Setup { start: Some(start), ..self.setup(seed, texts)? };
        let training = Real::new(&setup.spec.model, Some(self.data.measure(texts, &setup.spec.model)), 1);
        let result = run(&setup, Box::new(training), &mut |_| {});
        kept_promises(&result)?;
        Ok(figures(&result, &setup))
    }

    /// What the simulator is given.
    pub fn setup(&self, seed: u64, texts: &Corpora) -> Result<Setup> {
        let spec = RunSpec { seed, ..self.spec.clone() };
        spec.validate().context("the run spec cannot be used")?;
        let settings = TextSettings {
            context: spec.model.max_position_embeddings,
            shard_samples: self.data.shard_samples,
            partition: if self.data.by_domain { Partition::ByDomain } else { Partition::Iid },
            seed,
        };
        let domains: Vec<&[u8]> = texts.train.iter().map(|text| &**text).collect();
        let made = TextDataset::new(&domains, &texts.heldout, &settings)?;
        let shards = made.blobs.into_iter().map(|(hash, bytes)| (hash, bytes.into())).collect();
        let dataset = Dataset { manifest: made.manifest, shards };
        let mut setup = Setup::new(&self.spec.name, seed, spec, dataset, self.population.clone());
        setup.until = Until { virtual_s: self.virtual_s, loss: self.until_loss };
        // The rest is proved by replaying it from the ledger. That takes all deltas.
        (setup.forget_deltas, setup.start_spread_s) = (self.population.devices() > PROVED_MAX, 1.0);
        Ok(setup)
    }
}

impl CostWork {
    fn run(&self, seed: u64) -> Result<Row> {
        let setup = scale::setup(&self.spec.name, self.spec.clone(), self.population.clone(), self.virtual_s, seed);
        let result = run(&setup, Box::new(Cost::new(&setup.spec)), &mut |_| {});
        kept_promises(&result)?;
        let (host, hours) = (result.host.unwrap_or_default(), result.time.available() / 3600.0);
        let row = figures(&result, &setup)
            .with("devices", setup.population.devices() as f64)
            .with("coordinator_cpu_s", host.coordinator_cpu_s)
            .with("coordinator_cpu_s_per_virtual_hour", host.coordinator_cpu_s / (result.virtual_s / 3600.0))
            .with("events_per_s", host.events as f64 / host.wall_s)
            .with("bytes_up_per_device_hour", result.bytes.up() as f64 / hours)
            .with("bytes_down_per_device_hour", result.bytes.down() as f64 / hours);
        let is_measured = setup.population.devices() >= MEASURED_MIN;
        Ok(if is_measured { row.with("memory_bytes", host.memory_bytes as f64) } else { row })
    }
}

impl Data {
    fn measure(&self, texts: &Corpora, model: &ModelSpec) -> Measure {
        Measure::of_texts(&texts.heldout, Some(&texts.ood), model.max_position_embeddings as usize, self.loss_samples)
    }
}

fn kept_promises(result: &RunResult) -> Result<()> {
    ensure!(result.faults.is_empty(), "promises were broken: {}", result.faults.join("; "));
    Ok(())
}

/// A simulation's row, with what is asked of codecs and merging.
fn figures(result: &RunResult, setup: &Setup) -> Row {
    let (bits, bytes) = (8.0 / setup.spec.model.parameters() as f64, &result.bytes);
    let deltas: u64 = result.staleness.values().sum();
    let stale: u64 = result.staleness.iter().map(|(tau, n)| tau * n).sum();
    let reached = setup.population.devices() as f64 * result.versions as f64;
    Row::of(result)
        .with("deltas", result.merged as f64)
        .with("bits_up_per_parameter_and_delta", bytes.deltas as f64 * bits / result.merged as f64)
        .with("bits_down_per_parameter_and_version", (bytes.keyframes + bytes.updates) as f64 * bits / reached)
        .with("staleness_mean", stale as f64 / deltas as f64)
        .with("deltas_refused", result.leases.get("screened out").copied().unwrap_or_default() as f64)
        .with("bytes_shards", bytes.shards as f64)
        .with("bytes_resent", (bytes.resent_up + bytes.resent_down) as f64)
        .with("versions_per_virtual_hour", result.versions as f64 / (result.virtual_s / 3600.0))
}

#[cfg(test)]
#[path = "work_tests.rs"]
mod tests;
