//! The program as a person meets it: what it prints, what it refuses, and what a kill leaves.

use crate::{
    bed::Bed,
    device::{Device, closed, trained},
};
use nightjar_shared::{
    invite,
    run_spec::RunSpec,
    wire::{LeaseRequest, RefusalCode, Role, coordinator_message as answer, device_message as ask},
};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, UdpSocket},
    process::{Child, ChildStdout, Command, Output, Stdio},
};

pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightjar-coordinator"));
    command.env_remove("RUST_LOG");
    command
}

pub fn serve_command(bed: &Bed) -> Command {
    let mut command = program();
    command.args(["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--run"]).arg(bed.run_file());
    command.arg("--data").arg(bed.data()).arg("--state").arg(bed.state());
    if bed.web {
        command.arg("--web");
    }
    command
}

pub fn of_run(bed: &Bed, args: &[&str]) -> Output {
    let mut command = program();
    command.args(args).arg("--data").arg(bed.data()).arg("--state").arg(bed.state());
    command.output().unwrap()
}

/// A serving process; dropped, it is killed, as by a power cut.
pub struct Process {
    pub child: Child,
    pub address: SocketAddr,
    /// The status page's.
    pub http: SocketAddr,
    /// Kept open, as a terminal would be.
    pub lines: Option<BufReader<ChildStdout>>,
}

impl Process {
    /// Bytes of memory that it takes.
    #[cfg(target_os = "linux")]
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// Starts it and waits until it is ready.
    pub fn start(bed: &Bed) -> Self {
        Self::of(serve_command(bed).stdout(Stdio::piped()).spawn().unwrap())
    }

