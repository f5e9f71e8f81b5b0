//! What an owner says to their device, and what may be wrong with it: each tried as they would, with the program
//! itself. One clear message each time, and nothing lost.

use nightjar_tests::{
    Place, Running, Size, SmallDisk,
    process::{Ended, run},
    until,
};
use serde_json::Value;
use std::{fs, path::Path, process::Command};

const SMALL: Size = Size { text_bytes: 100_000, token_budget: 100_000_000 };

/// A coordinator, and a device that has joined and trains whenever it is safe.
struct Home {
    place: Place,
    coordinator: Option<Running>,
}

impl Home {
    fn new() -> Home {
        let place = Place::new(SMALL);
        let coordinator = Some(place.start_coordinator());
        place.join("den", "volunteer");
        Home { place, coordinator }
    }

    /// An agent that has looked at the computer once: until then it says no more than that it is starting.
    fn start(&self) -> Running {
        let agent = self.place.start_volunteer("den");
        self.stands("an agent that has decided", |s| s["why"]["kind"] != "starting");
        agent
    }

    fn says(&self, words: &[&str]) -> Ended {
        run(self.place.device("den", words))
    }

    fn json(&self, words: &[&str]) -> Option<Value> {
        let ended = self.says(words);
        ended.status.success().then(|| serde_json::from_str(&ended.stdout).expect("JSON"))
    }

    fn status(&self) -> Option<Value> {
        self.json(&["status", "--json"])
    }

    /// Waits until the status is as it should be.
    fn stands(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        until(what, || self.status().filter(|status| is(status)))
    }

    fn merged(&self) -> u64 {
        let ledger = self.json(&["ledger", "--json"]).expect("a ledger");
        ledger.as_array().expect("a list").iter().filter(|delivery| delivery["merged"] == true).count() as u64
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.place.path("den").join(name)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(mut coordinator) = self.coordinator.take() {
            coordinator.kill();
        }
    }
}

#[test]
fn the_owners_word_counts_at_once_and_over_a_restart() {
    let home = Home::new();
    let agent = home.start();
    home.stands("training", |s| s["session"]["working"] == true);
    assert!(home.says(&["pause", "2h"]).good().stdout.contains("paused for 2 h"));
    let status = home.status().unwrap();
    assert_eq!((&status["why"]["allowed"], &status["why"]["kind"]), (&false.into(), &"paused".into()), "{status}");
    assert_eq!(status["session"]["working"], false, "{status}");
    assert!(status["why"]["until"].is_string() && status["override"]["kind"] == "pause", "{status}");
    let why = home.says(&["why"]).good().stdout;
    assert!(why.contains("you paused it") && why.contains("(until 2"), "{why}");
    agent.stop().good();

    // Nobody runs: the word is noted, and holds for the next one.
    assert_eq!(home.says(&["why"]).status.code(), Some(3));
    home.says(&["pause", "until", "23:59"]).good();
    let agent = home.start();
    assert_eq!(home.status().unwrap()["why"]["kind"], "paused");
    assert!(home.says(&["run-now", "1h30m"]).good().stdout.contains("training for 1 h 30 min"));
    home.stands("training", |s| s["session"]["working"] == true && s["override"]["kind"] == "run_now");
    home.says(&["resume"]).good();
    assert_eq!(home.status().unwrap()["override"], Value::Null);
    for bad in [&["pause", "soon"][..], &["pause", "until", "25:00"], &["run-now", "800d"]] {
        assert_eq!(home.says(bad).refused(&[]).status.code(), Some(2), "{bad:?}");
    }
    agent.stop().good();
}

/// An agent that hangs: its owner is not told that it is paused before it is, and it is once it can be.
#[test]
fn a_pause_beside_an_agent_that_does_not_answer_is_no_success_and_counts_later() {
    let home = Home::new();
    let agent = home.start();
    home.stands("training", |s| s["session"]["working"] == true);
    run(shell(&format!("kill -STOP {}", agent.id()))).good();
    home.says(&["pause", "2h"]).refused(&["does not answer", "nightjar why"]);
    run(shell(&format!("kill -CONT {}", agent.id()))).good();
    home.stands("a pause", |s| s["override"]["kind"] == "pause" && s["override"]["until"].is_string());
    home.says(&["resume"]).good();
    home.stands("training", |s| s["session"]["working"] == true);
    agent.stop().good();
}

