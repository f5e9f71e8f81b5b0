//! Rows of each kind, on a model of a few thousand parameters.

use super::*;
use crate::population::Group;
use nightjar_shared::run_spec::{LeaseSpec, MergeRule, MergeSpec};
use std::{fs, path::Path};

fn texts(folder: &Path) -> Texts {
    for (name, text) in
        [("train.txt", "the cat sat on the mat. "), ("valid.txt", "the mat sat. "), ("ood.txt", "arma virumque ")]
    {
        fs::write(folder.join(name), text.repeat(200)).unwrap();
    }
    Texts::new(folder.to_owned())
}

fn model() -> ModelSpec {
    ModelSpec {
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        num_key_value_heads: 2,
        max_position_embeddings: 8,
        ..ModelSpec::tiny()
    }
}

fn data() -> Data {
    Data { corpus: Corpus::Small, by_domain: false, shard_samples: 64, loss_samples: 8 }
}

fn population() -> Population {
    scale::always(Group::new("device", 4, 200.0))
}

fn spec() -> RunSpec {
    serde_json::from_value(serde_json::json!({
        "name": "test", "token_budget": 4096, "model": model(),
        "inner": InnerSpec { batch_samples: 2, ..InnerSpec::default() },
        "lease": LeaseSpec { steps: 8, ..LeaseSpec::default() },
        "merge": MergeSpec { quorum: Some(4), ..MergeSpec::default() },
    }))
    .unwrap()
}

fn sim() -> SimWork {
    SimWork { data: data(), spec: spec(), population: population(), virtual_s: 3600.0, until_loss: None, warm: None }
}

#[test]
fn the_real_thing_learns_and_counts_and_repeats_itself() {
    let folder = tempfile::tempdir().unwrap();
    let texts = texts(folder.path());
    let work = Work::Sim(sim());
    let row = work.run(3, &texts).unwrap();
    assert!(row.tokens >= 4096 && row.rounds >= 5, "{row:?}");
    assert!(row.loss.unwrap() < row.curve[0].4 - 0.1 && row.loss_ood.is_some(), "{row:?}");
    assert!(row.bytes_up > 0 && row.bytes_down > 0 && row.extra["bits_up_per_parameter_and_delta"] > 1.0, "{row:?}");
    let again = work.run(3, &texts).unwrap();
    assert_eq!((again.loss, &again.curve, &again.extra), (row.loss, &row.curve, &row.extra));
    assert_ne!(work.run(4, &texts).unwrap().loss, row.loss);
}

#[test]
fn a_comparison_and_a_cost_run_fill_the_same_row() {
    let folder = tempfile::tempdir().unwrap();
    let texts = texts(folder.path());
    let lab = LabWork {
        data: data(),
        method: Method::Diloco { steps: 8, learning_rate: 1.0, momentum: 0.0 },
        model: model(),
        inner: spec().inner,
        token_budget: 2048,
        speeds: vec![200.0, 100.0],
        link: Link { up: 20.0, down: 100.0, latency_s: 0.05 },
        measurements: 4,
        warm: None,
    };
    let row = Work::Lab(lab).run(1, &texts).unwrap();
    assert!(row.loss.is_some() && row.bytes_up > 0 && row.curve.len() >= 4, "{row:?}");
    let cost = CostWork { spec: scale::spec(10), population: scale::homes(10), virtual_s: 7200.0 };
    let row = Work::Cost(cost).run(1, &texts).unwrap();
    assert_eq!((row.loss, row.extra["devices"]), (None, 10.0));
    assert!(row.extra["bytes_up_per_device_hour"] > 0.0, "{row:?}");
}

#[test]
fn a_name_covers_settings_texts_and_seed() {
    let folder = tempfile::tempdir().unwrap();
    let name = |work: &SimWork, seed| Work::Sim(work.clone()).name(seed, &texts(folder.path())).unwrap();
    let first = name(&sim(), 1);
    assert_eq!(name(&sim(), 1), first);
    assert_ne!(name(&sim(), 2), first);
    let mut other = sim();
    other.spec.merge.rule = MergeRule::Nesterov { momentum: 0.5 };
    assert_ne!(name(&other, 1), first);
    let other = Texts::new(folder.path().to_owned());
    fs::write(folder.path().join("valid.txt"), "another text").unwrap();
    assert_ne!(Work::Sim(sim()).name(1, &other).unwrap(), first);
    // A configuration is data: it survives JSON.
    let text = serde_json::to_string(&Work::Sim(sim())).unwrap();
    assert_eq!(serde_json::from_str::<Work>(&text).unwrap(), Work::Sim(sim()));
}
