//! A run from nothing, with the real program: a folder of text, `new`, `serve`, and a device that joins by the invite
//! that the start has printed.

use crate::{
    command_line::{Process, program, refused, signalled},
    device::{Device, trained},
};
use nightjar_coordinator::{dataset::Dataset, identity::Identity, run_file};
use nightjar_shared::{
    disk::FolderDisk,
    invite,
    model_folder::ModelFolder,
    run_spec::RunSpec,
    wire::{LeaseRequest, coordinator_message as answer, device_message as ask},
};
use std::{
    fs,
    io::{BufRead, Read, Write},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// A lab's own folder.
struct Lab(tempfile::TempDir);

impl Lab {
    fn new() -> Self {
        let lab = Lab(tempfile::tempdir().unwrap());
        fs::create_dir(lab.path("texts")).unwrap();
        for (at, word) in ["owl", "night", "jar", "lamp", "moth"].iter().enumerate() {
            let text: String = (0..3000).map(|n| format!("{word} {} ", n * (at + 7) % 97)).collect();
            fs::write(lab.path("texts").join(format!("{word}.txt")), text).unwrap();
        }
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// As a script has it: without a terminal, and nobody who answers.
    fn run(&self, words: &[&str]) -> Output {
        let mut command = program();
        command.current_dir(self.0.path()).args(words).stdin(Stdio::null());
        command.output().unwrap()
    }

    fn said(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn spec(&self, run: &str) -> RunSpec {
        let file = fs::read(self.path(run).join("run.toml")).unwrap();
        run_file::parse(&file).unwrap_or_else(|error| panic!("{error}")).spec
    }

    fn serve(&self, run: &str) -> Command {
        let mut command = program();
        command.current_dir(self.0.path()).args(["serve", run, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
        command.stdout(Stdio::piped());
        command
    }

    /// Serves a run until it is ready, and gives what it said before.
    fn served(&self, run: &str) -> (Process, String) {
        let mut child = self.serve(run).spawn().unwrap();
        let mut lines = std::io::BufReader::new(child.stdout.take().unwrap());
        let (mut said, nowhere) = (String::new(), ([0; 4], 0).into());
        let mut process = Process { child, address: nowhere, http: nowhere, lines: None };
        while !said.lines().any(|line| line.starts_with("ready: ")) {
            assert_ne!(lines.read_line(&mut said).unwrap(), 0, "it ended before it was ready: {said}");
        }
        process.address = said.lines().last().unwrap().trim_start_matches("ready: ").parse().unwrap();
        process.lines = Some(lines);
        (process, said)
    }
}

fn identity(state: &Path) -> Identity {
    Identity::open(&FolderDisk::open(state).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_folder_of_text_to_a_merged_delta_in_two_commands() {
    let lab = Lab::new();
    let bill = lab.said(&[
        "new",
        "run",
        "--data",
        "texts",
        "--model",
        "1M",
        "--context",
        "16",
        "--tokens",
        "100k",
        "--address",
        "my.host:4433",
        "--days",
        "7",
    ]);
    for line in [
        "model     824 k parameters",
        "a device  needs 2",
        "a phone ",
        "an H100 ",
        "in all ",
        "next      nightjar-coordinator serve run",
    ] {
        assert!(bill.lines().any(|told| told.starts_with(line)), "{line}: {bill}");
    }
    let written = lab.spec("run");
    assert_eq!(
        (written.name.as_str(), written.token_budget, written.model.max_position_embeddings),
        ("run", 100_000, 16)
    );

    let (mut process, said) = lab.served("run");
    let invites: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("invite    ")).collect();
    let [volunteers, anchor] = invites.as_slice() else { panic!("{said}") };
    assert!(
        volunteers.starts_with("volunteers, for 7 days: nightjar:")
            && anchor.starts_with("an anchor node, for 7 days: ")
    );
    let token = invite::from_link(volunteers.rsplit(' ').next().unwrap()).unwrap();
    let device = Device::pinning(identity(&lab.path("run/state")).public_key());
    let mut link = device.join(process.address, token).await;
    let lease = link.lease(LeaseRequest::default()).await;
    let (delta, offer) = trained(&written.model, &lease, 1);
    link.upload(lease.id, &delta).await.unwrap();
    assert!(matches!(link.ask(ask::Body::DeltaOffer(offer)).await, answer::Body::Done(done) if done.merged));

    // The version says how far the run is, and what is left of it.
    let (mut lines, mut told) = (process.lines.take().unwrap(), String::new());
    while !told.lines().any(|line| line.starts_with("version 1 ")) {
        assert_ne!(lines.read_line(&mut told).unwrap(), 0, "it ended: {told}");
    }
    let version = told.lines().find(|line| line.starts_with("version 1 ")).unwrap();
    assert!(version.contains(" %, ") && version.contains(" left"), "{version}");
    drop(process);

    // The second start prints no invite, and the run goes on.
    let (process, said) = lab.served("run");
    assert!(said.contains("taken up again") && !said.contains("invite    "), "{said}");
    assert!(said.contains("--address my.host:4433"), "{said}");
    drop(process);
    let verified = lab.run(&["verify", "--state", "run/state", "--data", "run/data"]);
    assert!(verified.status.success(), "{verified:?}");

    // A run that begins from a version of this one, which stays as it is.
    refused(&lab.run(&["new", "again", "--from", "run", "--version", "9"]), "there is no version 9: the newest is 1");
    lab.said(&["new", "again", "--from", "run", "--version", "1", "--tokens", "200k"]);
    assert_eq!((lab.spec("again").model, lab.spec("again").token_budget), (written.model.clone(), 200_000));
    let (process, said) = lab.served("again");
    assert!(said.contains("run       again\n"), "{said}");
    drop(process);
    let weights = |folder: &str, version: &str| {
        let (state, out) = (format!("{folder}/state"), format!("{folder}-{version}"));
        lab.said(&["export", &out, "--state", &state, "--data", "run/data", "--version", version]);
        ModelFolder::open(&lab.path(&out)).unwrap().weights().unwrap()
    };
    let far = |from: &[f32], to: &[f32]| from.iter().zip(to).map(|(a, b)| f64::from((a - b).abs())).sum::<f64>();
    let [first, last, again] = [weights("run", "0"), weights("run", "1"), weights("again", "0")];
    // In bf16 it is that version, and no other.
    assert!(4.0 * far(&again, &last) < far(&again, &first), "{} and {}", far(&again, &last), far(&again, &first));
    for run in ["run", "again"] {
        let verified = lab.run(&["verify", "--state", &format!("{run}/state"), "--data", "run/data"]);
        assert!(verified.status.success(), "{run}: {verified:?}");
    }
}

#[test]
fn a_script_is_never_asked_and_each_refusal_has_its_cure() {
    let lab = Lab::new();
    refused(&lab.run(&["new", "run"]), "name the text with --data");
    refused(&lab.run(&["new", "run", "--data", "texts"]), "name the model with --model");
    refused(&lab.run(&["new", "run", "--data", "nothing", "--model", "1M"]), "nothing");
    refused(&lab.run(&["serve", "run"]), "`nightjar-coordinator new run` makes one");
    assert!(!lab.path("run").exists());
    // Even where its input is a pipe that nobody writes to.
    let mut command = program();
    command.current_dir(lab.path("")).args(["new", "run"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let held = child.stdin.take();
    let mut why = String::new();
    child.stderr.take().unwrap().read_to_string(&mut why).unwrap();
    assert!(!child.wait().unwrap().success() && why.contains("--data"), "{why}");
    drop(held);

    lab.said(&["new", "run", "--data", "texts", "--model", "1M"]);
    let file = lab.path("run/run.toml");
    let good = fs::read_to_string(&file).unwrap();
    let line = 1 + good.lines().position(|line| line.starts_with("token_budget")).unwrap();
    fs::write(&file, good.replace("\ntoken_budget = ", "\ntoken_budget = -")).unwrap();
    refused(&lab.serve("run").output().unwrap(), &format!("run/run.toml:{line}:16: token_budget is -"));
    fs::write(&file, &good).unwrap();
    let file = lab.path("run/serve.toml");
    let mut changed = fs::OpenOptions::new().append(true).open(&file).unwrap();
    writeln!(changed, "liste = 3").unwrap();
    let line = fs::read_to_string(&file).unwrap().lines().count();
    refused(&lab.serve("run").output().unwrap(), &format!("run/serve.toml:{line}:1: there is no key `liste`"));
}

/// Where [model] is known, it need not be written down.
#[test]
fn the_model_is_taken_from_the_data_or_the_start_where_the_run_file_leaves_it_out() {
    let lab = Lab::new();
    lab.said(&["new", "run", "--data", "texts", "--model", "1M", "--context", "16"]);
    fs::write(lab.path("run/run.toml"), "name = \"x\"\ntoken_budget = 1000\n").unwrap();
    let (process, said) = lab.served("run");
    assert!(said.contains("context of 16"), "{said}");
    signalled(&process.child, "-TERM");
    drop(process);
    drop(lab.served("run"));
    assert_eq!(Dataset::open(lab.path("run/data")).unwrap().manifest().context, 16);

    // From weights: their shape, in the data's context, also when they are gone.
    lab.said(&["export", "start", "--state", "run/state", "--data", "run/data"]);
    lab.said(&["new", "next", "--data", "run/data", "--model", "start"]);
    fs::write(lab.path("next/run.toml"), "name = \"x\"\ntoken_budget = 1000\n").unwrap();
    drop(lab.served("next"));
    fs::remove_dir_all(lab.path("start")).unwrap();
    let (process, said) = lab.served("next");
    assert!(said.contains("taken up again"), "{said}");
    drop(process);
}
