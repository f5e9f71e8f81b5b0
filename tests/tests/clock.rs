//! A clock that is set while the agent runs, as by a dead battery or a wrong time zone: libfaketime sets it, for the
//! agent and its worker, without touching the computer's.

use nightjar_tests::{
    Place, Running, Size,
    process::{Ended, run},
    until,
};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

const DAY_S: i64 = 86_400;

/// Debian's and Fedora's places.
fn library() -> Option<PathBuf> {
    let folders = [
        "/usr/lib/x86_64-linux-gnu/faketime",
        "/usr/lib/aarch64-linux-gnu/faketime",
        "/usr/lib64/faketime",
        "/usr/lib/faketime",
    ];
    let found = folders.iter().map(|folder| Path::new(folder).join("libfaketimeMT.so.1")).find(|file| file.exists());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "libfaketime is missing; install faketime");
        println!("skipped: libfaketime is not installed");
    }
    found
}

struct Device {
    place: Place,
    clock: PathBuf,
}

impl Device {
    fn start(&self, library: &Path) -> Running {
        let mut command =
            self.place.device("den", &["run", "--policy", "always", "--device", "flex", "--threads", "1"]);
        command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", &self.clock);
        // Read at each look, and leave alone the clocks that nobody can set.
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        Running::start(command, &self.place.path("den.log"))
    }

    fn set_clock(&self, by_s: i64) {
        // Whole at any moment that somebody may read it.
        let written = self.place.path("new-clock");
        fs::write(&written, format!("{by_s:+}\n")).expect("a clock can be written");
        fs::rename(written, &self.clock).expect("a clock can be set");
    }

    fn says(&self, words: &[&str]) -> Ended {
        run(self.place.device("den", words))
    }

    fn status(&self) -> Option<Value> {
        let ended = self.says(&["status", "--json"]);
        ended.status.success().then(|| serde_json::from_str(&ended.stdout).expect("JSON"))
    }

    /// Deliveries that were merged.
    fn merged(&self) -> usize {
        let ledger: Value = serde_json::from_str(&self.says(&["ledger", "--json"]).good().stdout).expect("a ledger");
        ledger.as_array().expect("a list").iter().filter(|delivery| delivery["merged"] == true).count()
    }

    /// Waits until it has told its owner this so often.
    fn has_told(&self, words: &str, times: usize) {
        until(words, || (self.says(&["log", "--lines", "1000"]).stdout.matches(words).count() >= times).then_some(()));
    }
}

#[test]
fn a_clock_that_is_set_is_told_of_and_costs_nothing() {
    let Some(library) = library() else { return };
    let place = Place::new(Size { text_bytes: 100_000, token_budget: 100_000_000 });
    let mut coordinator = place.start_coordinator();
    place.join("den", "volunteer");
    let device = Device { clock: place.path("clock"), place };
    device.set_clock(0);
    let mut agent = device.start(&library);
    let grows = |from: usize| until("one more delta", || Some(device.merged()).filter(|merged| *merged > from));
    let mut merged = grows(0);
    for (by_s, told) in [(3 * DAY_S, "forward by 259"), (-2 * DAY_S, "back by 43")] {
        device.set_clock(by_s);
        device.has_told(&format!("the clock was set {told}"), 1);
        let now = device.merged();
        assert!(now >= merged, "{merged} deliveries became {now}");
        merged = grows(now);
    }

    // A pause is as long as it was said to be, whatever the calendar says meanwhile.
    device.says(&["pause", "2h"]).good();
    device.set_clock(DAY_S);
    device.has_told("the clock was set forward by 259", 2);
    let status = device.status().expect("an agent that answers");
    assert_eq!(status["why"]["kind"], "paused", "{status}");
    let until_s = |status: &Value| {
        let until = status["why"]["until"].as_str().expect("an end").parse::<jiff::Timestamp>().expect("a time");
        until.as_second() - jiff::Timestamp::now().as_second() - DAY_S
    };
    assert!((7000..=7201).contains(&until_s(&status)), "the pause has {} s left", until_s(&status));
    // And over a restart, with the clock set anew in between.
    agent.kill();
    device.set_clock(0);
    let _agent = device.start(&library);
    let status = until("an agent that has decided", || device.status().filter(|s| s["why"]["kind"] != "starting"));
    assert_eq!(status["why"]["kind"], "paused", "{status}");
    device.says(&["resume"]).good();
    grows(device.merged());
    coordinator.kill();
}