#[test]
fn every_answer_can_be_had_as_json() {
    let home = Home::new();
    let json = |words: &[&str]| home.json(words).unwrap_or_else(|| panic!("{words:?} failed"));
    let word = json(&["pause", "2h", "--json"]);
    assert_eq!((&word["running"], &word["override"]["kind"]), (&false.into(), &"pause".into()), "{word}");
    assert_eq!(json(&["--json", "log"]), serde_json::json!([]), "the flag may stand before the command too");
    let agent = home.start();
    assert_eq!(json(&["resume", "--json"])["override"], Value::Null);
    assert!(json(&["status", "--json"])["running"] == true && json(&["why", "--json"])["running"] == true);
    for two in [&["ledger", "--csv", "--json"][..], &["--json", "log", "--follow"], &["prefs", "set", "nosuch", "1"]] {
        assert_eq!(home.says(two).refused(&[]).status.code(), Some(2), "{two:?}");
    }
    let word = json(&["run-now", "1h", "--json"]);
    assert!(
        word["running"] == true && word["override"]["until"].is_string() && word["override"]["kept"] == true,
        "{word}"
    );
    assert_eq!(json(&["prefs", "set", "checkpoint_s", "7", "--json"])["value"], "7");
    assert!(json(&["prefs", "--json"]).as_array().is_some_and(|rows| rows.len() > 20));
    assert!(json(&["log", "--json"]).as_array().is_some_and(|lines| !lines.is_empty()));
    assert!(json(&["open", "--print", "--json"])["address"].as_str().unwrap().starts_with("http://127.0.0.1:"));
    assert_eq!(json(&["service", "status", "--json"])["running"], true);
    home.says(&["service", "install"]).refused(&["runs already"]);
    agent.stop().good();
    let joined = json(&["join", &home.place.invite("volunteer"), "--name", "den", "--json"]);
    assert_eq!((&joined["role"], &joined["coordinator_answers"]), (&"volunteer".into(), &true.into()), "{joined}");
    assert_eq!(json(&["leave", "--json"])["left"], true);
}

#[test]
fn what_was_done_is_told_in_ledger_log_and_history() {
    let home = Home::new();
    let agent = home.start();
    until("three merged deltas", || (home.merged() >= 3).then_some(()));
    let status = home.status().unwrap();
    for figure in ["tokens", "deltas", "merged", "bytes_up", "bytes_down"] {
        assert!(status["today"][figure].as_u64() > Some(0), "{figure}: {status}");
        assert_eq!(status["today"][figure], status["totals"][figure], "{figure}");
    }
    assert!(status["worker"]["device"].is_string() && status["limits"]["threads"] == 1, "{status}");
    agent.stop().good();

    // All of it outlives the agent.
    let csv = home.says(&["ledger", "--csv"]).good().stdout;
    assert!(csv.starts_with("at,run,lease,kind,version,") && csv.lines().count() > 3, "{csv}");
    let log = home.says(&["log", "--lines", "1000"]).good().stdout;
    assert!(log.contains("ready: device") && log.contains(", merged"), "{log}");
    let day = fs::read_dir(home.file("history"))
        .unwrap()
        .flatten()
        .any(|e| e.path().extension().is_some_and(|e| e == "jsonl"));
    assert!(day, "no timeline was kept");
    let again = home.start();
    let after = home.status().unwrap();
    assert!(after["totals"]["merged"].as_u64() >= status["totals"]["merged"].as_u64(), "{after}");
    again.stop().good();
}

