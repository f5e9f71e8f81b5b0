//! What is stopped, asked for or limited where it is not expected: between two layers, at a lease's begin, while
//! measuring.

use super::*;
use crate::TrainError;
use nightjar_shared::wire::worker::Evaluate;
use std::thread;

/// A scene whose pass has many gates, and whose steps have four micro-batches, each saved.
fn deep_scene() -> (tempfile::TempDir, FolderDisk, Train) {
    let folder = tempfile::tempdir().unwrap();
    let disk = FolderDisk::open(folder.path()).unwrap();
    let job = synthetic::lease(&disk, &model_of(48), 4, 2).unwrap();
    (folder, disk, Train { checkpoint_ms: 0, ..job })
}

/// A Stop between two layers throws away the step's sum. The checkpoint that has some of it stays.
#[test]
fn a_stop_between_layers_takes_nothing_from_the_checkpoint() {
    let (_folder, disk, job) = deep_scene();
    let train = |stop: &AtomicBool, live: &Live, say: &dyn Fn(from_worker::Body)| {
        // No memory is free: one sample at a time.
        let env = Environment { disk: &disk, checkpoint: CHECKPOINT, memory_free: 0, live, stop, say };
        LeaseRunner::on_processor().train(&job, &env).unwrap()
    };
    let told = Cell::new(0);
    let whole = train(&AtomicBool::new(false), &Live::default(), &|_| told.set(told.get() + 1));
    assert_eq!(told.take(), 8, "after three micro-batches of a step, and after the step");

    // A few gates after the second micro-batch was saved, of the many that the third has. On a busy computer the thread
    // that watches may come too late, and another try is made.
    let is_stopped_in_time = || {
        (0..2).for_each(|slot| drop(disk.remove(&format!("{CHECKPOINT}.{slot}"))));
        let (stop, live, at) = (AtomicBool::new(false), Live::default(), AtomicBool::new(false));
        let signs = || live.signs().map_or(0, |signs| signs.count);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !at.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
                let saved = signs();
                while signs() < saved + 8 {
                    std::hint::spin_loop();
                }
                stop.store(true, Ordering::Relaxed);
            });
            let stopped = train(&stop, &live, &|_| {
                told.set(told.get() + 1);
                at.fetch_or(told.get() == 2, Ordering::Relaxed);
            });
            let done = (stopped.steps, told.take());
            // Wherever it was stopped, it goes on to the same end.
            let again = train(&AtomicBool::new(false), &Live::default(), &|_| told.set(told.get() + 1));
            assert_eq!((&again.delta_hash, again.loss_first), (&whole.delta_hash, whole.loss_first));
            // Between layers: two micro-batches of the first step are taken again.
            (done, told.take()) == ((0, 2), 6)
        })
    };
    assert!((0..50).any(|_| is_stopped_in_time()), "no try was stopped between layers");
}

/// Steps taken ahead are nowhere but in memory until their lease is saved: so it is when that is asked for first.
#[test]
fn what_was_taken_ahead_is_saved_when_its_lease_is_asked_to() {
    let (_folder, disk, job, model) = scene();
    let job = Train { ahead_steps: 3, checkpoint_ms: u64::MAX, ..job };
    let (stop, live, said) = (AtomicBool::new(false), Live::default(), RefCell::new(vec![]));
    let say = |body| {
        // It is ended as soon as it says so.
        stop.fetch_or(matches!(body, from_worker::Body::Saved(_)), Ordering::Relaxed);
        said.borrow_mut().push(body);
    };
    let env =
        Environment { disk: &disk, checkpoint: CHECKPOINT, memory_free: 1 << 30, live: &live, stop: &stop, say: &say };
    let mut runner = LeaseRunner::on_processor();
    let first = runner.train(&job, &env).unwrap();
    let next = next_lease(&disk, &model, &job, &first);
    runner.train_ahead(&env, &|| false);
    live.ask_checkpoint();
    let adopted = runner.train(&next, &env).unwrap();
    assert_eq!(adopted.steps, 3, "the steps that were taken ahead");
    let told: Vec<_> = said.take().into_iter().filter(|body| matches!(body, from_worker::Body::Saved(_))).collect();
    assert!(
        matches!(told[..], [from_worker::Body::Saved(saved)] if (saved.lease_id, saved.steps) == (8, 3)),
        "{told:?}"
    );
    // Stopped at once, another worker reports what it found.
    let found = LeaseRunner::on_processor().train(&next, &env).unwrap();
    assert_eq!((found.steps, found.delta_hash), (3, adopted.delta_hash));
}

fn measure(
    disk: &FolderDisk,
    job: &Train,
    stop: &AtomicBool,
    live: &Live,
    say: &dyn Fn(from_worker::Body),
) -> MeasuredIn {
    let Train { lease_id, run_spec_json, base, slice, .. } = job.clone();
    // No memory is free: one sample at a time.
    let env = Environment { disk, checkpoint: CHECKPOINT, memory_free: 0, live, stop, say };
    let start = Instant::now();
    let measured = LeaseRunner::on_processor().evaluate(&Evaluate { lease_id, run_spec_json, base, slice }, &env);
    (measured.map(|m| m.nats), start.elapsed())
}

type MeasuredIn = (Result<f64, WorkError>, Duration);

#[test]
fn a_measurement_keeps_the_duty_and_answers_and_stops() {
    let (_folder, disk, job) = deep_scene();
    let (stop, live) = (AtomicBool::new(false), Live::default());
    let (fast, _) = measure(&disk, &job, &stop, &live, &|_| {});
    let before = live.signs();
    assert!(before.is_none(), "there is no job any more");

    // Eight micro-batches, each of which rests 49 times as long as it computes: no load can make that shorter.
    live.allow(0.02, 0);
    live.ask_checkpoint();
    let said = RefCell::new(vec![]);
    let (slow, took) = measure(&disk, &job, &stop, &live, &|body| said.borrow_mut().push(body));
    assert_eq!(slow.unwrap(), fast.unwrap());
    assert!(took >= Duration::from_micros(7 * 4900), "{took:?}");
    assert!(
        matches!(said.take()[..], [from_worker::Body::Saved(saved)] if saved.lease_id == 0),
        "nothing is to be saved"
    );

    // In the middle of it.
    live.allow(0.0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while live.signs().is_none_or(|signs| !signs.in_steps) {
                thread::sleep(Duration::from_millis(1));
            }
            stop.store(true, Ordering::Relaxed);
        });
        let (stopped, _) = measure(&disk, &job, &stop, &live, &|_| {});
        assert!(matches!(stopped, Err(WorkError::Train(TrainError::Stopped))), "{stopped:?}");
    });
}
