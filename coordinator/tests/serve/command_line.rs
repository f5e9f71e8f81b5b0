//! The program as a person meets it: what it prints, what it refuses, and what a kill leaves.

use crate::{
    bed::Bed,
    device::{Device, trained},
};
use nightjar_shared::{
    invite,
    wire::{LeaseRequest, Role, coordinator_message as answer, device_message as ask},
};
use std::{
    fs,
    io::{BufRead, BufReader},
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
    command
}

pub fn of_run(bed: &Bed, args: &[&str]) -> Output {
    let mut command = program();
    command.args(args).arg("--data").arg(bed.data()).arg("--state").arg(bed.state());
    command.output().unwrap()
}

/// A serving process; dropped, it is killed, as by a power cut.
struct Process {
    child: Child,
    address: SocketAddr,
    /// Kept open, as a terminal would be.
    _lines: Option<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts it and waits until it is ready.
    fn start(bed: &Bed) -> Self {
        let child = serve_command(bed).stdout(Stdio::piped()).spawn().unwrap();
        let mut process = Process { child, address: ([0; 4], 0).into(), _lines: None };
        let mut lines = BufReader::new(process.child.stdout.take().unwrap());
        loop {
            let mut line = String::new();
            assert_ne!(lines.read_line(&mut line).unwrap(), 0, "it ended before it was ready");
            if let Some(address) = line.strip_prefix("ready: ") {
                process.address = address.trim().parse().unwrap();
                process._lines = Some(lines);
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
        assert!(matches!(link.ask(ask::Body::DeltaOffer(offer.clone())).await, answer::Body::Done(done) if done.merged));
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
    refused(&with_run("name = \"x\"\ntoken_budget = 5\nlearning = 3"), "unknown field `learning`");
    refused(&with_run("name = "), "line 1");
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
    refused(&public.arg("--data").arg(bed.data()).arg("--state").arg(bed.path("other")).output().unwrap(), "no password");
    let mut no_data = program();
    no_data.args(["serve", "--run"]).arg(bed.run_file()).arg("--data").arg(bed.path("none")).arg("--state").arg(bed.state());
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
    let link =
        program().args(["invite", "--address", "my.host:4433", "h:2", "--role", "anchor", "--state"]).arg(bed.state()).output();
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

#[cfg(unix)]
#[test]
fn a_signal_ends_it_in_order() {
    let bed = Bed::new();
    let mut process = Process::start(&bed);
    let sent = Command::new("kill").args(["-TERM", &process.child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    assert!(process.child.wait().unwrap().success());
}
