//! The worker that ships, as a process: confined whatever its driver tries, at the lowest priority, frozen and ended at
//! any instant, gone when its agent is. Each test speaks the agent's part of the protocol by itself.

#![cfg(target_os = "linux")]

use nightjar_shared::{
    disk::{Disk, FolderDisk},
    model_spec::ModelSpec,
    wire::{
        frame,
        worker::{Checkpoint, FromWorker, Limits, Ready, Stop, ToWorker, Train, from_worker, to_worker},
    },
};
use nightjar_tests::{
    Place, Size,
    process::{binary, descendants, is_alive},
    until,
};
use nightjar_train::work::synthetic;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read, Write},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

const STEPS: u32 = 200;
/// Bytes of a small GPU, and samples that do not fit it together.
const MEMORY_MAX: u64 = 250 << 20;
const SAMPLES: u32 = 8192;
/// `SCHED_IDLE`, as the kernel counts.
const IDLE: &str = "5";

/// A worker with a home folder that has a lease in it.
struct Worker {
    child: Child,
    stdout: ChildStdout,
    lease: Train,
    tokens_per_s_max: f64,
    home: tempfile::TempDir,
}

fn model() -> ModelSpec {
    ModelSpec {
        vocab_size: 64,
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        num_key_value_heads: 2,
        max_position_embeddings: 16,
        ..ModelSpec::tiny()
    }
}

/// Five steps of [`lease`] a second, however fast the machine.
const TOKENS_PER_S: f64 = 160.0;

/// `steps` of 2 samples.
fn lease(home: &Path, steps: u32) -> Train {
    let disk = FolderDisk::open(home).unwrap();
    synthetic::lease(&disk, &model(), 2, steps).unwrap()
}

