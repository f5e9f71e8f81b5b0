//! What a lab's tools see of a coordinator, and what they may ask of it: figures, readiness, the log, an end in order,
//! another run file, a service manager.

use crate::{
    bed::{Bed, Serving, get, get_as},
    command_line::{Process, of_run, program, serve_command, signalled},
    device::{Device, Link, closed, message, trained},
    hold::Told,
};
use nightjar_coordinator::server::{Wish, metrics::table};
use nightjar_shared::{
    run_spec::RunSpec,
    wire::{
        BlobStored, Lease, LeaseRequest, Refusal, RefusalAction, RefusalCode, Role, coordinator_message as answer,
        device_message as ask,
    },
};
use sqlx::{ConnectOptions, sqlite::SqliteConnectOptions};
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    os::unix::net::UnixDatagram,
    process::{Command, Stdio},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

/// All samples by name and labels.
fn figures(http: SocketAddr) -> BTreeMap<String, f64> {
    let text = get(http, "/metrics");
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
            (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}")))
        })
        .collect()
}

async fn figures_of(server: &Serving) -> BTreeMap<String, f64> {
    let http = server.http;
    tokio::task::spawn_blocking(move || figures(http)).await.unwrap()
}

/// Code and sentence of `/readyz`.
async fn readiness(http: SocketAddr) -> (u16, String) {
    let answer = tokio::task::spawn_blocking(move || get_as("localhost", http, "/readyz")).await.unwrap().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.trim().to_owned())
}