#[test]
fn a_preference_is_changed_while_it_runs_and_a_bad_one_changes_nothing() {
    let home = Home::new();
    let agent = home.start();
    home.says(&["prefs", "set", "tokens_per_s_max", "12345"]).good();
    home.says(&["prefs", "set", "tokens_per_s_max", "many"]).refused(&["tokens_per_s_max", "many"]);
    let get = || home.says(&["prefs", "get", "tokens_per_s_max"]).good().stdout;
    assert_eq!(get().trim(), "12345");
    // The owner edits the file by hand, and errs: the last good word stays in force, and the mistake is told.
    let file = home.file("prefs.toml");
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{good}\nidle_minutes = \"soon\"\n")).unwrap();
    let status = home.stands("a word about the mistake", |s| s["config_error"].is_string());
    let told = status["config_error"].as_str().unwrap();
    assert!(told.contains("prefs.toml") && told.contains("idle_minutes") && told.contains("soon"), "{told}");
    assert_eq!(status["why"]["allowed"], true, "{status}");
    fs::write(&file, good).unwrap();
    home.stands("no mistake", |s| s["config_error"].is_null());
    // What an agent was started with stands against the file, and whoever changes that is told.
    assert_eq!(home.says(&["prefs", "get", "policy"]).good().stdout.trim(), "always");
    let told = home.says(&["prefs", "set", "policy", "considerate"]).good().stdout;
    assert!(told.contains("command line") && told.contains("stays in force"), "{told}");
    agent.stop().good();
}

#[test]
fn a_lease_that_does_not_fit_the_quota_is_said_and_goes_on_once_it_does() {
    let home = Home::new();
    home.says(&["prefs", "set", "quota_mib_max", "64"]).good();
    // Something else that the owner keeps there.
    fs::write(home.file("holiday.bin"), vec![0; 70 << 20]).unwrap();
    let agent = home.start();
    let status = home.stands("a word about the room", |s| s["session"]["trouble"].is_string());
    let told = status["session"]["trouble"].as_str().unwrap();
    assert!(told.contains("quota_mib_max") && told.contains("MiB"), "{told}");
    assert_eq!(status["session"]["working"], false);
    let why = &status["why"];
    assert!(why["allowed"] == true && why["until"].is_string(), "{why}");
    assert!(why["reason"].as_str().unwrap().contains("quota_mib_max"), "{why}");
    home.says(&["prefs", "set", "quota_mib_max", "200"]).good();
    until("a merged delta", || (home.merged() >= 1).then_some(()));
    assert!(home.file("holiday.bin").exists(), "what is not ours stays");
    agent.stop().good();
}

#[test]
fn a_second_agent_is_refused_and_the_first_goes_on() {
    let home = Home::new();
    let agent = home.start();
    home.says(&["run", "--policy", "always", "--device", "flex"]).refused(&["running already", "nightjar status"]);
    home.says(&["join", &home.place.invite("volunteer")]).refused(&["in the run \"test\" already"]);
    home.stands("training", |s| s["session"]["working"] == true);
    agent.stop().good();
}

#[test]
fn a_damaged_file_is_named_with_what_to_do() {
    let home = Home::new();
    let agent = home.start();
    until("a merged delta", || (home.merged() >= 1).then_some(()));
    agent.stop().good();
    let start = || home.says(&["run", "--policy", "always", "--device", "flex", "--threads", "1"]);
    let key = fs::read(home.file("identity.pk8")).unwrap();
    fs::write(home.file("identity.pk8"), &key[..key.len() / 2]).unwrap();
    start().refused(&["identity.pk8", "move it away"]);
    // Without its key the device is not made another one.
    fs::remove_file(home.file("identity.pk8")).unwrap();
    start().refused(&["identity.pk8", "is gone", "nightjar join"]);
    fs::write(home.file("identity.pk8"), key).unwrap();
    // The journal is put aside, and the device begins anew.
    let journal = fs::read(home.file("journal.json")).unwrap();
    fs::write(home.file("journal.json"), &journal[..journal.len() / 2]).unwrap();
    let agent = home.start();
    until("a merged delta", || (home.merged() >= 1).then_some(()));
    assert!(agent.said().contains("journal.json.damaged"), "{}", agent.said());
    assert_eq!(fs::read(home.file("journal.json.damaged")).unwrap(), journal[..journal.len() / 2]);
    agent.stop().good();
    // What only remembers does not stop anything, and says so in the log where something is lost.
    let month = fs::read_dir(home.file("history")).unwrap().flatten().map(|e| e.path());
    let month = month.into_iter().find(|path| path.extension().is_some_and(|e| e == "json")).unwrap();
    for file in [&month, &home.file("policy.json"), &home.file("worker-crashes.json"), &home.file("history/alive")] {
        fs::write(file, b"{\"half").unwrap();
    }
    let before = home.merged();
    let agent = home.start();
    until("another merged delta", || (home.merged() > before).then_some(()));
    assert!(agent.said().contains("is damaged"), "{}", agent.said());
    assert!(month.with_extension("json.damaged").exists());
    // Of a word of the owner's that nobody can read it is the one that does no harm.
    fs::write(home.file("pause.json"), b"{\"until").unwrap();
    home.stands("a pause", |s| {
        s["why"]["kind"] == "paused"
            && s["why"]["reason"].as_str().is_some_and(|reason| reason.contains("pauses is damaged"))
    });
    until("why", || {
        agent.said().contains("pause.json is damaged, which counts as a pause: `nightjar resume`").then_some(())
    });
    home.says(&["resume"]).good();
    home.stands("training", |s| s["session"]["working"] == true);
    agent.stop().good();
}