    pub fn of(child: Child) -> Self {
        let nowhere: SocketAddr = ([0; 4], 0).into();
        let mut process = Process { child, address: nowhere, http: nowhere, lines: None };
        let mut lines = BufReader::new(process.child.stdout.take().unwrap());
        loop {
            let mut line = String::new();
            assert_ne!(lines.read_line(&mut line).unwrap(), 0, "it ended before it was ready");
            if let Some(page) = line.strip_prefix("page      http://") {
                process.http = page.trim().trim_end_matches('/').parse().unwrap();
            }
            if let Some(address) = line.strip_prefix("ready: ") {
                process.address = address.trim().parse().unwrap();
                process.lines = Some(lines);
                return process;
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn refused(output: &Output, words: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.starts_with("error: ") && text.contains(words), "{words}: {text}");
    assert!(!text.contains("panicked"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_and_started_again_nothing_acknowledged_is_lost() {
    let bed = Bed::new();
    let device = Device::new(&bed);
    let process = Process::start(&bed);
    let mut link = device.join(process.address, bed.invite(Role::Volunteer)).await;
    let mut acknowledged = vec![];
    for seed in 0..3 {
        let lease = link.lease(LeaseRequest::default()).await;
        let (delta, offer) = trained(&bed.spec.model, &lease, seed);
        link.upload(lease.id, &delta).await.unwrap();
        assert!(
            matches!(link.ask(ask::Body::DeltaOffer(offer.clone())).await, answer::Body::Done(done) if done.merged)
        );
        acknowledged.push(offer);
    }
    drop(process);

    let process = Process::start(&bed);
    let mut link = device.join(process.address, vec![]).await;
    let last = acknowledged.pop().unwrap();
    assert!(matches!(link.ask(ask::Body::DeltaOffer(last)).await, answer::Body::Done(done) if done.merged));
    let verified = of_run(&bed, &["verify"]);
    assert!(verified.status.success(), "{verified:?}");
    drop(process);

    let stats = of_run(&bed, &["stats", "--json"]);
    let stats: serde_json::Value = serde_json::from_slice(&stats.stdout).unwrap_or_else(|e| panic!("{e}: {stats:?}"));
    assert_eq!((&stats["merged"], &stats["acknowledged"], &stats["duplicates"]), (&3.into(), &3.into(), &0.into()));
    assert_eq!((&stats["lost_samples"], &stats["devices"][0]["leases"]), (&0.into(), &3.into()));
    let table = of_run(&bed, &["stats"]);
    assert!(String::from_utf8_lossy(&table.stdout).contains("deltas acknowledged             3"), "{table:?}");

    let model = bed.path("model");
    let exported = of_run(&bed, &["export", model.to_str().unwrap()]);
    assert!(exported.status.success() && model.join("model.safetensors").exists(), "{exported:?}");
    refused(&of_run(&bed, &["export", model.to_str().unwrap(), "--version", "99"]), "there is no version 99");

    // A flipped bit in a merged delta does not go unnoticed.
    let name = acknowledged[0].delta.as_ref().and_then(|blob| blob.name()).unwrap();
    let blob = bed.state().join("blobs").join(name.to_string());
    let mut bytes = fs::read(&blob).unwrap();
    bytes[20] ^= 1;
    fs::write(&blob, bytes).unwrap();
    let verified = of_run(&bed, &["verify"]);
    assert_eq!(verified.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&verified.stdout).contains("FAILED"), "{verified:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_and_limits_of_a_run_may_change() {
    let bed = Bed::new();
    let device = Device::new(&bed);
    let welcome = async |process: &Process| match device
        .link(process.address)
        .await
        .hello(bed.invite(Role::Volunteer), Role::Volunteer)
        .await
    {
        answer::Body::Welcome(welcome) => welcome,
        other => panic!("{other:?}"),
    };
    let process = Process::start(&bed);
    let first = welcome(&process).await;
    drop(process);
    let changed = RunSpec { description: "for the school".into(), token_budget: 200_000_000, ..bed.spec.clone() };
    fs::write(bed.run_file(), toml::to_string(&changed).unwrap()).unwrap();
    // Twice: what was changed is not changed again.
    for _ in 0..2 {
        let second = welcome(&Process::start(&bed)).await;
        assert_eq!(second.run_id, first.run_id, "the run is another one");
        assert_eq!(serde_json::from_str::<RunSpec>(&second.run_spec_json).unwrap(), changed);
    }
    fs::write(bed.run_file(), bed.run_toml()).unwrap();
    refused(
        &serve_command(&bed).output().unwrap(),
        "different run.toml (token_budget is 100000000, was 200000000; the budget",
    );
}

#[test]
fn bad_input_gets_one_clear_message() {
    let bed = Bed::new();
    let good = bed.run_toml();
    let with_run = |text: &str| {
        fs::write(bed.run_file(), text).unwrap();
        let output = serve_command(&bed).output().unwrap();
        fs::write(bed.run_file(), &good).unwrap();
        output
    };
    refused(
        &with_run("name = \"x\"\ntoken_budget = 5\nlearning = 3"),
        "run.toml:3:1: learning is no key of a run file",
    );
    refused(&with_run("name = "), "run.toml:1:");
    refused(&with_run(&good.replace("max_position_embeddings = 8", "max_position_embeddings = 16")), "--context 16");
    refused(&with_run(&good.replace("vocab_size = 256", "vocab_size = 4")), "model.vocab_size = 256");
    refused(&with_run(&good.replace("batch_samples = 4", "batch_samples = 60000")), "smaller batch");
    refused(
        &program().args(["serve", "--run", "nowhere.toml", "--data", "x", "--state", "y"]).output().unwrap(),
        "there is no run file",
    );

    let mut elsewhere = serve_command(&bed);
    refused(&elsewhere.arg("--init").arg(bed.path("nothing")).output().unwrap(), "config.json");
    let mut public = program();
    public.args(["serve", "--listen", "127.0.0.1:0", "--http", "0.0.0.0:0", "--run"]).arg(bed.run_file());
    refused(
        &public.arg("--data").arg(bed.data()).arg("--state").arg(bed.path("other")).output().unwrap(),
        "no password",
    );
    let mut no_data = program();
    no_data
        .args(["serve", "--run"])
        .arg(bed.run_file())
        .arg("--data")
        .arg(bed.path("none"))
        .arg("--state")
        .arg(bed.state());
    refused(&no_data.output().unwrap(), "dataset prepare");

    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut same_port = program();
    same_port.args(["serve", "--listen", &taken.local_addr().unwrap().to_string(), "--http", "127.0.0.1:0", "--run"]);
    same_port.arg(bed.run_file()).arg("--data").arg(bed.data()).arg("--state").arg(bed.path("third"));
    refused(&same_port.output().unwrap(), "in use by another program");

    refused(&of_run(&bed, &["verify"]), "there is no state folder");
}

#[test]
fn a_state_folder_has_one_coordinator_and_one_run() {
    let bed = Bed::new();
    let early = program().args(["invite", "--address", "h:1", "--state"]).arg(bed.state()).output().unwrap();
    refused(&early, "there is no state folder");
    let process = Process::start(&bed);
    refused(&serve_command(&bed).output().unwrap(), "another coordinator is running");
    let link = program()
        .args(["invite", "--address", "my.host:4433", "h:2", "--role", "anchor", "--state"])
        .arg(bed.state())
        .output();
    let link = String::from_utf8(link.unwrap().stdout).unwrap();
    let token = invite::from_link(&link).unwrap();
    let opened = bed.identity().check_invite(&token, nightjar_coordinator::server::wall_now()).unwrap();
    assert_eq!(
        (opened.addresses.as_slice(), opened.role()),
        (["my.host:4433".to_owned(), "h:2".into()].as_slice(), Role::Anchor)
    );
    assert_eq!(opened.run_name, "bed");
    assert_eq!(link.lines().count(), 1);
    drop(process);
    fs::write(bed.run_file(), bed.run_toml().replace("quorum = 1", "quorum = 2")).unwrap();
    refused(&serve_command(&bed).output().unwrap(), "different run.toml");
}

#[test]
fn a_model_that_cannot_fit_is_refused_before_anything_is_drawn() {
    let bed = Bed::new();
    let mut spec = bed.spec.clone();
    (spec.model.hidden_size, spec.model.intermediate_size, spec.model.num_hidden_layers) = (65_536, 262_144, 512);
    fs::write(bed.run_file(), toml::to_string(&spec).unwrap()).unwrap();
    let output = serve_command(&bed).output().unwrap();
    refused(&output, "of memory to serve");
    refused(&output, "run.toml");
    assert!(!bed.state().join("ledger.sqlite").exists());
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_it_in_order_and_devices_hear_of_it() {
    for signal in ["-TERM", "-INT"] {
        let bed = Bed::new();
        let device = Device::new(&bed);
        let mut process = Process::start(&bed);
        let link = device.join(process.address, bed.invite(Role::Volunteer)).await;
        signalled(&process.child, signal);
        let why = closed(&link.connection).await;
        assert!(why.to_string().contains("the coordinator is stopping"), "{signal}: {why}");
        assert!(process.child.wait().unwrap().success(), "{signal}");
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_run_is_told_to_devices_and_operator() {
    let mut bed = Bed::new();
    bed.spec.token_budget = 128;
    fs::write(bed.run_file(), bed.run_toml()).unwrap();
    let device = Device::new(&bed);
    let mut process = Process::start(&bed);
    let mut link = device.join(process.address, bed.invite(Role::Volunteer)).await;
    let lease = link.lease(LeaseRequest::default()).await;
    let (delta, offer) = trained(&bed.spec.model, &lease, 1);
    link.upload(lease.id, &delta).await.unwrap();
    assert!(matches!(link.ask(ask::Body::DeltaOffer(offer)).await, answer::Body::Done(done) if done.merged));
    match link.ask(ask::Body::LeaseRequest(LeaseRequest::default())).await {
        answer::Body::Refusal(refusal) => assert_eq!(refusal.code(), RefusalCode::RunOver, "{refusal:?}"),
        other => panic!("{other:?}"),
    }
    let (mut lines, mut said) = (process.lines.take().unwrap(), String::new());
    while !said.lines().any(|line| line.starts_with("version 1 ")) {
        assert_ne!(lines.read_line(&mut said).unwrap(), 0, "it ended: {said}");
    }
    signalled(&process.child, "-TERM");
    lines.read_to_string(&mut said).unwrap();
    assert!(said.lines().any(|line| line.starts_with("over ") && line.contains("budget is used up")), "{said}");
}

#[cfg(unix)]
pub fn signalled(child: &Child, signal: &str) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

#[cfg(unix)]
#[test]
fn a_long_start_says_how_far_it_is_and_ends_when_asked_to() {
    let bed = Bed::new();
    let mut spec = bed.spec.clone();
    (spec.model.hidden_size, spec.model.intermediate_size, spec.model.num_hidden_layers) = (1024, 8192, 5);
    fs::write(bed.run_file(), toml::to_string(&spec).unwrap()).unwrap();
    let child = serve_command(&bed).stdout(Stdio::piped()).spawn().unwrap();
    let nowhere: SocketAddr = ([0; 4], 0).into();
    let mut process = Process { child, address: nowhere, http: nowhere, lines: None };
    let mut lines = BufReader::new(process.child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let said = lines.find(|line| line.starts_with("starting ") || line.starts_with("ready:")).unwrap();
    assert!(said.contains("first weights") && said.contains('%'), "{said}");
    signalled(&process.child, "-INT");
    let rest: Vec<String> = lines.collect();
    assert!(rest.iter().any(|line| line.starts_with("stopped before it was ready")), "{rest:?}");
    assert!(process.child.wait().unwrap().success());
}

/// Threads of a process.
#[cfg(target_os = "linux")]
fn threads(child: &Child) -> usize {
    fs::read_dir(format!("/proc/{}/task", child.id())).unwrap().count()
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn many_uploads_take_few_threads() {
    let bed = Bed::new();
    let process = Process::start(&bed);
    let (invite, mut links) = (bed.invite(Role::Volunteer), vec![]);
    for _ in 0..96 {
        let mut link = Device::new(&bed).join(process.address, invite.clone()).await;
        let lease = link.lease(LeaseRequest::default()).await;
        links.push((link, lease));
    }
    let mut tasks = tokio::task::JoinSet::new();
    for (seed, (mut link, lease)) in links.into_iter().enumerate() {
        let (delta, offer) = trained(&bed.spec.model, &lease, seed as u64);
        tasks.spawn(async move {
            link.upload(lease.id, &delta).await.unwrap();
            matches!(link.ask(ask::Body::DeltaOffer(offer)).await, answer::Body::Done(_))
        });
    }
    let mut most = 0;
    while let Some(done) = tasks.join_next().await {
        assert!(done.unwrap());
        most = most.max(threads(&process.child));
    }
    let cores = std::thread::available_parallelism().unwrap().get();
    assert!(most <= cores + 16 + 8, "{most} threads on {cores} cores");
}

/// A state folder on a disk of its own, which only the coordinator's process sees: a process of a mount namespace of
/// its own. `None` where this machine forbids that.
#[cfg(target_os = "linux")]
fn on_a_small_disk(bed: &Bed) -> Option<Process> {
    // What a start that was cut short has made, and no more: a mark and a key.
    let begun = bed.path("begun");
    fs::create_dir(&begun).unwrap();
    for name in ["coordinator.pk8", nightjar_shared::mark::MARK_FILE] {
        fs::copy(bed.state().join(name), begun.join(name)).unwrap();
    }
    let inside = |script: &str| {
        let mut command = Command::new("unshare");
        let state = bed.state().display().to_string();
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
        command.arg(format!("mount -t tmpfs -o size=3m tmpfs {state} && cp {}/* {state} && {script}", begun.display()));
        command
    };
    if !inside("true").status().is_ok_and(|status| status.success()) {
        println!("skipped: this machine allows no mounts in a namespace of one's own");
        return None;
    }
    let serve = serve_command(bed);
    let words = [serve.get_program()].into_iter().chain(serve.get_args()).map(|word| format!("'{}'", word.display()));
    let mut command = inside(&format!("exec {}", words.collect::<Vec<_>>().join(" ")));
    Some(Process::of(command.stdout(Stdio::piped()).spawn().unwrap()))
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_others_fill_up_ends_nothing() {
    let bed = Bed::new();
    // The key is made here, where the test sees it too: it signs the invite.
    bed.identity();
    let Some(process) = on_a_small_disk(&bed) else { return };
    let inside = |name: &str| format!("/proc/{}/root{}/{name}", process.child.id(), bed.state().display());
    let device = Device::new(&bed);
    let mut link = device.join(process.address, bed.invite(Role::Volunteer)).await;
    let lease = link.lease(LeaseRequest::default()).await;

    // Somebody else takes all the room that is left.
    let ballast = inside("ballast");
    let mut file = fs::File::create(&ballast).unwrap();
    while file.write_all(&[7; 4096]).is_ok() {}
    drop(file);
    // What changes the ledger is written all the same: the room for it was kept.
    let back =
        nightjar_shared::wire::LeaseReturn { lease_id: lease.id, generation: lease.generation, why: String::new() };
    assert!(matches!(link.ask(ask::Body::LeaseReturn(back)).await, answer::Body::Done(_)));
    match link.ask(ask::Body::LeaseRequest(LeaseRequest::default())).await {
        answer::Body::Refusal(refusal) => assert!(refusal.sentence.contains("disk is full"), "{refusal:?}"),
        other => panic!("{other:?}"),
    }

    fs::remove_file(&ballast).unwrap();
    for seed in 0..3 {
        let lease = loop {
            match link.ask(ask::Body::LeaseRequest(LeaseRequest::default())).await {
                answer::Body::Lease(lease) => break lease,
                _ => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
            }
        };
        let (delta, offer) = trained(&bed.spec.model, &lease, seed);
        link.upload(lease.id, &delta).await.unwrap();
        assert!(matches!(link.ask(ask::Body::DeltaOffer(offer)).await, answer::Body::Done(done) if done.merged));
    }
    signalled(&process.child, "-TERM");
}

#[test]
fn a_start_is_held_against_what_can_be_published_and_read_once() {
    let bed = Bed::new();
    drop(Process::start(&bed));
    let model = bed.path("model");
    assert!(of_run(&bed, &["export", model.to_str().unwrap()]).status.success());
    let state = bed.path("other");
    let serve = || {
        let mut command = program();
        command.args(["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--run"]).arg(bed.run_file());
        command.arg("--data").arg(bed.data()).arg("--state").arg(&state).arg("--init").arg(&model);
        command
    };
    let file = model.join("model.safetensors");
    let sound = fs::read(&file).unwrap();
    let mut bytes = sound.clone();
    bytes.truncate(sound.len() - 4);
    bytes.extend(f32::MAX.to_le_bytes());
    fs::write(&file, bytes).unwrap();
    refused(&serve().output().unwrap(), "holds the value 3.4028235e38; a weight that a run starts from must be");
    assert!(!state.exists());

    // Once the run has begun, the folder is not looked at any more: damaged, or gone.
    fs::write(&file, sound).unwrap();
    drop(Process::of(serve().stdout(Stdio::piped()).spawn().unwrap()));
    fs::write(&file, "damaged").unwrap();
    drop(Process::of(serve().stdout(Stdio::piped()).spawn().unwrap()));
    fs::remove_dir_all(&model).unwrap();
    drop(Process::of(serve().stdout(Stdio::piped()).spawn().unwrap()));
}
