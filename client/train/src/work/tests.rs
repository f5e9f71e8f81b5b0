//! Leases on a small model: state, checkpoints, faults, and what is kept from one to the next.

mod interruptions;

use super::*;
use crate::{DeviceSettings, OpenDevice, Portion, open_device, portion_limit::PortionLimit};
use burn::tensor::{Device, DeviceKind};
use nightjar_shaders::tuning::{self, Tuning};
use nightjar_shared::{
    delta::{self, CodecId},
    disk::{Disk, FolderDisk},
    ids::BlobHash,
    model_spec::ModelSpec,
    rng,
    run_spec::{InnerState, RunSpec},
    version::{self, Weights, keyframe},
    wire::worker::{Base, Slice, Train, Trained, UpdateFile, from_worker},
};
use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

const STEPS: u32 = 4;
const CHECKPOINT: &str = "work/checkpoint";

/// A model that trains in no time.
fn model_of(num_hidden_layers: u32) -> ModelSpec {
    ModelSpec {
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers,
        num_attention_heads: 2,
        num_key_value_heads: 2,
        max_position_embeddings: 8,
        ..ModelSpec::tiny()
    }
}

/// A folder with version 0 as a keyframe and a shard of random tokens, and a lease on both.
fn scene() -> (tempfile::TempDir, FolderDisk, Train, ModelSpec) {
    let folder = tempfile::tempdir().unwrap();
    let disk = FolderDisk::open(folder.path()).unwrap();
    let model = model_of(1);
    let spec =
        serde_json::json!({ "name": "x", "token_budget": 1000, "model": model, "inner": { "batch_samples": 2 } });
    let weights = Weights::start(&model, &model.draw_all(1));
    disk.write("blobs/keyframe", &keyframe::encode(&model, &weights)).unwrap();
    let tokens = (0..20 * 9).flat_map(|i| (rng::below(1, 0, i, 256) as u16).to_le_bytes()).collect::<Vec<u8>>();
    disk.write("blobs/shard", &zstd::encode_all(&tokens[..], 1).unwrap()).unwrap();
    let digest = weights.digest().to_vec();
    let job = Train {
        lease_id: 7,
        run_spec_json: spec.to_string(),
        base: Some(Base { keyframe_file: "blobs/keyframe".into(), digest, ..Default::default() }),
        slice: Some(Slice { shard_file: "blobs/shard".into(), shard_samples: 20, first_sample: 3, samples: 2 * STEPS }),
        steps: STEPS,
        progress_tokens_per_step: 50,
        codec: 1,
        ..Default::default()
    };
    (folder, disk, job, model)
}

fn train(disk: &FolderDisk, job: &Train, stop: bool) -> Result<Trained, WorkError> {
    train_live(disk, job, &AtomicBool::new(stop), &Live::default(), &|_| {})
}

fn train_live(
    disk: &FolderDisk,
    job: &Train,
    stop: &AtomicBool,
    live: &Live,
    say: &dyn Fn(from_worker::Body),
) -> Result<Trained, WorkError> {
    let device =
        open_device(&DeviceSettings { choice: "flex".parse().unwrap(), threads: 1, ..DeviceSettings::default() })
            .unwrap();
    let env = Environment { disk, checkpoint: CHECKPOINT, memory_free: 1 << 30, live, stop, say };
    LeaseRunner::new(device.device).train(job, &env)
}

/// With memory enough, and nobody who listens.
fn environment<'a>(disk: &'a FolderDisk, live: &'a Live, stop: &'a AtomicBool) -> Environment<'a> {
    Environment { disk, checkpoint: CHECKPOINT, memory_free: 1 << 30, live, stop, say: &|_| {} }
}