/// Waits until `/readyz` says so.
async fn until_it_says(http: SocketAddr, code: u16, words: &str) {
    let mut said = (0, String::new());
    for _ in 0..400 {
        said = readiness(http).await;
        if said.0 == code && said.1.contains(words) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it never said {code} {words}: {said:?}");
}

async fn refusal(link: &mut Link) -> Refusal {
    match link.ask(ask::Body::LeaseRequest(LeaseRequest::default())).await {
        answer::Body::Refusal(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

/// Trains a lease and has its delta merged.
async fn work(bed: &Bed, link: &mut Link, seed: u64) -> Lease {
    let lease = link.lease(LeaseRequest::default()).await;
    let (delta, offer) = trained(&bed.spec.model, &lease, seed);
    link.upload(lease.id, &delta).await.unwrap();
    assert!(matches!(link.ask(ask::Body::DeltaOffer(offer)).await, answer::Body::Done(done) if done.merged));
    lease
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_is_told_what_happens() {
    let bed = Bed::new();
    let server = bed.serve().await;
    let mut link = Device::new(&bed).join(server.address, bed.invite(Role::Volunteer)).await;
    work(&bed, &mut link, 1).await;
    let lease = link.lease(LeaseRequest::default()).await;
    let (_, offer) = trained(&bed.spec.model, &lease, 2);
    let too_much = nightjar_shared::wire::DeltaOffer { steps: lease.steps + 1, ..offer };
    assert!(matches!(link.ask(ask::Body::DeltaOffer(too_much)).await, answer::Body::Refusal(_)));
    // What only the event loop knows is a second old at most.
    let mut told = figures_of(&server).await;
    while told.get("nightjar_deltas_refused_total{reason=\"offer\"}") != Some(&1.0) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        told = figures_of(&server).await;
    }
    let wanted = [
        ("nightjar_ready", 1.0),
        ("nightjar_draining", 0.0),
        ("nightjar_trouble{who=\"ledger\"}", 0.0),
        ("nightjar_run_info{run=\"bed\"}", 1.0),
        ("nightjar_run_budget_tokens", 1e8),
        ("nightjar_leases_granted_total{kind=\"train\"}", 2.0),
        ("nightjar_leases_granted_total{kind=\"evaluate\"}", 0.0),
        ("nightjar_leases_settled_total{outcome=\"merged\"}", 1.0),
        ("nightjar_leases_settled_total{outcome=\"screened_out\"}", 1.0),
        ("nightjar_leases_open", 0.0),
        ("nightjar_deltas_merged_total", 1.0),
        ("nightjar_deltas_refused_total{reason=\"stale\"}", 0.0),
        ("nightjar_devices_enrolled", 1.0),
        ("nightjar_devices_online", 1.0),
        ("nightjar_strangers", 0.0),
        ("nightjar_uploads", 0.0),
        ("nightjar_merge_duration_seconds_count", 1.0),
        ("nightjar_disk_full", 0.0),
    ];
    for (name, value) in wanted {
        assert_eq!(told.get(name), Some(&value), "{name}: {told:#?}");
    }
    for name in ["nightjar_run_tokens_total", "nightjar_received_bytes_total", "nightjar_sent_bytes_total"] {
        assert!(told[name] > 0.0, "{name}");
    }
    assert!(told["nightjar_ledger_records_total"] >= told["nightjar_ledger_commit_duration_seconds_count"]);
    assert!(told["nightjar_ledger_commit_duration_seconds_count"] >= 5.0);
    // A first one may have been told that the run is about to start.
    assert!(told["nightjar_lease_request_duration_seconds_count"] >= 2.0);
    assert!(told["process_resident_memory_bytes"] > 1e6);

    // Each row of the table is in the text, and nothing is told of a single device.
    let http = server.http;
    let text = tokio::task::spawn_blocking(move || get(http, "/metrics")).await.unwrap();
    let heads: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let names: Vec<&str> = heads.iter().map(|head| head.split(' ').next().unwrap()).collect();
    assert_eq!(names, table::all().map(|metric| metric.name).collect::<Vec<_>>());
    assert!(!text.contains("device</b>"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_says_why_no_lease_can_be_granted() {
    let bed = Bed::new();
    let free = Arc::new(AtomicU64::new(1 << 29));
    let server = bed.serve_on(Box::new(Told(free.clone()))).await;
    until_it_says(server.http, 200, "ok").await;
    assert_eq!(get_as("localhost", server.http, "/healthz").unwrap().split(' ').nth(1), Some("200"));

    free.store(1000, std::sync::atomic::Ordering::Relaxed);
    until_it_says(server.http, 503, "the disk is full").await;
    assert_eq!(figures_of(&server).await["nightjar_trouble{who=\"disk\"}"], 1.0);
    free.store(1 << 29, std::sync::atomic::Ordering::Relaxed);
    until_it_says(server.http, 200, "ok").await;

    // The event loop waits for its ledger; this does not wait for the event loop.
    let ledger = SqliteConnectOptions::new().filename(bed.state().join("ledger.sqlite"));
    let mut locker = ledger.connect().await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut locker).await.unwrap();
    let link = Device::new(&bed).link(server.address).await;
    let (invite, mut link) = (bed.invite(Role::Volunteer), link);
    let asked = tokio::spawn(async move { link.hello(invite, Role::Volunteer).await });
    until_it_says(server.http, 503, "locked by another program").await;
    let told = figures_of(&server).await;
    assert_eq!((told["nightjar_ready"], told["nightjar_trouble{who=\"ledger\"}"]), (0.0, 1.0));
    assert!(told["nightjar_ledger_retries_total"] >= 1.0);
    sqlx::query("ROLLBACK").execute(&mut locker).await.unwrap();
    assert!(matches!(asked.await.unwrap(), answer::Body::Welcome(_)));
    until_it_says(server.http, 200, "ok").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_lets_an_upload_that_is_on_its_way_be_merged() {
    let bed = Bed::new();
    let device = Device::new(&bed);
    let mut process = Process::start(&bed);
    let mut link = device.join(process.address, bed.invite(Role::Volunteer)).await;
    let mut idle = Device::new(&bed).join(process.address, bed.invite(Role::Volunteer)).await;
    let lease = link.lease(LeaseRequest::default()).await;
    let (delta, offer) = trained(&bed.spec.model, &lease, 1);
    let (mut send, mut receive, start) = link.put(lease.id, offer.delta.clone().unwrap()).await;
    assert_eq!(start, Ok(0));
    send.write_all(&delta[..delta.len() / 2]).await.unwrap();

    signalled(&process.child, "-TERM");
    until_it_says(process.http, 503, "is stopping").await;
    let told = refusal(&mut idle).await;
    assert_eq!((told.code(), told.action()), (RefusalCode::Busy, RefusalAction::Retry), "{told:?}");
    assert!(told.retry_ms > 0 && told.sentence.contains("about to be stopped"), "{told:?}");

    send.write_all(&delta[delta.len() / 2..]).await.unwrap();
    send.finish().unwrap();
    assert_eq!(message::<BlobStored>(&mut receive).await.refusal, None);
    assert!(matches!(link.ask(ask::Body::DeltaOffer(offer)).await, answer::Body::Done(done) if done.merged));
    let why = closed(&link.connection).await;
    assert!(why.to_string().contains("the coordinator is stopping"), "{why}");
    assert!(process.child.wait().unwrap().success());
    let mut said = String::new();
    process.lines.take().unwrap().read_to_string(&mut said).unwrap();
    let order = ["stopping ", "version 1 ", "stopped: "].map(|line| said.find(line));
    assert!(order.is_sorted() && order[0].is_some(), "{said}");

    let stats: serde_json::Value = serde_json::from_slice(&of_run(&bed, &["stats", "--json"]).stdout).unwrap();
    assert_eq!((&stats["merged"], &stats["lost_samples"]), (&1.into(), &0.into()));
    assert!(of_run(&bed, &["verify"]).status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once_and_loses_nothing() {
    let bed = Bed::new();
    let device = Device::new(&bed).dawdling();
    let mut process = Process::start(&bed);
    let mut link = device.join(process.address, bed.invite(Role::Volunteer)).await;
    let lease = link.lease(LeaseRequest::default()).await;
    let (delta, offer) = trained(&bed.spec.model, &lease, 1);
    let (mut send, _receive, start) = link.put(lease.id, offer.delta.clone().unwrap()).await;
    assert_eq!(start, Ok(0));
    send.write_all(&delta[..delta.len() / 2]).await.unwrap();
    signalled(&process.child, "-INT");
    until_it_says(process.http, 503, "is stopping").await;
    assert!(process.child.try_wait().unwrap().is_none(), "it waits for the upload");
    signalled(&process.child, "-TERM");
    assert!(process.child.wait().unwrap().success());
    drop(link);

    // The upload goes on where it was, and its delta counts.
    let process = Process::start(&bed);
    let mut link = device.join(process.address, vec![]).await;
    let (mut send, mut receive, start) = link.put(lease.id, offer.delta.clone().unwrap()).await;
    assert_eq!(start, Ok(delta.len() as u64 / 2));
    send.write_all(&delta[delta.len() / 2..]).await.unwrap();
    send.finish().unwrap();
    assert_eq!(message::<BlobStored>(&mut receive).await.refusal, None);
    assert!(matches!(link.ask(ask::Body::DeltaOffer(offer)).await, answer::Body::Done(done) if done.merged));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_never_ends_its_upload_does_not_hold_up_the_end() {
    let bed = Bed::new();
    let server = bed.serve().await;
    let mut link = Device::new(&bed).dawdling().join(server.address, bed.invite(Role::Volunteer)).await;
    let lease = link.lease(LeaseRequest::default()).await;
    let (delta, offer) = trained(&bed.spec.model, &lease, 1);
    let (mut send, _receive, _) = link.put(lease.id, offer.delta.clone().unwrap()).await;
    send.write_all(&delta[..8]).await.unwrap();
    server.wish.send(Wish::End).await.unwrap();
    // Whoever waits for it here waits for the connection's end: the coordinator's own bound is 10 seconds.
    let why = tokio::time::timeout(Duration::from_secs(60), link.connection.closed()).await.expect("it hangs");
    assert!(why.to_string().contains("the coordinator is stopping"), "{why}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_file_is_read_again_while_the_run_is_served() {
    let bed = Bed::new();
    let device = Device::new(&bed);
    let mut process = Process::start(&bed);
    let mut lines = process.lines.take().unwrap();
    let mut next = |begins: &str| loop {
        let mut line = String::new();
        assert_ne!(lines.read_line(&mut line).unwrap(), 0, "it ended");
        if line.starts_with(begins) {
            return line;
        }
    };
    let mut reload = |text: &str, begins: &str| {
        fs::write(bed.run_file(), text).unwrap();
        signalled(&process.child, "-HUP");
        next(begins)
    };
    let mut link = device.join(process.address, bed.invite(Role::Volunteer)).await;
    let changed = RunSpec { description: "for the school".into(), token_budget: 200_000_000, ..bed.spec.clone() };
    let said = reload(&toml::to_string(&changed).unwrap(), "reloaded ");
    assert!(said.contains("description is \"for the school\", was"), "{said}");

    // What decides the weights stays, and a file that cannot be read changes nothing.
    let said = reload(&bed.run_toml().replace("quorum = 1", "quorum = 2"), "refused ");
    assert!(said.contains("merge.quorum is 2, was 1; that key is fixed"), "{said}");
    let said = reload("name = \"bed\"\ntoken_budget = lots\n", "refused ");
    assert!(said.contains("run.toml:2:"), "{said}");
    let said = reload(&toml::to_string(&changed).unwrap(), "reloaded ");
    assert!(said.contains("nothing new"), "{said}");

    // The engine works on under it, devices learn it at their next hello, and the ledger has it.
    let status: serde_json::Value = serde_json::from_str(&get(process.http, "/api/status")).unwrap();
    assert_eq!(status["token_budget"], 200_000_000);
    match link.hello(vec![], Role::Volunteer).await {
        answer::Body::Welcome(welcome) => {
            assert_eq!(serde_json::from_str::<RunSpec>(&welcome.run_spec_json).unwrap(), changed);
        }
        other => panic!("{other:?}"),
    }
    work(&bed, &mut link, 1).await;
    drop(process);
    let child = serve_command(&bed).stdout(Stdio::piped()).spawn().unwrap();
    let mut started = Process { child, address: ([0; 4], 0).into(), http: ([0; 4], 0).into(), lines: None };
    let lines = BufReader::new(started.child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let said: Vec<String> = lines.take_while(|line| !line.starts_with("ready: ")).collect();
    assert!(said.iter().any(|line| line.starts_with("run ")), "{said:?}");
    assert!(!said.iter().any(|line| line.contains(", was ")), "the ledger did not have it: {said:?}");
}

#[test]
fn the_service_manager_is_told() {
    let bed = Bed::new();
    let path = bed.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let serve = serve_command(&bed);
    let mut command = Command::new("sh");
    // The watchdog is meant for this process and no child of it.
    command.args(["-c", "WATCHDOG_PID=$$ exec \"$0\" \"$@\""]).arg(serve.get_program()).args(serve.get_args());
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "600000").stdout(Stdio::piped());
    let mut process = Process::of(command.spawn().unwrap());
    let mut told = String::new();
    let mut until = |words: &str| {
        while !told.contains(words) {
            let mut datagram = [0; 1024];
            let n = socket.recv(&mut datagram).unwrap_or_else(|error| panic!("{words} never came ({error}): {told}"));
            told.push_str(std::str::from_utf8(&datagram[..n]).unwrap());
        }
    };
    until("READY=1");
    until("STATUS=version 0, 0 leases are out");
    until("WATCHDOG=1");
    signalled(&process.child, "-TERM");
    until("STOPPING=1");
    assert!(process.child.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_can_be_read_by_tools_and_names_lease_and_device() {
    let bed = Bed::new();
    let device = Device::new(&bed);
    let mut command = serve_command(&bed);
    let mut child =
        command.args(["-vv", "--log-format", "json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(|line| {
        let line = line.unwrap();
        serde_json::from_str::<serde_json::Value>(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    });
    let mut process = Process { child, address: ([0; 4], 0).into(), http: ([0; 4], 0).into(), lines: None };
    let ready = lines.find(|line| line["message"].as_str().is_some_and(|said| said.starts_with("ready: "))).unwrap();
    assert_eq!(ready["level"], "INFO");
    process.address = ready["message"].as_str().unwrap().trim_start_matches("ready: ").parse().unwrap();
    let mut link = device.join(process.address, bed.invite(Role::Volunteer)).await;
    let lease = work(&bed, &mut link, 1).await;
    for message in ["a lease was issued", "a delta is to be merged", "a lease has ended"] {
        let line = lines.find(|line| line["message"] == message).unwrap();
        assert_eq!(line["lease"], lease.id, "{line}");
        assert!(line["device"].as_str().is_some_and(|device| device.len() == 8), "{line}");
    }
    signalled(&process.child, "-TERM");
    assert!(lines.any(|line| line["message"].as_str().is_some_and(|said| said.starts_with("stopped: "))));
    assert!(process.child.wait().unwrap().success());
    let mut said = String::new();
    stdout.read_to_string(&mut said).unwrap();
    assert_eq!(said, "", "all of it is in the log");
}

/// All that is below a folder, with how long it is.
fn everything(folder: &std::path::Path) -> BTreeMap<std::path::PathBuf, u64> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let about = entry.metadata().unwrap();
        if about.is_dir() {
            found.extend(everything(&entry.path()));
        }
        found.insert(entry.path(), if about.is_dir() { 0 } else { about.len() });
    }
    found
}

#[test]
fn a_check_tells_all_that_is_wrong_and_changes_nothing() {
    let bed = Bed::new();
    let check = |bed: &Bed| {
        let output = serve_command(bed).arg("--check").output().unwrap();
        let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        (output.status.code(), out, err)
    };
    let (code, out, err) = check(&bed);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(["run file", "dataset", "for a new run", "(UDP) is free", "(TCP) is free"].iter().all(|s| out.contains(s)));
    assert!(!bed.state().exists(), "it was made");

    // While the run is served, and after.
    let process = Process::start(&bed);
    let (code, out, err) = check(&bed);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("holds a run") && out.contains("a coordinator is running"), "{out}");
    drop(process);
    let before = everything(&bed.state());
    let changed = bed.run_toml().replace("token_budget = 100000000", "token_budget = 100000001");
    fs::write(bed.run_file(), changed).unwrap();
    let (code, out, _) = check(&bed);
    assert!(code == Some(0) && out.contains("note      token_budget is 100000001, was 100000000"), "{out}");
    fs::write(bed.run_file(), bed.run_toml().replace("quorum = 1", "quorum = 2")).unwrap();
    let (code, _, err) = check(&bed);
    assert!(code == Some(2) && err.contains("merge.quorum is 2, was 1; that key is fixed"), "{err}");

    // All at once: two faults of the file, no dataset, an address that is taken.
    fs::write(bed.run_file(), "name = 3\ntoken_budget = 5\n[lease]\nwall_s = \"long\"\n").unwrap();
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut command = program();
    command.args(["serve", "--check", "--http", "127.0.0.1:0", "--listen", &taken.local_addr().unwrap().to_string()]);
    command.arg("--run").arg(bed.run_file()).arg("--data").arg(bed.path("none")).arg("--state").arg(bed.state());
    let output = command.output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    let wanted = [
        "run.toml:1:8: name is 3",
        "run.toml:4:10: lease.wall_s is \"long\"",
        "dataset prepare",
        "in use by another",
        "4 things",
    ];
    assert_eq!(output.status.code(), Some(2));
    assert!(wanted.iter().all(|words| err.contains(words)), "{err}");
    assert_eq!(everything(&bed.state()), before);
}