/// The agent runs on and says what is wrong; an invite for the same run mends it, and what was done is not forgotten.
#[test]
fn a_damaged_membership_is_told_and_joining_anew_mends_it() {
    let home = Home::new();
    let agent = home.start();
    until("a merged delta", || (home.merged() >= 1).then_some(()));
    agent.stop().good();
    let whole = fs::read(home.file("membership.json")).unwrap();
    fs::write(home.file("membership.json"), &whole[..whole.len() / 2]).unwrap();
    let agent = home.start();
    let status = home.stands("a word about it", |s| s["why"]["kind"] == "not_joined");
    let told = status["why"]["reason"].as_str().unwrap();
    assert!(told.contains("membership.json is damaged") && told.contains("nightjar join"), "{told}");
    home.says(&["join", &home.place.invite("volunteer"), "--name", "den"]).good();
    let status = home.stands("training", |s| s["session"]["working"] == true);
    assert!(status["session"]["totals"]["leases"].as_u64() >= Some(1), "{status}");
    agent.stop().good();
}

/// The service may come first and the invite later.
#[test]
fn a_service_can_be_installed_before_joining() {
    let place = Place::empty();
    // Stands in for systemd's own: it is asked for this and that, and agrees.
    let tools = place.path("tools");
    fs::create_dir(&tools).unwrap();
    run(shell(&format!("printf '#!/bin/sh\\n' > {0}/systemctl && chmod 755 {0}/systemctl", tools.display()))).good();
    let mut install = place.device("nobody", &["service", "install"]);
    let path = std::env::var("PATH").unwrap();
    install.env("PATH", format!("{}:{path}", tools.display())).env("XDG_CONFIG_HOME", place.path("config"));
    let told = run(install).good().stdout;
    assert!(told.contains("waits for an invite") && told.contains("nightjar join"), "{told}");
    let unit = fs::read_to_string(place.path("config/systemd/user/nightjar.service")).unwrap();
    assert!(unit.contains("\"run\"\n"), "{unit}");
}

/// What the entry in the desktop's menu does, where no service manager answers: an agent that waits for an invite.
#[test]
fn opening_from_the_menu_starts_an_agent_once() {
    let place = Place::empty();
    let tools = place.path("tools");
    fs::create_dir(&tools).unwrap();
    let refuses = "printf '#!/bin/sh\\nexit 1\\n'";
    run(shell(&format!("{refuses} > {0}/systemctl && chmod 755 {0}/systemctl", tools.display()))).good();
    let open = || {
        let mut open = place.device("nobody", &["open", "--start"]);
        let path = std::env::var("PATH").unwrap();
        open.env("PATH", format!("{}:{path}", tools.display())).env("XDG_CONFIG_HOME", place.path("config"));
        run(open).good().stdout
    };
    let (first, second) = (open(), open());
    let home = place.path("nobody").display().to_string();
    let end = run(shell(&format!("pkill --signal TERM --full -- '--home {home} run$'")));
    let address = |told: &str| told.split("http://").nth(1).and_then(|rest| rest.split('/').next()).map(str::to_owned);
    assert!(address(&first).is_some() && address(&first) == address(&second), "one agent: {first}{second}");
    end.good();
    let device = |words: &[&str]| run(place.device("nobody", words));
    until("its end", || (device(&["why"]).status.code() == Some(3)).then_some(()));
    assert!(!place.path("config/systemd").exists(), "without a service manager no service is installed");
}