impl Worker {
    fn start(device: &str, steps: u32, environment: impl Fn(&Path) -> Vec<(&'static str, String)>) -> Worker {
        let home = tempfile::tempdir().unwrap();
        let lease = lease(home.path(), steps);
        let (child, stdout) = Worker::spawn(device, home.path(), environment(home.path()));
        Worker { child, stdout, lease, tokens_per_s_max: TOKENS_PER_S, home }
    }

    /// Another in its place.
    fn again(&mut self, device: &str, environment: impl Fn(&Path) -> Vec<(&'static str, String)>) {
        self.end();
        (self.child, self.stdout) = Worker::spawn(device, self.home.path(), environment(self.home.path()));
    }

    fn spawn(device: &str, home: &Path, environment: Vec<(&'static str, String)>) -> (Child, ChildStdout) {
        let mut command = Command::new(binary("nightjar"));
        command.args(["worker", "serve", "--device", device, "--threads", "1", "--state"]).arg(home);
        command.env("XDG_RUNTIME_DIR", home).envs(environment);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        (child, stdout)
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn tell(&mut self, body: to_worker::Body) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(&frame::encode(&ToWorker { body: Some(body) })).unwrap();
    }

    /// What it says next; `None` at its end.
    fn hear(&mut self) -> Option<from_worker::Body> {
        let mut prefix = [0; 4];
        self.stdout.read_exact(&mut prefix).ok()?;
        let mut body = vec![0; u32::from_le_bytes(prefix) as usize];
        self.stdout.read_exact(&mut body).ok()?;
        frame::decode::<FromWorker>(&body).unwrap().body
    }

    fn ready(&mut self) -> Ready {
        match self.hear() {
            Some(from_worker::Body::Ready(ready)) => ready,
            other => panic!("{other:?}"),
        }
    }

    /// Until it says this.
    fn hear_until<T>(&mut self, wanted: impl Fn(&from_worker::Body) -> Option<T>) -> T {
        loop {
            let said = self.hear().expect("it goes on");
            if let Some(found) = wanted(&said) {
                return found;
            }
            assert!(!matches!(said, from_worker::Body::Failed(_)), "{said:?}");
        }
    }

    fn train(&mut self) {
        let tokens_per_s_max = self.tokens_per_s_max;
        self.tell(to_worker::Body::Limits(Limits { duty: 1.0, threads: 1, memory_bytes: 0, tokens_per_s_max }));
        self.tell(to_worker::Body::Train(self.lease.clone()));
    }

    /// Trains the lease to its end.
    fn trains(&mut self) {
        self.tokens_per_s_max = 0.0;
        self.train();
        let trained = self.hear_until(|said| match said {
            from_worker::Body::Trained(trained) => Some(trained.clone()),
            _ => None,
        });
        assert_eq!(trained.steps, self.lease.steps);
        assert!(self.home.path().join(&trained.delta_file).exists());
    }

    fn id(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.id() as i32).unwrap(), signal).unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}

/// A field of each of a process's threads, by the line's beginning in `/proc/PID/task/TID/status`.
fn of_threads(id: u32, key: &str) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{id}/task")).unwrap().flatten();
    let status = tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
    status.filter_map(|text| Some(text.lines().find_map(|line| line.strip_prefix(key))?.trim().to_owned())).collect()
}

/// The scheduling policy of each of a process's threads.
fn policies(id: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{id}/task")).unwrap().flatten();
    let stat = tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
    // Field 41 of all, and the third is the first after the name in brackets.
    stat.filter_map(|text| Some(text.rsplit_once(')')?.1.split_whitespace().nth(41 - 3)?.to_owned())).collect()
}

#[test]
fn it_trains_on_the_processor_confined_and_at_the_lowest_priority() {
    let mut worker = Worker::start("flex", STEPS, |_| vec![]);
    let ready = worker.ready();
    assert!(ready.device.starts_with("flex") && !ready.gpu, "{ready:?}");
    // This machine's kernel can do all; only the control group is missing where the tests run.
    assert!(
        ready.sandbox.len() <= 1 && ready.sandbox.iter().all(|note| note.contains("memory")),
        "{:?}",
        ready.sandbox
    );
    worker.train();
    worker.hear_until(|said| matches!(said, from_worker::Body::Progress(_)).then_some(()));
    for key in ["Seccomp:", "NoNewPrivs:"] {
        let of = of_threads(worker.id(), key);
        assert!(
            of.len() >= 2 && of.iter().all(|value| value == if key == "Seccomp:" { "2" } else { "1" }),
            "{key} {of:?}"
        );
    }
    let policies = policies(worker.id());
    let usual = policies.iter().filter(|policy| *policy != IDLE).count();
    assert_eq!(usual, 1, "all but the thread that listens: {policies:?}");
    assert_eq!(fs::read_to_string(format!("/proc/{}/oom_score_adj", worker.id())).unwrap().trim(), "1000");
    worker.tell(to_worker::Body::Stop(Stop {}));
    let steps = worker.hear_until(|said| if let from_worker::Body::Trained(t) = said { Some(t.steps) } else { None });
    assert!((1..STEPS).contains(&steps));
    worker.trains();
}

/// Mesa's software driver stands for all: it compiles shaders to machine code, starts threads and writes a cache. What
/// the runtime has tuned is kept beside it, so that the next start need not.
#[test]
fn it_trains_on_wgpu_confined_and_what_it_caches_stays_in_its_folder() {
    let mut worker = Worker::start("wgpu", STEPS, |_| vec![]);
    match worker.hear() {
        Some(from_worker::Body::Ready(_)) => {}
        Some(from_worker::Body::Failed(failed))
            if failed.sentence.contains("found: none") && std::env::var_os("CI").is_none() =>
        {
            return println!("skipped: {}", failed.sentence);
        }
        other => panic!("{other:?}"),
    }
    worker.train();
    // By the device's own stamps.
    worker.hear_until(|said| matches!(said, from_worker::Body::Progress(p) if p.submit_us > 0).then_some(()));
    let files = fs::read_dir(worker.home.path().join("cache")).unwrap().map(|file| file.unwrap().path());
    let (tuned, by_the_driver): (Vec<_>, Vec<_>) =
        files.partition(|file| file.display().to_string().contains("default.db"));
    assert!(!by_the_driver.is_empty(), "the driver caches nothing");
    let is_kept = |file| fs::read(file).unwrap().windows(8).any(|word| word == b"autotune");
    assert!(tuned.into_iter().any(is_kept), "no tuning is kept");
}

/// Whatever a driver does when it is loaded into the worker that ships, it gets neither out nor at the owner's files.
#[test]
fn a_hostile_driver_is_confined() {
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("id_ed25519");
    fs::write(&secret, "secret").unwrap();
    let new = outside.path().join("new");
    let mut worker = Worker::start("wgpu", 1, |home| {
        let (work, path) = (home.join("work"), |path: &Path| path.display().to_string());
        fs::create_dir_all(&work).unwrap();
        fs::write(home.join("identity.pk8"), "key").unwrap();
        let library = work.join("hostile.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/worker/hostile_driver.c");
        let built =
            Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).args([source, "-lpthread"]).status();
        assert!(built.expect("a C compiler, as Rust's linking needs one").success());
        let manifest = serde_json::json!({
            "file_format_version": "1.0.0", "ICD": { "library_path": library, "api_version": "1.3.0" },
        });
        fs::write(work.join("hostile.json"), manifest.to_string()).unwrap();
        vec![
            ("VK_ADD_DRIVER_FILES", path(&work.join("hostile.json"))),
            ("HOSTILE_REPORT", path(&work.join("report"))),
            ("HOSTILE_SECRET", path(&secret)),
            ("HOSTILE_IDENTITY", path(&home.join("identity.pk8"))),
            ("HOSTILE_BLOB", path(&home.join("blobs/planted"))),
            ("HOSTILE_NEW", path(&new)),
        ]
    });
    // It has no adapter that works, which is told as a fault of the device; or another driver's is used.
    let first = worker.hear();
    let Ok(report) = fs::read_to_string(worker.home.path().join("work/report")) else {
        assert!(std::env::var_os("CI").is_none(), "the Vulkan loader did not load the driver: {first:?}");
        return println!("skipped: there is no Vulkan loader here");
    };
    let report: BTreeMap<&str, [i32; 2]> = report
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?, [words.next()?.parse().ok()?, words.next()?.parse().ok()?]))
        })
        .collect();
    let sockets = ["socket_without_ends", "bind_it", "listen_on_it"];
    let needed = ["tgkill_itself", "read_itself", "read_sys", "read_library", "executable_memory", "write_cache"];
    let own = ["own_folder", "own_file", "rename_own"];
    let allowed = [&sockets[..], &needed[..], &own[..]].concat();
    let refusals = [io::Error::from_raw_os_error(1).kind(), io::ErrorKind::Unsupported];
    println!("{report:?}");
    assert!(report.len() >= 57, "it was ended before it had tried all: {report:?}");
    for (name, [result, code]) in report {
        if allowed.contains(&name) {
            assert_eq!(result, 0, "{name}: {}", io::Error::from_raw_os_error(code));
        } else {
            let error = io::Error::from_raw_os_error(code);
            assert!(result == -1 && refusals.contains(&error.kind()), "{name}: {result}, {error}");
        }
    }
    assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
    assert!(!new.exists());
}