#[test]
fn a_lease_becomes_a_delta_with_its_state() {
    let (_folder, disk, job, model) = scene();
    let trained = train(&disk, &Train { checkpoint_ms: 60_000, ..job.clone() }, false).unwrap();
    assert_eq!((trained.steps, trained.samples), (STEPS, 2 * STEPS));
    assert_eq!(trained.weights_file, "work/weights-0");
    let delta = disk.read(&trained.delta_file).unwrap().unwrap();
    assert_eq!(trained.delta_hash, BlobHash::of(&delta).0);
    let mut norm = 0.0;
    delta::decode(&model, &delta, |_, values| norm += values.iter().map(|v| f64::from(v * v)).sum::<f64>()).unwrap();
    assert!(norm > 0.0);
    // The next lease goes on from that state.
    let base = Base { keyframe_file: String::new(), weights_file: trained.weights_file, ..job.base.clone().unwrap() };
    let (residual_file, optimizer_file) = (trained.residual_file, trained.optimizer_file);
    let next = Train { lease_id: 8, base: Some(base), residual_file, optimizer_file, ..job };
    let next = train(&disk, &next, false).unwrap();
    assert_eq!(next.weights_file, "work/weights-0");
    assert_ne!(next.delta_hash, trained.delta_hash, "the moments make a difference");
}

#[test]
fn a_lease_goes_on_from_its_checkpoint_as_if_never_interrupted() {
    let (_folder, disk, job, _) = scene();
    let whole = train(&disk, &Train { checkpoint_ms: 60_000, ..job.clone() }, false).unwrap();
    assert_eq!(disk.list("work").unwrap().iter().filter(|n| n.starts_with("checkpoint")).count(), 0);
    // With a checkpoint after every step, the last is of the step before the last: as after a kill.
    train(&disk, &job, false).unwrap();
    let again = train(&disk, &job, false).unwrap();
    assert_eq!(again.delta_hash, whole.delta_hash);
    assert_eq!((again.steps, again.loss_first, again.loss_last), (whole.steps, whole.loss_first, whole.loss_last));
    // Stopped at once, it reports the steps of the checkpoint.
    let stopped = train(&disk, &job, true).unwrap();
    assert_eq!((stopped.steps, stopped.samples), (STEPS - 1, 2 * (STEPS - 1)));
    // A checkpoint is good for its own lease only.
    let other = train(&disk, &Train { lease_id: 9, ..job }, true).unwrap();
    assert_eq!((other.steps, other.delta_file.as_str()), (0, ""));
}

/// A cleaner was at work: what grows again is done without, and that is said.
#[test]
fn state_that_is_gone_or_damaged_is_done_without() {
    let (_folder, disk, job, _) = scene();
    let job = Train { checkpoint_ms: 60_000, residual_scale: 1.0, ..job };
    let trained = train(&disk, &job, false).unwrap();
    let base = Base { keyframe_file: String::new(), weights_file: trained.weights_file, ..job.base.clone().unwrap() };
    let next = |residual_file: &str, optimizer_file: &str| {
        let (residual_file, optimizer_file) = (residual_file.to_owned(), optimizer_file.to_owned());
        train(
            &disk,
            &Train { lease_id: 8, base: Some(base.clone()), residual_file, optimizer_file, ..job.clone() },
            false,
        )
        .unwrap()
    };
    let fresh = next("", "");
    assert!(fresh.lost.is_empty());
    disk.write("work/damaged", b"not what was written").unwrap();
    for file in ["work/none", "work/damaged"] {
        let without = next(file, file);
        assert_eq!(without.delta_hash, fresh.delta_hash, "as if there had been none");
        assert!(without.lost.len() == 2 && without.lost.iter().all(|lost| lost.contains(file)), "{:?}", without.lost);
    }
    let kept = next(&trained.residual_file, &trained.optimizer_file);
    assert!(kept.lost.is_empty() && kept.delta_hash != fresh.delta_hash);
}

