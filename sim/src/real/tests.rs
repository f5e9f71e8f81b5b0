//! Real devices: the same bits whatever the threads do, and no trace of what did not count.

use super::*;
use crate::{
    disk::SimDisk,
    population::{Group, Owner, Population, Role, Wanted},
    results::RunResult,
    run::run,
    setup::Setup,
    text::{Partition, TextDataset, TextSettings, tokens},
};
use nightjar_shared::{
    run_spec::RunSpec,
    version::keyframe,
    wire::worker::{Base, Evaluate, Slice, Train, Trained},
};

fn spec() -> RunSpec {
    let model = ModelSpec {
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        num_key_value_heads: 2,
        max_position_embeddings: 8,
        ..ModelSpec::tiny()
    };
    let spec =
        serde_json::json!({ "name": "x", "token_budget": 1000, "model": model, "inner": { "batch_samples": 2 } });
    serde_json::from_value(spec).unwrap()
}

fn text() -> Vec<u8> {
    (0..161u32).map(|i| (i * i % 97) as u8).collect()
}

fn version_0(spec: &RunSpec) -> Weights {
    Weights::start(&spec.model, &spec.model.draw_all(1))
}

/// A device whose disk has version 0 and a shard of 20 samples, and its base and samples.
fn device(spec: &RunSpec) -> (Arc<SimDisk>, Base, Slice) {
    let disk = Arc::new(SimDisk::default());
    let weights = version_0(spec);
    disk.write("blobs/keyframe", &keyframe::encode(&spec.model, &weights)).unwrap();
    let settings = TextSettings { context: 8, shard_samples: 20, partition: Partition::Iid, seed: 1 };
    let dataset = TextDataset::new(&[&text()], &text(), &settings).unwrap();
    disk.write("blobs/shard", &dataset.blobs[0].1).unwrap();
    let base = Base { keyframe_file: "blobs/keyframe".into(), digest: weights.digest().to_vec(), ..Default::default() };
    (disk, base, Slice { shard_file: "blobs/shard".into(), shard_samples: 20, first_sample: 0, samples: 12 })
}

fn job(number: u32, spec: &RunSpec, steps: u32) -> Job {
    let (disk, base, slice) = device(spec);
    let train = Train {
        lease_id: u64::from(number),
        run_spec_json: serde_json::to_string(spec).unwrap(),
        base: Some(base),
        slice: Some(Slice { first_sample: number, ..slice }),
        steps,
        progress_tokens_per_step: 40,
        codec: 1,
        ..Default::default()
    };
    Job { device: number, disk, body: to_worker::Body::Train(train), spec: Arc::new(spec.clone()), ahead: None }
}

fn trained(body: from_worker::Body) -> Trained {
    match body {
        from_worker::Body::Trained(trained) => trained,
        other => panic!("{other:?}"),
    }
}

fn files(disk: &SimDisk) -> Files {
    let names = disk.list("work").unwrap().into_iter().map(|name| format!("work/{name}"));
    names.map(|name| (name.clone(), disk.read(&name).unwrap().unwrap())).collect()
}

#[test]
fn which_thread_is_faster_changes_nothing() {
    let spec = spec();
    let run = |threads: usize| -> Vec<(Trained, Files)> {
        let mut real = Real::new(&spec.model, None, threads);
        let jobs: Vec<Job> = (0..6).map(|n| job(n, &spec, 1 + n)).collect();
        let ids: Vec<JobId> = jobs.iter().map(|job| real.begin(job.clone())).collect();
        let ended = ids.iter().zip(&jobs).rev();
        ended.map(|(id, job)| (trained(real.finish(*id, 1 + job.device, 77)), files(&job.disk))).collect()
    };
    let alone = run(1);
    assert_eq!(alone, run(3));
    assert!(alone.iter().all(|(said, _)| said.train_ms == 77));
    assert_eq!(
        alone[0].1.keys().collect::<Vec<_>>(),
        ["work/lease-5.delta", "work/lease-5.optimizer", "work/lease-5.residual", "work/weights-0"]
    );
}

#[test]
fn an_interrupted_job_is_as_if_no_more_had_been_planned() {
    let spec = spec();
    let mut real = Real::new(&spec.model, None, 1);
    let (long, short) = (job(1, &spec, 6), job(1, &spec, 2));
    let ids = [real.begin(long.clone()), real.begin(short.clone())];
    let [interrupted, planned] = ids.map(|id| trained(real.finish(id, 2, 0)));
    assert_eq!((interrupted.steps, interrupted.samples), (2, 4));
    assert_eq!(interrupted, planned);
    assert_eq!(files(&long.disk), files(&short.disk));
}

#[test]
fn an_abandoned_job_leaves_nothing() {
    let spec = spec();
    let mut real = Real::new(&spec.model, None, 1);
    let (lost, kept) = (job(1, &spec, 6), job(2, &spec, 6));
    let (id, other) = (real.begin(lost.clone()), real.begin(kept.clone()));
    real.abandon(id);
    trained(real.finish(other, 6, 0));
    assert!(files(&lost.disk).is_empty() && !files(&kept.disk).is_empty());
    assert!(matches!(real.finish(id, 6, 0), from_worker::Body::Failed(_)));
}