/// A calendar's clock that was set is no reason for anything; here the owner's pause has been written by another
/// calendar.
#[test]
fn a_pause_that_a_wrong_clock_wrote_ends_all_the_same() {
    let home = Home::new();
    let agent = home.start();
    agent.stop().good();
    let year_9999 = 253_370_764_800_000_u64;
    fs::write(home.file("pause.json"), format!("{{\"until\":{year_9999}}}")).unwrap();
    fs::write(home.file("history/alive"), format!("{year_9999:015}\n")).unwrap();
    let agent = home.start();
    let status = home.status().unwrap();
    let until_year: u32 = status["why"]["until"].as_str().unwrap()[..4].parse().unwrap();
    assert!(until_year < 9999, "a pause lasts a year at most: {status}");
    home.says(&["resume"]).good();
    home.stands("training", |s| s["session"]["working"] == true);
    agent.stop().good();
}

#[test]
fn a_home_that_is_read_only() {
    let home = Home::new();
    let Some(disk) = small_disk(4 << 10, &home.place) else { return };
    copy(&home.file(""), &disk, &home.place);
    let device = |words: &[&str]| on_disk(&disk, words);
    run(disk.enter(shell(&format!("mount -o remount,ro {}", disk.path("").display())))).good();
    run(disk.enter(device(&["pause", "2h"]))).refused(&["home folder"]);
    // What only reads still does.
    run(disk.enter(device(&["ledger"]))).good();
    assert_eq!(run(disk.enter(device(&["status"]))).status.code(), Some(3));

    // An agent waits for the disk; whoever asks for it hears of that, and it goes on by itself.
    let agent = disk.enter(device(&[
        "run",
        "--policy",
        "always",
        "--disk-mib-min",
        "off",
        "--device",
        "flex",
        "--threads",
        "1",
    ]));
    let mut agent = Running::start(agent, &home.place.path("disk-agent.log"));
    until("a word about the disk", || agent.said().contains("control.json: the disk is read-only").then_some(()));
    run(disk.enter(device(&["why"]))).refused(&["cannot say where it listens", "the disk is read-only"]);
    run(disk.enter(device(&["run", "--policy", "always", "--device", "flex"]))).refused(&["running already"]);
    assert!(agent.ended().is_none(), "{}", agent.said());
    run(disk.enter(shell(&format!("mount -o remount,rw {}", disk.path("").display())))).good();
    until("a merged delta", || agent.said().contains(", merged").then_some(()));
    agent.stop().good();
}

/// A closed terminal ends what runs in it as SIGTERM does: in order, and with nothing left behind.
#[test]
fn a_closed_terminal_ends_the_agent_in_order() {
    let own = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = own.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    if ignored.is_none_or(|signals| signals & 1 != 0) {
        println!("skipped: whoever started this has it ignore SIGHUP");
        return;
    }
    let home = Home::new();
    let mut agent = home.start();
    until("an agent that answers", || home.status());
    run(shell(&format!("kill -HUP {}", agent.id()))).good();
    let ended = until("its end", || agent.ended());
    assert!(ended.status.success(), "{ended:?}");
    assert!(!home.file("control.json").exists());
}

#[test]
fn a_full_disk_holds_the_agent_until_there_is_room_and_no_delta_is_lost() {
    let home = Home::new();
    let Some(disk) = small_disk(4 << 10, &home.place) else { return };
    copy(&home.file(""), &disk, &home.place);
    let words = ["run", "--policy", "always", "--disk-mib-min", "off", "--device", "flex", "--threads", "1"];
    let log = home.place.path("disk-agent.log");
    let start = || Running::start(disk.enter(on_disk(&disk, &words)), &log);
    let agent = start();
    until("two merged deltas", || (agent.said().matches(", merged").count() >= 2).then_some(()));
    let ballast = disk.path("ballast").display().to_string();
    assert!(run(disk.enter(shell(&format!("cat /dev/zero > {ballast}")))).stderr.contains("No space left"));
    let asks = |words: &[&str]| run(disk.enter(on_disk(&disk, words)));
    until("a word about the disk", || agent.said().contains("the disk is full").then_some(()));
    let told: Value = until("the reason", || {
        let told: Value = serde_json::from_str(&asks(&["why", "--json"]).stdout).ok()?;
        (told["kind"] == "disk").then_some(told)
    });
    assert!(
        told["allowed"] == false && told["reason"].as_str().is_some_and(|r| r.contains("goes on by itself")),
        "{told}"
    );
    asks(&["pause"]).good();
    asks(&["resume"]).good();
    let before = agent.said().matches(", merged").count();
    run(disk.enter(shell(&format!("rm {ballast}")))).good();
    until("another merged delta", || (agent.said().matches(", merged").count() > before).then_some(()));
    agent.stop().good();

    // With the floor that is the default, it holds before it runs into the wall.
    assert!(run(disk.enter(shell(&format!("cat /dev/zero > {ballast}")))).stderr.contains("No space left"));
    let holding = disk.enter(on_disk(&disk, &["run", "--policy", "always", "--device", "flex"]));
    let holding = Running::start(holding, &home.place.path("holding.log"));
    until("a word about the disk", || holding.said().contains("disk").then_some(()));
    drop(holding);

    run(disk.enter(shell(&format!("rm {ballast}")))).good();
    let merged = || fs::read_to_string(&log).unwrap_or_default().matches(", merged").count();
    let before = merged();
    let agent = start();
    until("another merged delta", || (merged() > before).then_some(()));
    agent.stop().good();
    let duplicates = home.place.status().map(|status| status["duplicates"].clone());
    assert!(duplicates.is_none_or(|d| d.is_null() || d == 0), "a delta was delivered twice");
}