/// A second lease behind the first, from weights that others have moved meanwhile.
fn next_lease(disk: &FolderDisk, model: &ModelSpec, first: &Train, trained: &Trained) -> Train {
    let mut weights = Weights::start(model, &model.draw_all(1));
    let mut feedback: Vec<f32> = model.draw_all(5).iter().map(|w| 0.1 * w).collect();
    let update = version::update::publish(model, CodecId::Blocks8, &mut weights, &mut feedback);
    disk.write("blobs/update", &update).unwrap();
    let updates = vec![UpdateFile { file: "blobs/update".into(), redefines: false }];
    let base = Base { updates, version: 1, digest: weights.digest().to_vec(), ..first.base.clone().unwrap() };
    let slice = first.slice.clone().unwrap();
    Train {
        lease_id: 8,
        base: Some(base),
        slice: Some(Slice { first_sample: slice.first_sample + slice.samples, ..slice }),
        progress_tokens: u64::from(STEPS) * first.progress_tokens_per_step,
        residual_file: trained.residual_file.clone(),
        residual_scale: 1.0,
        optimizer_file: trained.optimizer_file.clone(),
        ahead_of: first.lease_id,
        ..first.clone()
    }
}

/// Steps taken ahead are the next lease's first: as if their change had been made from its weights.
#[test]
fn a_lease_begins_with_the_steps_that_were_taken_ahead_of_it() {
    let (_folder, disk, job, model) = scene();
    let job = Train { ahead_steps: 3, checkpoint_ms: u64::MAX, ..job };
    let (stop, live) = (AtomicBool::new(false), Live::default());
    let env = environment(&disk, &live, &stop);
    let mut runner = LeaseRunner::on_processor();
    // A lease of eight samples from the third is followed by another of eight; there are twenty.
    let first = runner.train(&job, &env).unwrap();
    let next = next_lease(&disk, &model, &job, &first);
    let end = runner.take_end().unwrap();
    // What is adopted is saved at once; each has the lease as if for the first time.
    let forget = || {
        let files = disk.list("work").unwrap().into_iter().filter(|name| name.starts_with("checkpoint"));
        files.for_each(|name| disk.remove(&format!("work/{name}")).unwrap());
    };
    let ahead = |steps, next: &Train| {
        forget();
        let mut runner = LeaseRunner::on_processor();
        runner.resume_from(end.clone().for_steps(steps), &env).unwrap();
        runner.train_ahead(&env, &|| false);
        runner.train(next, &env).unwrap()
    };
    let (none, all) = (ahead(0, &next), ahead(3, &next));
    assert_eq!((none.steps, all.steps, all.samples), (STEPS, STEPS, 2 * STEPS));
    assert_eq!(ahead(99, &next).delta_hash, all.delta_hash, "no more than the lease allowed");
    assert_ne!(all.delta_hash, none.delta_hash);
    // Its first loss is that of the old weights on the same samples.
    assert_ne!(all.loss_first, none.loss_first);
    // What was not taken ahead changes nothing: the same as a lease that begins afresh.
    forget();
    let fresh = LeaseRunner::on_processor().train(&next, &env).unwrap();
    assert_eq!((&fresh.delta_hash, fresh.loss_first), (&none.delta_hash, none.loss_first));
    // In one process, without going back to the first lease's end: until something else is to be done.
    forget();
    runner.resume_from(end.clone(), &env).unwrap();
    let calls = Cell::new(0);
    runner.train_ahead(&env, &|| calls.replace(calls.get() + 1) > 1);
    let some = runner.train(&next, &env).unwrap();
    assert!(some.delta_hash != all.delta_hash && some.delta_hash != none.delta_hash, "it came in between");
    // A lease that begins elsewhere, or behind another, has nothing of it.
    for other in [Train { ahead_of: 0, ..next.clone() }, Train { ahead_of: 6, ..next.clone() }] {
        assert_eq!(ahead(3, &other).delta_hash, fresh.delta_hash);
    }
    let slice = Slice { first_sample: 0, ..next.slice.clone().unwrap() };
    let elsewhere = Train { slice: Some(slice), ..next };
    assert_eq!(
        ahead(3, &elsewhere).delta_hash,
        LeaseRunner::on_processor().train(&elsewhere, &env).unwrap().delta_hash
    );
}

