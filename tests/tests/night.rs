//! A night of a volunteer's laptop: a real agent with its worker, an X server, and UPower, logind and NetworkManager on
//! a private bus. Whatever the owner minds happens in turn, and each time the agent holds at once and says why: by what
//! the kernel says of the worker, and by the agent's own records, nothing is trained from then on, and nothing is lost.

#[path = "night/counterparts.rs"]
mod counterparts;

use counterparts::{Computer, SIZE, Screen};
use nightjar_tests::{Place, Running, Size, process, until};
use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant, SystemTime},
};

/// A laptop on which an agent runs.
struct Night {
    place: Place,
    screen: Screen,
    computer: Computer,
    agent: Option<Running>,
    /// How the work stood when a hold was told that allows no step more.
    stopped: Option<Work>,
    /// The leases that such a hold has interrupted.
    interrupted: Vec<u64>,
    changes: u32,
    _coordinator: Running,
}

/// How the work stands.
#[derive(Debug, PartialEq)]
struct Work {
    /// The lease at hand, and the inner steps made.
    lease: Option<u64>,
    steps: u64,
    /// The worker, and how long it has computed, in nanoseconds.
    worker: Option<(u32, u64)>,
}

const DEVICE: &str = "laptop";
/// The owner's word: one minute without input, one thread of the processor.
const WISHES: [&str; 7] = ["run", "--idle-minutes", "1", "--device", "flex", "--threads", "1"];

impl Night {
    /// Everything is as a volunteer could wish, and nobody is there; `None` where the test must skip.
    fn begin() -> Option<Night> {
        // The server counts its idle time from now.
        let screen = Screen::start()?;
        let computer = Computer::start("tests/night")?;
        let place = Place::new(Size { text_bytes: 200_000, token_budget: 1 << 40 });
        // A lease outlasts a hold, however slow this machine is.
        let run = fs::read_to_string(place.path("run.toml")).unwrap();
        fs::write(place.path("run.toml"), run.replace("deadline_s_min = 3.0", "deadline_s_min = 600.0")).unwrap();
        let coordinator = place.start_coordinator();
        let mut night = Night {
            place,
            screen,
            computer,
            agent: None,
            stopped: None,
            interrupted: vec![],
            changes: 0,
            _coordinator: coordinator,
        };
        let chip = night.chip();
        fs::create_dir_all(&chip).unwrap();
        fs::write(chip.join("name"), "coretemp\n").unwrap();
        night.heat(45);
        night.place.join(DEVICE, "volunteer");
        night.agent = Some(Running::start(night.nightjar(&WISHES), &night.place.path("laptop.log")));
        Some(night)
    }

    fn chip(&self) -> std::path::PathBuf {
        self.place.path("root/sys/class/hwmon/hwmon0")
    }

    fn heat(&self, celsius: u32) {
        // Replaced, so that nobody reads half of it.
        let new = self.chip().join("new");
        fs::write(&new, format!("{celsius}000\n")).unwrap();
        fs::rename(new, self.chip().join("temp1_input")).unwrap();
    }

    /// `nightjar` on the laptop.
    fn nightjar(&self, words: &[&str]) -> Command {
        let mut command = self.place.device(DEVICE, words);
        command.env("DISPLAY", &self.screen.name).env_remove("WAYLAND_DISPLAY");
        command.env("DBUS_SYSTEM_BUS_ADDRESS", &self.computer.system_bus);
        command.env("DBUS_SESSION_BUS_ADDRESS", &self.computer.session_bus);
        command.env("NIGHTJAR_SENSOR_ROOT", self.place.path("root"));
        command
    }

    /// What `nightjar why --json` says, if an agent answers.
    fn why(&self) -> Option<Value> {
        let said = self.nightjar(&["why", "--json"]).output().unwrap();
        said.status.success().then(|| serde_json::from_slice(&said.stdout).expect("why prints JSON"))
    }

    /// What a command answers in JSON.
    fn says(&self, words: &[&str]) -> Value {
        serde_json::from_str(&process::run(self.nightjar(words)).good().stdout).expect("JSON")
    }

    fn work(&self) -> Work {
        let session = &self.says(&["status", "--json"])["session"];
        let steps = session["training"]["steps"].as_u64().expect("a number of steps");
        Work {
            lease: session["lease"].as_u64(),
            steps,
            worker: self.worker().and_then(|id| Some((id, computed_ns(id)?))),
        }
    }

