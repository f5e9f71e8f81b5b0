//! What goes wrong for a new user, each tried as one would: a clear message, an exit code, and nothing lost.

use nightjar_shared::rng;
use nightjar_tests::{Place, Running, Size, SmallDisk, process::run, until};
use std::{
    fs,
    net::{TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
};

const SMALL: Size = Size { text_bytes: 100_000, token_budget: 100_000_000 };

#[test]
fn text_that_is_not_there() {
    let place = Place::empty();
    run(place.prepare()).refused(&["text.txt"]);
    assert!(!place.data.join("manifest.json").exists());
}

#[test]
fn data_that_was_never_prepared() {
    let place = Place::empty();
    fs::write(place.path("run.toml"), "name = \"x\"\ntoken_budget = 1000\n").unwrap();
    run(place.serve()).refused(&["data", "dataset prepare"]);
}

#[test]
fn a_run_spec_with_a_mistake() {
    let place = Place::new(SMALL);
    let good = fs::read_to_string(place.path("run.toml")).unwrap();
    let mistakes = [
        (good.replace("quorum = 2", "quorom = 2"), "quorom"),
        (good.replace("quorum = 2", "quorum = 0"), "merge.quorum is 0"),
        (good.replace("quorum = 2", "quorum = two"), "quorum"),
        (good.replace("hidden_size = 16", "hidden_size = 17"), "model.hidden_size must be a multiple"),
    ];
    for (bad, words) in mistakes {
        fs::write(place.path("run.toml"), bad).unwrap();
        run(place.serve()).refused(&["run.toml", words]);
    }
    fs::remove_file(place.path("run.toml")).unwrap();
    run(place.serve()).refused(&["run.toml"]);
    fs::write(place.path("run.toml"), good.replace("max_position_embeddings = 32", "max_position_embeddings = 64"))
        .unwrap();
    run(place.serve()).refused(&["32 tokens", "--context 64"]);
}

#[test]
fn ports_in_use() {
    let place = Place::new(SMALL);
    let taken = UdpSocket::bind(place.quic).unwrap();
    run(place.serve()).refused(&[&place.quic.port().to_string(), "--listen"]);
    drop(taken);
    let taken = TcpListener::bind(place.http).unwrap();
    run(place.serve()).refused(&[&place.http.port().to_string(), "--http"]);
    drop(taken);
    place.start_coordinator().stop().good();
}

#[test]
fn a_second_coordinator_on_the_same_state() {
    let place = Place::new(SMALL);
    let coordinator = place.start_coordinator();
    let other = Place::empty();
    let mut second =
        place.coordinator(&["serve", "--listen", &other.quic.to_string(), "--http", &other.http.to_string()]);
    second.arg("--run").arg(place.path("run.toml"));
    run(second).refused(&["state"]);
    coordinator.stop().good();
}

#[test]
fn invites_that_are_cut_changed_or_not_for_here() {
    let place = Place::new(SMALL);
    let coordinator = place.start_coordinator();
    let invite = place.invite("volunteer");
    let cut = &invite[..invite.len() - 9];
    let mut changed = invite.clone().into_bytes();
    let middle = changed.len() / 2;
    changed[middle] = if changed[middle] == b'A' { b'B' } else { b'A' };
    let changed = String::from_utf8(changed).unwrap();
    for bad in ["hello", cut, changed.as_str()] {
        run(place.device("volunteer", &["join", bad])).refused(&["invite"]);
    }
    run(place.device("volunteer", &["join", &invite])).good();
    coordinator.stop().good();

    // The same address, another coordinator: its key is not the one that the invite pins. Nobody joins by that invite
    // any more. A device that has joined goes on trying, for the right one may come back, but says what is wrong.
    fs::rename(&place.state, place.path("state.first")).unwrap();
    let other = place.start_coordinator();
    run(place.device("latecomer", &["join", &invite])).refused(&["its key is another"]);
    let waiting = place.start_volunteer("waiting");
    until("an agent that waits for an invite", || waiting.said().contains("in no run yet").then_some(()));
    run(place.device("waiting", &["join", &invite])).refused(&["its key is another"]);
    waiting.stop().good();
    let volunteer = place.start_volunteer("volunteer");
    until("a word about the key", || volunteer.said().contains("its key is another").then_some(()));
    volunteer.stop().good();
    other.stop().good();
}

#[test]
fn a_corrupt_blob_is_named() {
    let place = Place::new(SMALL);
    train_a_little(&place);
    let delta = biggest_file(&place.state.join("blobs"));
    flip_a_bit(&delta);
    let verified = run(place.coordinator(&["verify"]));
    assert_eq!(verified.status.code(), Some(1), "{verified:?}");
    let said = verified.stdout.clone() + &verified.stderr;
    let name = delta.file_name().and_then(|name| name.to_str()).unwrap();
    assert!(said.contains(&name[..8]), "the blob is not named: {said}");

    flip_a_bit(&delta);
    run(place.coordinator(&["verify"])).good();
}

#[test]
fn a_full_disk_stops_the_preparation_and_a_second_try_completes_it() {
    let mut place = Place::empty();
    let Some(disk) = small_disk(256, &place) else { return };
    fs::write(place.path("text.txt"), noise(1 << 20)).unwrap();
    place.data = disk.path("data");
    run(disk.enter(place.prepare())).refused(&["full"]);
    place.data = place.path("data");
    run(place.prepare()).good();
}

#[test]
fn a_full_disk_holds_the_coordinator_up_and_nothing_is_lost() {
    let mut place = Place::new(SMALL);
    let Some(disk) = small_disk(2 << 10, &place) else { return };
    place.state = disk.path("state");
    let mut coordinator = Running::start(disk.enter(place.serve()), &place.path("coordinator.log"));
    until("an answer from the coordinator", || place.status());
    let invite = run(disk.enter(place.invitation("volunteer"))).good().stdout;
    run(place.device("volunteer", &["join", &invite])).good();
    let volunteer = place.start_volunteer("volunteer");
    until("four merged deltas", || place.figure("merged").filter(|merged| *merged >= 4));
    // Somebody else takes all the room that is left.
    let (ballast, disk_full) = (disk.path("ballast").display().to_string(), "No space left");
    assert!(run(disk.enter(shell(&format!("cat /dev/zero > {ballast}")))).stderr.contains(disk_full));
    let merged = place.figure("merged");
    let is_full = |place: &Place| place.status()?["disk"]["full"].as_bool();
    until("a word about the disk", || is_full(&place).filter(|full| *full));
    assert!(coordinator.ended().is_none(), "it goes on, and waits for room");
    // A start succeeds on a full disk too.
    coordinator.kill();
    coordinator = Running::start(disk.enter(place.serve()), &place.path("coordinator.log"));
    until("an answer from the coordinator", || is_full(&place).filter(|full| *full));

    run(disk.enter(shell(&format!("rm {ballast}")))).good();
    until("room, by itself", || is_full(&place).filter(|full| !*full));
    let kept = until("an answer from the coordinator", || place.figure("merged"));
    assert!(Some(kept) >= merged, "{kept} of {merged:?} merged deltas are left");
    until("progress once there is room", || place.figure("merged").filter(|now| *now > kept));
    volunteer.stop().good();
    coordinator.stop().good();
    run(disk.enter(place.coordinator(&["verify"]))).good();
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

fn small_disk(kib: u64, place: &Place) -> Option<SmallDisk> {
    let disk = SmallDisk::new(kib, place);
    if disk.is_none() {
        println!("skipped: this machine allows no mounts in a namespace of one's own");
    }
    disk
}

/// Bytes that do not compress, all of them letters.
fn noise(bytes: u64) -> Vec<u8> {
    (0..bytes).map(|i| b'a' + rng::below(1, rng::stream::SIM, i, 26) as u8).collect()
}

/// Has a volunteer join and train until a few deltas are merged, then stops everything.
fn train_a_little(place: &Place) {
    let coordinator = place.start_coordinator();
    place.join("volunteer", "volunteer");
    let volunteer = place.start_volunteer("volunteer");
    until("four merged deltas", || place.figure("merged").filter(|merged| *merged >= 4));
    volunteer.stop().good();
    coordinator.stop().good();
}

fn biggest_file(folder: &Path) -> PathBuf {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    files.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

fn flip_a_bit(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_device_that_has_not_joined_holds_says_so_and_takes_an_invite() {
    let place = Place::new(SMALL);
    let coordinator = place.start_coordinator();
    let says = |words: &[&str]| run(place.device("newcomer", words));
    says(&["anchor"]).refused(&["not joined", "nightjar join"]);
    says(&["leave"]).refused(&["not joined"]);
    let agent = place.start_volunteer("newcomer");
    let why = until("a reason", || {
        Some(says(&["why"])).filter(|why| why.status.success() && why.stdout.contains("not joined"))
    });
    assert!(why.stdout.contains("nightjar join") && why.stdout.contains("nightjar open"), "{}", why.stdout);
    let status: serde_json::Value = serde_json::from_str(&says(&["status", "--json"]).good().stdout).unwrap();
    assert_eq!((&status["run"], &status["why"]["kind"]), (&serde_json::Value::Null, &"not_joined".into()), "{status}");
    // The owner's "now" is no run to train in.
    assert!(says(&["run-now", "1h"]).good().stdout.contains("not joined"));
    says(&["leave"]).refused(&["not joined"]);

    let invite = place.invite("volunteer");
    for bad in ["hello", &invite[..invite.len() - 9], ""] {
        says(&["join", bad]).refused(&["invite"]);
    }
    let mut for_one = place.invitation("volunteer");
    for_one.args(["--devices", "1"]);
    let for_one = run(for_one).good().stdout;
    run(place.device("first", &["join", &for_one])).good();
    says(&["join", &for_one]).refused(&["does not take this device", "invite"]);
    // As a mail program breaks it.
    let (head, tail) = invite.split_at(50);
    let told = says(&["join", &format!("{head}\n  {tail}"), "--name", "attic"]).good().stdout;
    assert!(told.contains("joined \"test\" as a volunteer") && told.contains("(attic)"), "{told}");
    until("a merged delta", || agent.said().contains(", merged").then_some(()));
    says(&["join", &invite]).refused(&["in the run \"test\" already", "nightjar leave"]);
    // It leaves, stays, and can be stopped as before.
    assert!(says(&["leave"]).good().stdout.contains("stays"));
    until("an agent in no run", || {
        Some(says(&["why"])).filter(|why| why.status.success() && why.stdout.contains("not joined"))
    });
    says(&["leave"]).refused(&["not joined"]);
    agent.stop().good();
    coordinator.stop().good();

    // Nor is a membership replaced where no agent runs: what was done for its run would be lost.
    says(&["join", &invite]).good();
    says(&["join", &invite]).good();
    let elsewhere = Place::new(SMALL);
    let other = elsewhere.start_coordinator();
    says(&["join", &elsewhere.invite("volunteer")]).refused(&["in the run \"test\" already", "nightjar leave"]);
    other.stop().good();
}

#[test]
fn a_model_folder_that_is_not_there() {
    let place = Place::empty();
    let folder = place.path("model").display().to_string();
    run(place.device("nobody", &["sample", &folder, "--prompt", "x"])).refused(&["model"]);
}