/// What a worker is started with to have a GPU that fails (see `worker/failing_gpu.c`): `how` it does, by names of
/// files in the worker's folder and numbers.
fn failing_gpu(home: &Path, how: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    const NAME: &str = "VK_LAYER_NIGHTJAR_failing";
    let work = home.join("work");
    fs::create_dir_all(&work).unwrap();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/worker/failing_gpu.c");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(work.join("failing.so")).arg(source).status();
    assert!(built.expect("a C compiler, as Rust's linking needs one").success());
    let manifest = serde_json::json!({ "file_format_version": "1.2.0", "layer": {
        "name": NAME, "type": "GLOBAL", "library_path": work.join("failing.so"), "api_version": "1.3.0",
        "implementation_version": "1", "description": "a GPU that fails",
    }});
    fs::write(work.join("failing.json"), manifest.to_string()).unwrap();
    let path = |name: &str| work.join(name).display().to_string();
    let how = how.iter().map(|(key, value)| (*key, if *key == "MEMORY_MAX" { value.to_string() } else { path(value) }));
    [("VK_LAYER_PATH", path("")), ("VK_INSTANCE_LAYERS", NAME.into())].into_iter().chain(how).collect()
}

/// Whether a worker has opened its GPU; outside CI a machine may have none.
fn has_gpu(worker: &mut Worker) -> bool {
    let has_gpu = matches!(worker.hear(), Some(from_worker::Body::Ready(_)));
    if !has_gpu {
        assert!(std::env::var_os("CI").is_none(), "no wgpu adapter: install mesa-vulkan-drivers and libvulkan1");
        println!("skipped: this machine has no wgpu adapter");
    }
    has_gpu
}

/// A GPU goes away in the middle of a step, as when a dock is unplugged or a driver starts anew: a layer between
/// program and driver plays that. Burn's own threads die of it, and nobody would ever answer; the worker says what
/// happened and ends, and the next one goes on from its checkpoint.
#[test]
fn a_gpu_that_goes_away_is_said_and_the_next_worker_goes_on() {
    let layer = |home: &Path| failing_gpu(home, &[("VANISHED", "gone")]);
    let mut worker = Worker::start("wgpu", 60, layer);
    if !has_gpu(&mut worker) {
        return;
    }
    // Each step is saved.
    worker.lease.checkpoint_ms = 0;
    worker.train();
    let steps = |said: &from_worker::Body| if let from_worker::Body::Progress(p) = said { Some(p.steps) } else { None };
    let mut made = worker.hear_until(steps);
    let gone = worker.home.path().join("work/gone");
    fs::write(&gone, "").unwrap();
    let failed = loop {
        match worker.hear().expect("it says what happened") {
            from_worker::Body::Failed(failed) => break failed,
            from_worker::Body::Progress(progress) => made = progress.steps,
            other => panic!("{other:?}"),
        }
    };
    println!("after step {made}: {failed:?}");
    assert!(failed.device_failed && !failed.sentence.is_empty() && !failed.sentence.contains('\n'), "{failed:?}");

    fs::remove_file(gone).unwrap();
    worker.again("wgpu", layer);
    worker.ready();
    worker.train();
    assert!(worker.hear_until(steps) > made, "steps were made again");
}