    fn worker(&self) -> Option<u32> {
        let agent = self.agent.as_ref().expect("the agent was started").id();
        process::descendants(agent).into_iter().find(|id| words(*id).iter().any(|word| word == "worker"))
    }

    /// Waits until the agent allows training and its worker works.
    fn until_it_trains(&mut self, when: &str) {
        let since = Instant::now();
        until(&format!("training {when}"), || {
            if let Some(ended) = self.agent.as_mut().and_then(Running::ended) {
                panic!("the agent ended: {ended:?}");
            }
            let why = self.why()?;
            let works = self.worker().is_some_and(|id| state(id).is_some_and(|state| !"TZ".contains(state)));
            (why["allowed"] == true && works).then_some(())
        });
        println!("{when}: trains after {:?}", since.elapsed());
        self.stopped = None;
    }

    /// Waits until the agent holds for this reason; where the owner would feel it, its worker does nothing any more by
    /// then.
    fn until_it_holds(&mut self, kind: &str, words: &str, at_once: bool) {
        let since = Instant::now();
        let why = until(&format!("a hold: {kind}"), || {
            self.why().filter(|why| why["allowed"] == false && why["kind"] == kind)
        });
        println!("{kind}: {:?} after {:?}", why["reason"], since.elapsed());
        assert!(why["reason"].as_str().is_some_and(|reason| reason.contains(words)), "{why}");
        if at_once {
            let Work { lease, steps, .. } = self.work();
            // Of the idle class as it is, it may have to wait for a moment in which to take notice of the signal.
            until("the worker's standstill", || {
                self.worker().and_then(state).is_none_or(|s| "TZX".contains(s)).then_some(())
            });
            self.stopped = Some(Work { lease, steps, ..self.work() });
            // One that was not begun is given back.
            self.interrupted.extend(lease.filter(|_| steps > 0));
        }
    }

    /// Since the hold was told no step was made, and the worker has computed nothing.
    fn assert_it_stood_still(&self) {
        let (Some(then), now) = (&self.stopped, self.work()) else { return };
        // A delta that was finished before is delivered meanwhile; then there is no lease at hand any more.
        if now.lease == then.lease {
            assert_eq!(now.steps, then.steps, "a step was made after the hold was told");
        }
        if let (Some((id, before)), Some((same, after))) = (then.worker, now.worker) {
            assert_eq!((id, before), (same, after), "the worker has computed after the hold was told");
        }
    }

    /// A lease that was at hand before the computer went to sleep, and still is, was saved since.
    fn assert_it_saved(&mut self, before: &Work, since: SystemTime) {
        let Some(lease) = before.lease.filter(|_| before.steps > 0 && self.work().lease == before.lease) else {
            return;
        };
        let files = fs::read_dir(self.place.path(DEVICE).join("work")).unwrap().flatten();
        let mut checkpoints = files.filter(|file| file.file_name().to_string_lossy().starts_with("checkpoint"));
        let is_new = |file: fs::DirEntry| file.metadata().and_then(|m| m.modified()).is_ok_and(|at| at >= since);
        assert!(checkpoints.any(is_new), "the system fell asleep before the training state was saved");
        self.interrupted.push(lease);
    }

    /// What a hold has interrupted was delivered after it.
    fn assert_nothing_is_lost(&self) {
        for lease in &self.interrupted {
            until(&format!("the delivery of lease {lease}"), || {
                let ledger = self.says(&["ledger", "--json"]);
                ledger.as_array()?.iter().any(|delivery| delivery["lease"] == *lease).then_some(())
            });
        }
    }

    /// The reasons for which it held, by its own timeline, one after the other.
    fn reasons(&self) -> Vec<String> {
        let folder = fs::read_dir(self.place.path(DEVICE).join("history")).unwrap().flatten().map(|entry| entry.path());
        let mut days: Vec<_> = folder.filter(|path| path.extension().is_some_and(|e| e == "jsonl")).collect();
        days.sort();
        let text: String = days.iter().map(|day| fs::read_to_string(day).unwrap()).collect();
        let mut reasons: Vec<String> = vec![];
        let entries = text.lines().filter(|line| !line.is_empty());
        for entry in entries.map(|line| serde_json::from_str::<Value>(line).expect("a line of the timeline")) {
            let kind = entry["kind"].as_str().filter(|_| entry["state"] == "hold");
            reasons.extend(kind.filter(|kind| reasons.last().is_none_or(|last| last != kind)).map(str::to_owned));
        }
        reasons
    }