#[test]
fn nothing_is_taken_ahead_that_the_lease_does_not_allow_or_that_a_stop_forbids() {
    let (_folder, disk, job, _) = scene();
    let (stop, live) = (AtomicBool::new(false), Live::default());
    let env = environment(&disk, &live, &stop);
    let mut runner = LeaseRunner::on_processor();
    runner.train(&job, &env).unwrap();
    assert!(runner.take_end().is_none(), "no steps are allowed");
    stop.store(true, Ordering::Relaxed);
    let stopped = Train { lease_id: 9, ahead_steps: 3, ..job };
    assert_eq!(runner.train(&stopped, &env).unwrap().steps, 0);
    assert!(runner.take_end().is_none(), "it was not trained to its end");
    // Behind the last sample of the shard there is none: what fails is dropped.
    stop.store(false, Ordering::Relaxed);
    runner.train(&Train { ahead_steps: 9, ..stopped }, &env).unwrap();
    runner.train_ahead(&env, &|| false);
    assert!(runner.take_end().is_none());
}

#[test]
fn a_wrong_base_is_told_apart_from_other_faults() {
    let (_folder, disk, job, _) = scene();
    let base = Base { digest: vec![1; 32], ..job.base.clone().unwrap() };
    assert!(matches!(
        train(&disk, &Train { base: Some(base), ..job.clone() }, false),
        Err(WorkError::Lease(LeaseError::Base(_)))
    ));
    let slice = Slice { shard_samples: 19, ..job.slice.clone().unwrap() };
    assert!(matches!(
        train(&disk, &Train { slice: Some(slice), ..job.clone() }, false),
        Err(WorkError::Lease(LeaseError::Shard(_)))
    ));
    assert!(matches!(train(&disk, &Train { codec: 9, ..job }, false), Err(WorkError::Lease(LeaseError::Codec(9)))));
}

#[test]
fn the_rate_is_kept() {
    let (_folder, disk, job, _) = scene();
    let start = Instant::now();
    // 4 steps of 2 samples of 8 tokens at 160 tokens a second.
    let live = Live::default();
    live.cap(160.0);
    train_live(&disk, &Train { checkpoint_ms: 60_000, ..job }, &AtomicBool::new(false), &live, &|_| {}).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(400));
}

#[test]
fn a_run_that_resets_its_optimizer_neither_reads_nor_keeps_its_state() {
    let (_folder, disk, job, _) = scene();
    let fresh = train(&disk, &job, false).unwrap();
    let mut spec: serde_json::Value = serde_json::from_str(&job.run_spec_json).unwrap();
    spec["inner"]["state"] = serde_json::to_value(InnerState::Reset).unwrap();
    // The state of an earlier lease is there, and makes no difference.
    let resets = Train { lease_id: 8, run_spec_json: spec.to_string(), optimizer_file: fresh.optimizer_file, ..job };
    let trained = train(&disk, &resets, false).unwrap();
    assert_eq!((trained.delta_hash, trained.optimizer_file.as_str()), (fresh.delta_hash, ""));
}

#[test]
fn a_residual_counts_by_its_scale() {
    let (_folder, disk, job, model) = scene();
    let first = train(&disk, &job, false).unwrap();
    let residual = read_residual(&disk, &first.residual_file, model.parameters()).unwrap();
    assert!(residual.iter().any(|r| *r != 0.0));
    let with = |lease_id, residual_file: &str, residual_scale| {
        let again = Train { lease_id, residual_file: residual_file.into(), residual_scale, ..job.clone() };
        let trained = train(&disk, &again, false).unwrap();
        (trained.delta_hash, read_residual(&disk, &trained.residual_file, model.parameters()).unwrap())
    };
    let file = first.residual_file.as_str();
    assert_eq!(with(8, file, 0.0), with(9, "", 1.0));
    // Halved in the file or by the scale: the same bits.
    nightjar_work::files::write_residual(&disk, "work/half", &residual.iter().map(|r| r * 0.5).collect::<Vec<_>>())
        .unwrap();
    assert_eq!(with(10, file, 0.5), with(11, "work/half", 1.0));
    assert_ne!(with(12, file, 1.0), with(13, file, 0.5));
}