/// What the device has on its disk when the job begins is what counts.
#[test]
fn a_job_reads_its_files_when_it_begins() {
    let spec = spec();
    let mut real = Real::new(&spec.model, None, 1);
    let begun = job(1, &spec, 2);
    let id = real.begin(begun.clone());
    begun.disk.write("blobs/shard", b"gone").unwrap();
    trained(real.finish(id, 2, 0));
    let late = real.begin(begun.clone());
    let from_worker::Body::Failed(failed) = real.finish(late, 2, 0) else { panic!() };
    assert!(failed.sentence.contains("shard") && !failed.base_is_wrong);
}

#[test]
#[should_panic(expected = "invariant 5")]
fn other_bits_than_the_coordinators_break_the_run() {
    let spec = spec();
    let mut real = Real::new(&spec.model, None, 1);
    let mut wrong = job(1, &spec, 2);
    if let to_worker::Body::Train(train) = &mut wrong.body {
        train.base.as_mut().unwrap().digest = vec![7; 32];
    }
    let id = real.begin(wrong);
    real.finish(id, 2, 0);
}

#[test]
fn losses_are_the_models() {
    let spec = spec();
    let flat = version_0(&spec).flat();
    let measure = Measure::of_texts(&text(), Some(&text()[..41]), 8, 4);
    let expected = loss_on(&spec.model, &flat, &measure.heldout).unwrap();
    assert!((expected - 256f64.ln()).abs() < 0.5, "an untrained model knows nothing: {expected}");
    let ood = loss_on(&spec.model, &flat, &Batch::windows(&tokens(&text()[..33]), 8)).unwrap();
    let (disk, base, slice) = device(&spec);
    let mut real = Real::new(&spec.model, Some(measure), 2);
    let id = real.measure(&version_0(&spec)).unwrap();
    let evaluate = Evaluate {
        lease_id: 9,
        run_spec_json: serde_json::to_string(&spec).unwrap(),
        base: Some(base),
        slice: Some(Slice { samples: 20, ..slice }),
    };
    let job =
        Job { device: 0, disk, body: to_worker::Body::Evaluate(evaluate), spec: Arc::new(spec.clone()), ahead: None };
    let evaluated = real.begin(job);
    let losses = real.measured(id);
    assert_eq!(losses.heldout, expected);
    assert!((losses.ood.unwrap() - ood).abs() < 0.5);
    let from_worker::Body::Evaluated(said) = real.finish(evaluated, 1, 0) else { panic!() };
    assert_eq!((said.tokens, said.weights_file.as_str()), (160, "work/weights-0"));
    let all = loss_on(&spec.model, &flat, &Batch::windows(&tokens(&text()), 8)).unwrap();
    assert!((said.nats / 160.0 - all).abs() < 1e-4);
    assert!(Real::new(&spec.model, None, 1).measure(&version_0(&spec)).is_none());
}

/// A pool of unequal devices, whose owners come and go, learns a text that repeats itself, and does so alike whatever
/// the threads do.
#[test]
fn a_pool_of_real_devices_learns_alike_on_any_number_of_threads() {
    let mut spec = spec();
    spec.token_budget = 12_000;
    (spec.inner.batch_samples, spec.inner.learning_rate) = (4, 1e-2);
    (spec.lease.wall_s, spec.merge.quorum, spec.evaluate.every) = (10.0, Some(2), 4);
    let text: Vec<u8> = b"the nightjar sings at night, ".repeat(40);
    let settings = TextSettings { context: 8, shard_samples: 50, partition: Partition::Iid, seed: 1 };
    let dataset = TextDataset::new(&[&text], &text[..400], &settings).unwrap();
    let preferences = Wanted::said([("idle_minutes", "1"), ("in_use_duty_percent", "50")]).unwrap();
    let owner = Owner { preferences, ..Owner::new(100.0, 20.0) };
    let volunteer = |name, speed: f64| Group { owner: Some(owner.clone()), ..Group::new(name, 2, speed) };
    let group = vec![
        volunteer("fast", 60.0),
        volunteer("slow", 20.0),
        Group { role: Role::Examiner, ..Group::new("examiner", 1, 500.0) },
    ];
    let (start_hour, coordinator_up_mbit, coordinator_down_mbit) = (0.0, 0.0, 0.0);
    let population = Population { name: "few".into(), start_hour, coordinator_up_mbit, coordinator_down_mbit, group };
    let setup = Setup::new("few", 3, spec.clone(), dataset.into(), population);
    let simulate = |threads| {
        let measure = Measure::of_texts(&text[..400], None, 8, 20);
        let result = run(&setup, Box::new(Real::new(&spec.model, Some(measure), threads)), &mut |_| {});
        RunResult { host: None, ..result }
    };
    let one = simulate(1);
    assert_eq!(one.faults, Vec::<String>::new());
    assert!(one.merged >= 10 && one.tokens >= 12_000, "{} deltas, {} tokens", one.merged, one.tokens);
    let losses: Vec<f64> = one.curve.iter().filter_map(|point| point.loss).collect();
    assert!(losses[0] > 5.0 && losses[losses.len() - 1] < 4.0, "{losses:?}");
    assert_eq!(one, simulate(3));
}