/// A GPU that was there the last time, and is not now.
#[test]
fn a_gpu_that_is_not_there_is_named_and_another_choice_goes_on() {
    let home = Home::new();
    let agent = Running::start(
        home.place.device("den", &["run", "--policy", "always", "--threads", "1"]),
        &home.place.path("den.log"),
    );
    until("an agent that answers", || home.status());
    home.says(&["prefs", "set", "device", "wgpu:7"]).good();
    let status = home
        .stands("a word about it", |s| s["why"]["reason"].as_str().is_some_and(|r| r.contains("no wgpu adapter 7")));
    assert!(status["why"]["allowed"] == true && status["why"]["until"].is_string(), "{status}");
    home.says(&["prefs", "set", "device", "flex"]).good();
    until("a merged delta", || (home.merged() >= 1).then_some(()));
    agent.stop().good();
}

#[test]
fn commands_explain_themselves_and_end_as_scripts_expect() {
    let place = Place::empty();
    let says = |words: &[&str]| run(place.device("nobody", words));
    for words in [&["status"][..], &["why"], &["open"]] {
        let ended = says(words);
        assert_eq!(ended.status.code(), Some(3), "{words:?}: {ended:?}");
        assert!(ended.stdout.contains("nightjar join"), "{words:?}: {}", ended.stdout);
    }
    let status: Value = serde_json::from_str(&says(&["status", "--json"]).stdout).unwrap();
    assert_eq!(status["running"], false);
    for bad in [&["polish"][..], &["run", "--idle-minutes", "few"], &["anchor", "--threads", "-1"]] {
        assert_eq!(says(bad).status.code(), Some(2), "{bad:?}");
    }
    let standing: Value = serde_json::from_str(&says(&["service", "status", "--json"]).good().stdout).unwrap();
    assert_eq!(standing["running"], false);
    for shell in ["bash", "zsh", "fish"] {
        assert!(says(&["completions", shell]).good().stdout.contains("run-now"), "{shell}");
    }
    assert_eq!(says(&["ledger", "--json"]).good().stdout.trim(), "[]");
    let devices: Value = serde_json::from_str(&says(&["devices", "--json"]).good().stdout).unwrap();
    let flex = devices.as_array().unwrap().iter().find(|device| device["name"] == "flex").expect("the processor");
    assert_eq!(flex["left_alone"], Value::Null);
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

/// Puts what is in a folder on the small disk, in `home`.
fn copy(folder: &Path, disk: &SmallDisk, place: &Place) {
    let staged = place.path("staged");
    run(shell(&format!("cp -r {} {}", folder.display(), staged.display()))).good();
    run(disk.enter(shell(&format!("cp -r {} {}", staged.display(), disk.path("home").display())))).good();
}

/// `nightjar` with the home on the small disk.
fn on_disk(disk: &SmallDisk, words: &[&str]) -> Command {
    let mut command = Command::new(nightjar_tests::process::binary("nightjar"));
    command.arg("--home").arg(disk.path("home")).args(words);
    command
}