/// However the newest checkpoint is damaged, the lease goes on from the one before it, to the same bits.
#[test]
fn a_damaged_checkpoint_costs_its_steps_and_nothing_else() {
    let (_folder, disk, job, _) = scene();
    let whole = train(&disk, &Train { checkpoint_ms: 60_000, ..job.clone() }, false).unwrap();
    // A checkpoint after every step but the last: of the steps 2 and 3.
    let slots = || [0, 1].map(|slot| disk.read(&format!("{CHECKPOINT}.{slot}")).unwrap().unwrap());
    let steps = |bytes: &[u8]| u64::from_le_bytes(bytes[32..40].try_into().unwrap());
    for seed in 0..20 {
        train(&disk, &job, false).unwrap();
        let saved = slots().map(|bytes| steps(&bytes));
        let newest = if saved[0] > saved[1] { 0 } else { 1 };
        assert_eq!([saved[newest], saved[1 - newest]], [3, 2]);
        let mut bytes = slots()[newest].clone();
        let at = rng::below(9, 0, seed, bytes.len() as u64) as usize;
        if seed % 2 == 0 {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << (seed % 8);
        }
        disk.write(&format!("{CHECKPOINT}.{newest}"), &bytes).unwrap();
        assert_eq!(train(&disk, &job, true).unwrap().steps, 2, "seed {seed}");
        let again = train(&disk, &job, false).unwrap();
        assert_eq!((again.delta_hash, again.steps), (whole.delta_hash.clone(), whole.steps), "seed {seed}");
        // The next round begins afresh.
        (0..2).for_each(|slot| disk.remove(&format!("{CHECKPOINT}.{slot}")).unwrap());
    }
    // With both of them damaged it begins again.
    train(&disk, &job, false).unwrap();
    (0..2).for_each(|slot| disk.write(&format!("{CHECKPOINT}.{slot}"), b"torn").unwrap());
    assert_eq!(train(&disk, &job, true).unwrap().steps, 0);
}

#[test]
fn a_checkpoint_that_is_asked_for_is_saved_and_told_and_changes_nothing() {
    let (_folder, disk, job, _) = scene();
    let job = Train { checkpoint_ms: u64::MAX, ..job };
    let whole = train(&disk, &job, false).unwrap();
    assert!(!disk.list("work").unwrap().iter().any(|name| name.starts_with("checkpoint")));
    let (live, said) = (Live::default(), RefCell::new(vec![]));
    live.ask_checkpoint();
    let asked = train_live(&disk, &job, &AtomicBool::new(false), &live, &|body| said.borrow_mut().push(body)).unwrap();
    assert_eq!(asked.delta_hash, whole.delta_hash);
    let saved: Vec<_> = said.take().into_iter().filter(|body| matches!(body, from_worker::Body::Saved(_))).collect();
    let from_worker::Body::Saved(saved) = &saved[0] else { panic!("{saved:?}") };
    assert_eq!((saved.lease_id, saved.steps), (7, 0));
    assert!(!live.checkpoint_asked());
}