    /// What was forbidden is over, and would stay so for a while; a change of a preference that has nothing to do with
    /// it makes the agent forget that, so that the test need not wait.
    fn forget(&mut self) {
        self.assert_it_stood_still();
        until("the end of it", || {
            let why = self.why()?;
            let settles = why["reason"].as_str().is_some_and(|reason| reason.contains(" without that"));
            (why["allowed"] == true || settles).then_some(())
        });
        self.changes += 1;
        let mebibytes = (900_000 + self.changes).to_string();
        process::run(self.nightjar(&["prefs", "set", "data_mib_month_max", &mebibytes])).good();
    }
}

/// A process's command line.
fn words(id: u32) -> Vec<String> {
    let line = fs::read_to_string(Path::new("/proc").join(id.to_string()).join("cmdline")).unwrap_or_default();
    line.split('\0').map(str::to_owned).collect()
}

/// How long all threads of a process have computed, in nanoseconds.
fn computed_ns(id: u32) -> Option<u64> {
    let threads = fs::read_dir(Path::new("/proc").join(id.to_string()).join("task")).ok()?.flatten();
    let of = |thread: fs::DirEntry| {
        fs::read_to_string(thread.path().join("schedstat")).ok()?.split(' ').next()?.parse::<u64>().ok()
    };
    Some(threads.filter_map(of).sum())
}

/// A process's state: T is stopped, Z has ended.
fn state(id: u32) -> Option<char> {
    let stat = fs::read_to_string(Path::new("/proc").join(id.to_string()).join("stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

#[test]
fn whatever_the_owner_minds_makes_it_hold_and_say_why() {
    let Some(mut night) = Night::begin() else { return };
    night.until_it_holds("in_use", "ago", false);
    // Most of that minute goes by before anybody grows impatient.
    std::thread::sleep(Duration::from_secs(45));
    night.until_it_trains("a minute after the last input");

    night.computer.does("mains no");
    night.until_it_holds("battery", "battery", true);
    night.computer.does("mains yes");
    night.forget();
    night.until_it_trains("on mains again");

    night.computer.does("metered 1");
    night.until_it_holds("metered", "metered", false);
    // The step at hand may be finished; the network is let alone at once.
    let bytes = |night: &Night| {
        let status = night.says(&["status", "--json"]);
        (status["session"]["online"] == false)
            .then(|| (status["totals"]["bytes_up"].clone(), status["totals"]["bytes_down"].clone()))
    };
    let moved = until("the end of the connection", || bytes(&night));
    until("the worker's end", || night.worker().is_none().then_some(()));
    assert_eq!(bytes(&night), Some(moved), "bytes were moved over a metered network");
    night.computer.does("metered 2");
    night.forget();
    night.until_it_trains("on a free network");

    night.heat(120);
    night.until_it_holds("temperature", "120", true);
    night.heat(45);
    night.forget();
    night.until_it_trains("cool");

    let (width, height) = SIZE;
    let mut film = Command::new("xev");
    film.args(["-geometry", &format!("{width}x{height}+0+0")]).env("DISPLAY", &night.screen.name);
    let film = Running::start(film, &night.place.path("film.log"));
    night.until_it_holds("full_screen", "screen", true);
    film.stop();
    night.forget();
    night.until_it_trains("after the film");

    // The system waits for the training state to be saved, and is let go then.
    until("an inhibitor", || (night.computer.does("inhibitors") == "Nightjar:sleep:delay").then_some(()));
    // The file system's clock may be a moment behind.
    let (before, since) = (night.work(), SystemTime::now() - Duration::from_secs(1));
    night.computer.does("sleep yes");
    night.until_it_holds("asleep", "sleep", false);
    until("the release of sleep", || night.computer.does("inhibitors").is_empty().then_some(()));
    night.assert_it_saved(&before, since);
    night.computer.does("sleep no");
    night.forget();
    night.until_it_trains("awake");
    night.assert_nothing_is_lost();

    night.screen.key();
    night.until_it_holds("in_use", "ago", true);
    night.assert_it_stood_still();
    let reasons = ["in_use", "battery", "metered", "temperature", "full_screen", "asleep", "in_use"];
    assert_eq!(night.reasons(), reasons, "its own timeline tells another night");
    night.agent.take().expect("it still runs").stop();
}