/// Nobody tells how much of a GPU's memory is free. What a worker does not survive, the next one gives it half of.
#[test]
fn a_gpu_whose_memory_is_too_small_is_given_less() {
    let layer = |home: &Path| failing_gpu(home, &[("MEMORY_MAX", &MEMORY_MAX.to_string()), ("MEMORY_HELD", "held")]);
    let home = tempfile::tempdir().unwrap();
    let lease = synthetic::lease(&FolderDisk::open(home.path()).unwrap(), &model(), SAMPLES, 2).unwrap();
    let (child, stdout) = Worker::spawn("wgpu", home.path(), layer(home.path()));
    let mut worker = Worker { child, stdout, lease, tokens_per_s_max: 0.0, home };
    if !has_gpu(&mut worker) {
        return;
    }
    let mut failures = 0;
    loop {
        worker.train();
        let end = loop {
            match worker.hear().expect("it says what happened") {
                from_worker::Body::Progress(_) => {}
                end => break end,
            }
        };
        let held = fs::read_to_string(worker.home.path().join("work/held")).unwrap();
        println!("with {held} bytes: {end:?}");
        match end {
            from_worker::Body::Trained(trained) => break assert!(trained.loss_last.is_finite()),
            from_worker::Body::Failed(failed) => assert!(failed.device_failed, "{failed:?}"),
            other => panic!("{other:?}"),
        }
        failures += 1;
        assert!(failures <= 3, "after so many the agent leaves the GPU alone");
        worker.again("wgpu", layer);
        worker.ready();
    }
    assert!(failures > 0, "all of it fitted at once");
}

#[test]
fn limits_and_checkpoints_are_heard_while_it_trains() {
    let mut worker = Worker::start("flex", STEPS, |_| vec![]);
    worker.ready();
    let saved = |said: &from_worker::Body| if let from_worker::Body::Saved(saved) = said { Some(*saved) } else { None };
    worker.tell(to_worker::Body::Checkpoint(Checkpoint {}));
    assert_eq!(worker.hear_until(saved).lease_id, 0, "there is nothing to save");
    worker.train();
    worker.hear_until(|said| matches!(said, from_worker::Body::Progress(_)).then_some(()));
    worker.tell(to_worker::Body::Limits(Limits {
        duty: 0.9,
        threads: 1,
        memory_bytes: 1 << 30,
        tokens_per_s_max: TOKENS_PER_S,
    }));
    worker.tell(to_worker::Body::Checkpoint(Checkpoint {}));
    let saved = worker.hear_until(saved);
    assert!(saved.lease_id == 1 && saved.steps > 0, "{saved:?}");
    let disk = FolderDisk::open(worker.home.path()).unwrap();
    let slots = disk.list("work").unwrap().into_iter().filter(|name| name.starts_with("checkpoint.")).count();
    assert_eq!(slots, 1);
    // Killed without a word, its successor goes on from there.
    worker.signal(Signal::KILL);
    let steps = resumed(worker);
    assert!(steps >= saved.steps, "{steps} of {saved:?}");
}

/// Starts another worker on the same home and stops it at once; the steps that it reports are those it found.
fn resumed(mut worker: Worker) -> u32 {
    while worker.hear().is_some() {}
    let mut command = Command::new(binary("nightjar"));
    command.args(["worker", "serve", "--device", "flex", "--threads", "1", "--state"]).arg(worker.home.path());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    worker.stdout = child.stdout.take().unwrap();
    let _ = std::mem::replace(&mut worker.child, child).wait();
    worker.ready();
    worker.train();
    worker.tell(to_worker::Body::Stop(Stop {}));
    worker.hear_until(|said| if let from_worker::Body::Trained(t) = said { Some(t.steps) } else { None })
}

/// Frozen it cannot see its pipe close; it must not outlive the agent all the same, holding the owner's memory.
#[test]
fn a_frozen_worker_ends_with_its_agent() {
    let place = Place::new(Size { text_bytes: 100_000, token_budget: 100_000_000 });
    let coordinator = place.start_coordinator();
    place.join("volunteer", "volunteer");
    let mut volunteer = place.start_volunteer("volunteer");
    let worker = until("a worker", || {
        descendants(volunteer.id()).into_iter().find(|id| of_threads(*id, "Seccomp:").contains(&"2".into()))
    });
    kill_process(Pid::from_raw(worker as i32).unwrap(), Signal::STOP).unwrap();
    until("the worker frozen", || {
        of_threads(worker, "State:").iter().all(|state| state.starts_with('T')).then_some(())
    });
    volunteer.kill();
    until("the worker's end", || (!is_alive(worker)).then_some(()));
    coordinator.stop().good();
}