/// A step may take longer than the owner wants to lose: the micro-batches that are finished are on the disk too.
#[test]
fn a_step_is_saved_in_its_middle_and_goes_on_there() {
    let (_folder, disk, job, _) = scene();
    let mut spec: serde_json::Value = serde_json::from_str(&job.run_spec_json).unwrap();
    spec["inner"]["batch_samples"] = 4.into();
    let job = Train { run_spec_json: spec.to_string(), steps: 2, ..job };
    // No memory is free: one sample at a time; and each is to be saved.
    let train = |disk: &FolderDisk, stop: &AtomicBool, say: &dyn Fn(from_worker::Body)| {
        let live = Live::default();
        let env = Environment { disk, checkpoint: CHECKPOINT, memory_free: 0, live: &live, stop, say };
        LeaseRunner::on_processor().train(&job, &env).unwrap()
    };
    let told = RefCell::new(0);
    let whole = train(&disk, &AtomicBool::new(false), &|_| *told.borrow_mut() += 1);
    assert_eq!(told.take(), 8, "after three micro-batches of a step, and after the step");
    (0..2).for_each(|slot| disk.remove(&format!("{CHECKPOINT}.{slot}")).unwrap());

    // Ended when the second micro-batch of the first step was saved.
    let stop = AtomicBool::new(false);
    let stopped = train(&disk, &stop, &|_| {
        *told.borrow_mut() += 1;
        stop.store(*told.borrow() == 2, Ordering::Relaxed);
    });
    assert_eq!((stopped.steps, told.take()), (0, 2));
    let again = train(&disk, &AtomicBool::new(false), &|_| *told.borrow_mut() += 1);
    assert_eq!((again.delta_hash, again.loss_first), (whole.delta_hash, whole.loss_first));
    assert_eq!(told.take(), 6, "two micro-batches of the first step were taken again");
}

/// Whatever is done with what a Stop leaves, the steps are on the disk before the delta is encoded.
#[test]
fn what_is_stopped_is_saved_first() {
    let (_folder, disk, job, _) = scene();
    let (stop, live) = (AtomicBool::new(false), Live::default());
    // Asking for a checkpoint makes it say something after its first step, upon which it is stopped.
    let job = Train { checkpoint_ms: u64::MAX, ..job };
    live.cap(40.0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(100));
            stop.store(true, Ordering::Relaxed);
        });
        let stopped = train_live(&disk, &job, &stop, &live, &|_| {}).unwrap();
        assert!((1..STEPS).contains(&stopped.steps), "{} steps", stopped.steps);
        let again = train(&disk, &job, true).unwrap();
        assert_eq!((again.steps, again.delta_hash), (stopped.steps, stopped.delta_hash));
    });
}

#[test]
fn the_duty_is_kept() {
    let (_folder, disk, job, _) = scene();
    let job = Train { checkpoint_ms: 60_000, ..job };
    let live = Live::default();
    let took = |live: &Live| {
        let start = Instant::now();
        let trained = train_live(&disk, &job, &AtomicBool::new(false), live, &|_| {}).unwrap();
        (start.elapsed(), trained)
    };
    let (_, whole) = took(&live);
    live.allow(0.02, 0);
    let (slow, trained) = took(&live);
    assert_eq!(trained.delta_hash, whole.delta_hash);
    // A lower bound, which no load of the machine can break: each step rests 49 times as long as it computes, and one
    // that computes for less than 0.1 ms does not exist.
    assert!(slow >= Duration::from_micros(u64::from(STEPS) * 4900), "{slow:?}");
}

#[test]
fn memory_that_is_allowed_bounds_the_micro_batch() {
    let (_folder, disk, job, _) = scene();
    let mut spec: serde_json::Value = serde_json::from_str(&job.run_spec_json).unwrap();
    spec["inner"]["batch_samples"] = 64.into();
    let spec = serde_json::from_value(spec).unwrap();
    let (live, stop) = (Live::default(), AtomicBool::new(false));
    let samples = |memory_free| {
        let env =
            Environment { disk: &disk, checkpoint: CHECKPOINT, memory_free, live: &live, stop: &stop, say: &|_| {} };
        env.portion(&spec, &PortionLimit::default(), &Device::flex(), 64).micro_batch
    };
    assert_eq!(samples(1 << 40), 64);
    assert_eq!(samples(0), 1);
    live.allow(1.0, 1 << 20);
    assert_eq!(samples(1 << 40), 1, "less than the program itself takes");
    live.allow(1.0, 1 << 30);
    assert_eq!(samples(1 << 40), 64);
}

