//! Real processes: shell scripts in a worker's place.

use super::*;
use nightjar_shared::wire::worker::Stop;
use std::{fs, path::Path};

fn shell(script: &str, folder: &Path) -> Processes {
    Processes { program: "/bin/sh".into(), arguments: vec!["-c".into(), script.into()], log: folder.join("worker.log") }
}

fn order(threads: usize) -> Order {
    Order {
        device: "flex".into(),
        avoid: vec![],
        limits: Limits { duty: 1.0, threads, memory_bytes: u64::MAX, tokens_per_s_max: 0.0 },
        file_bytes_max: Some(9 << 30),
    }
}

/// A script that makes a file longer as long as it runs, by itself and by a process of its own.
fn scribe(mark: &Path) -> String {
    let each = |name: &str| format!("while :; do echo x >> {}.{name}; sleep 0.01; done", mark.display());
    format!("({}) & {}", each("child"), each("self"))
}

/// How long both files are, once they are there.
async fn lengths(mark: &Path) -> [u64; 2] {
    let length = |name: &str| fs::metadata(mark.with_extension(name)).map_or(0, |m| m.len());
    loop {
        let both = [length("self"), length("child")];
        if both.iter().all(|l| *l > 0) {
            return both;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn a_while() {
    tokio::time::sleep(Duration::from_millis(200)).await;
}

#[tokio::test]
async fn a_crash_is_told_with_its_last_words() {
    let folder = tempfile::tempdir().unwrap();
    let (events, mut heard) = mpsc::channel(8);
    let _worker = shell("echo the driver is gone >&2; exit 3", folder.path()).start(&order(1), events).unwrap();
    let Some(WorkerEvent::Exited(crash)) = heard.recv().await else { panic!("no end") };
    assert_eq!(crash.to_string(), "exit status: 3; its last words: the driver is gone");
    assert_eq!(fs::read_to_string(folder.path().join("worker.log")).unwrap(), "the driver is gone\n");
}

#[tokio::test]
async fn a_message_arrives_and_nonsense_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let (events, mut heard) = mpsc::channel(8);
    // Takes the beginning of the first message, then answers with a length beyond all bounds.
    let script = r"head -c 6 >/dev/null; printf '\377\377\377\377'; sleep 60";
    let mut worker = shell(script, folder.path()).start(&order(1), events).unwrap();
    assert!(worker.send(to_worker::Body::Stop(Stop {})));
    let Some(WorkerEvent::Exited(Crash::Frame(fault))) = heard.recv().await else { panic!("no end") };
    assert!(fault.to_string().contains("over the limit"), "{fault}");
    assert_eq!(worker.pid(), None);
}

#[tokio::test]
async fn frozen_none_of_it_runs_and_thawed_it_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("alive");
    let (events, _heard) = mpsc::channel(8);
    let mut worker = shell(&scribe(&mark), folder.path()).start(&order(1), events).unwrap();
    lengths(&mark).await;
    worker.freeze();
    worker.freeze();
    a_while().await;
    let frozen = lengths(&mark).await;
    a_while().await;
    assert_eq!(lengths(&mark).await, frozen);
    worker.thaw();
    while lengths(&mark).await.iter().zip(frozen).any(|(now, then)| *now <= then) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn dropping_it_ends_all_of_it_frozen_or_not() {
    for frozen in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("alive");
        let (events, _heard) = mpsc::channel(8);
        let mut worker = shell(&scribe(&mark), folder.path()).start(&order(1), events).unwrap();
        lengths(&mark).await;
        let pid = worker.pid().unwrap();
        if frozen {
            worker.freeze();
        }
        drop(worker);
        while Path::new(&format!("/proc/{pid}/exe")).exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        a_while().await;
        let ended = lengths(&mark).await;
        a_while().await;
        assert_eq!(lengths(&mark).await, ended);
    }
}

#[tokio::test]
async fn the_order_is_on_its_command_line_and_only_threads_need_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let (events, mut heard) = mpsc::channel(8);
    // After `-c SCRIPT`, the first argument is $0.
    let mut launcher = shell("echo \"$0 $*\" >&2; cat >/dev/null", folder.path());
    let order = Order { device: "auto".into(), avoid: vec!["A (x)".into(), "B".into()], ..order(2) };
    let mut worker = launcher.start(&order, events).unwrap();
    let limits = order.limits;
    #[cfg(target_os = "linux")]
    {
        let bounds = fs::read_to_string(format!("/proc/{}/limits", worker.pid().unwrap())).unwrap();
        let of_files = bounds.lines().find(|line| line.starts_with("Max file size")).unwrap();
        assert!(of_files.contains(&(9u64 << 30).to_string()), "{of_files}");
    }
    assert!(worker.allow(&Limits { duty: 0.5, memory_bytes: 1 << 30, ..limits }));
    assert!(!worker.allow(&Limits { threads: 1, ..limits }));
    let said = loop {
        match fs::read_to_string(folder.path().join("worker.log")) {
            Ok(said) if said.ends_with('\n') => break said,
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    assert!(said.starts_with("--device auto --threads 2 --avoid A (x) --avoid B"), "{said}");
    assert!(heard.try_recv().is_err());
}

/// What the worker writes to its standard error, once it has ended.
async fn said_by(script: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let (events, mut heard) = mpsc::channel(8);
    let _worker = shell(script, folder.path()).start(&order(1), events).unwrap();
    while !matches!(heard.recv().await, Some(WorkerEvent::Exited(_))) {}
    fs::read_to_string(folder.path().join("worker.log")).unwrap_or_default()
}

/// Cargo's own variables are in every test's environment, and stand for a shell's.
#[tokio::test]
async fn it_inherits_drivers_settings_and_not_the_shells() {
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some() && std::env::var_os("PATH").is_some());
    let said = said_by("env >&2").await;
    assert!(said.contains("PATH="), "{said}");
    assert!(!said.contains("CARGO_MANIFEST_DIR"), "{said}");
}

#[tokio::test]
async fn it_inherits_no_open_files() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    // As a shell leaves one open: not marked to be closed.
    let left_open = rustix::fs::open(&secret, rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();
    let said = said_by("ls -l /proc/$$/fd >&2").await;
    assert!(said.contains(" 2 -> "), "{said}");
    assert!(!said.contains("secret"), "{said}");
    drop(left_open);
}

/// Frames that are none, of every kind: each ends the worker, with one sentence, and takes no memory to speak of.
#[tokio::test]
async fn what_is_no_message_ends_it() {
    for (what, script) in [
        ("no message in it", r"printf '\000\000\000\000'"),
        ("not the protocol", r"printf '\004\000\000\000\377\377\377\377'"),
        ("a field of another type", r"printf '\004\000\000\000\010\001\010\001'"),
        ("more than a worker has to say", r"printf '\001\000\001\000'"),
        ("text", "echo it trains"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (events, mut heard) = mpsc::channel(8);
        let worker = shell(&format!("{script}; sleep 60"), folder.path()).start(&order(1), events).unwrap();
        match heard.recv().await {
            Some(WorkerEvent::Exited(Crash::Frame(_) | Crash::Empty)) => {}
            other => panic!("{what}: {other:?}"),
        }
        assert_eq!(worker.pid(), None, "{what}");
    }
}

/// One that talks without end waits for its turn: the agent has time for its owner.
#[tokio::test]
async fn a_flood_of_messages_waits() {
    let folder = tempfile::tempdir().unwrap();
    let (events, mut heard) = mpsc::channel(8);
    let script = r"while :; do printf '\002\000\000\000\012\000'; done";
    let since = Instant::now();
    let _worker = shell(script, folder.path()).start(&order(1), events).unwrap();
    for n in 0..3 * MESSAGES_A_SECOND_MAX {
        let Some(WorkerEvent::Says(from_worker::Body::Ready(_))) = heard.recv().await else { panic!("message {n}") };
    }
    assert!(since.elapsed() >= SECOND, "they came as fast as it could talk");
}

/// A frame that does not end keeps nobody waiting but the worker itself, which can still be ended.
#[tokio::test]
async fn a_frame_that_does_not_end_is_no_message() {
    let folder = tempfile::tempdir().unwrap();
    let (events, mut heard) = mpsc::channel(8);
    let script = r"printf '\000\000\001\000half'; echo said >&2; sleep 60";
    let worker = shell(script, folder.path()).start(&order(1), events).unwrap();
    while !folder.path().join("worker.log").exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(heard.try_recv().is_err());
    let pid = worker.pid().unwrap();
    drop(worker);
    while Path::new(&format!("/proc/{pid}/exe")).exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn its_log_commands_no_terminal() {
    let said = said_by(r"printf 'a\033[2Jb\007c\rd\n' >&2; exit 1").await;
    assert_eq!(said, "a[2Jbcd\n");
}