#[test]
fn a_model_that_the_owners_memory_cannot_hold_is_refused() {
    let (_folder, disk, job, model) = scene();
    let live = Live::default();
    live.allow(1.0, model.training_bytes() - 1);
    let e = train_live(&disk, &job, &AtomicBool::new(false), &live, &|_| {}).unwrap_err();
    assert!(
        matches!(e, WorkError::Lease(LeaseError::Memory { needed, .. }) if needed == model.training_bytes()),
        "{e}"
    );
    live.allow(1.0, model.training_bytes());
    train_live(&disk, &job, &AtomicBool::new(false), &live, &|_| {}).unwrap();
}

/// A worker that its first step takes down is given half as much by the next start, and so on until it lives.
#[test]
fn a_portion_that_took_the_worker_down_is_not_tried_again() {
    let (folder, disk, job, model) = scene();
    let mut spec: serde_json::Value = serde_json::from_str(&job.run_spec_json).unwrap();
    spec["inner"]["batch_samples"] = STEPS.into();
    let slice = Some(Slice { samples: STEPS * STEPS, ..job.slice.clone().unwrap() });
    let job = Train { run_spec_json: spec.to_string(), slice, ..job };
    let cache = folder.path().join("cache");
    let flex = || {
        open_device(&DeviceSettings { choice: "flex".parse().unwrap(), threads: 1, ..DeviceSettings::default() })
            .unwrap()
    };
    let start = || OpenDevice { portion_limit: PortionLimit::of("a GPU", Some(&cache)), ..flex() };
    let spec: RunSpec = serde_json::from_value(spec).unwrap();
    let (live, stop) = (Live::default(), AtomicBool::new(false));
    let env = Environment { memory_free: 1 << 40, ..environment(&disk, &live, &stop) };
    let portion = |opened: &OpenDevice| env.portion(&spec, &opened.portion_limit, &opened.device, STEPS as usize);
    let bytes = |opened: &OpenDevice| portion(opened).bytes(&model, 8, &opened.device);
    let mut first = start();
    assert_eq!(portion(&first), Portion { micro_batch: STEPS as usize, recompute: false });
    let whole = bytes(&first);
    first.portion_limit.begin(whole);
    // What it leaves is what a process leaves that is killed.
    let second = start();
    assert!(bytes(&second) < whole && portion(&second) != portion(&first), "{:?}", portion(&second));
    LeaseRunner::of(second).train(&job, &env).unwrap();
    let third = start();
    assert_eq!(third.portion_limit.most(), whole / 2, "what went well is no trial any more");
}

/// A GPU whose driver is reset takes its worker down: that it is the device's fault is said, and not a byte of the
/// lease's state is harmed. Whoever comes next, on whatever device, goes on from the checkpoint.
#[test]
fn a_lost_device_ends_the_lease_at_its_checkpoint() {
    let (_folder, disk, job, _) = scene();
    let whole = train(&disk, &job, false).unwrap();
    tuning::configure(Tuning::Minimal, None);
    let Ok((device, setup)) = Device::wgpu_options().device_kind(DeviceKind::DefaultDevice).init_with_setup() else {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "no wgpu adapter: install mesa-vulkan-drivers and libvulkan1"
        );
        return;
    };
    // Lost before its first step: so none of its kernels has to be compiled for this.
    setup.device.destroy();
    let (live, stop) = (Live::default(), AtomicBool::new(false));
    let env = environment(&disk, &live, &stop);
    // The runtime panics at some of its calls, which ends the worker as well.
    if let Ok(lost) = catch_unwind(AssertUnwindSafe(|| LeaseRunner::new(device).train(&job, &env))) {
        assert!(lost.as_ref().is_err_and(WorkError::is_of_device), "{lost:?}");
    }
    assert_eq!(train(&disk, &job, true).unwrap().steps, STEPS - 1, "the checkpoint is still there");
    assert_eq!(train(&disk, &job, false).unwrap().delta_hash, whole.delta_hash);
}
