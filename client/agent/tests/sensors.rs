//! The real sensors of Linux against real counterparts: an X server, D-Bus daemons with mocked services, a compositor
//! that speaks Wayland, terminals. What a test needs and does not find makes it say that it skips; under CI that is a
//! failure.
#![cfg(target_os = "linux")]

#[path = "sensors/compositor.rs"]
mod compositor;
#[path = "../../../tests/tests/night/counterparts.rs"]
mod counterparts;
#[path = "sensors/desktops.rs"]
mod desktops;
#[path = "sensors/windows.rs"]
mod windows;

use compositor::Compositor;
use counterparts::{Computer, Screen};
use nightjar_agent::{
    policy::{Observation, Power, Reading},
    sensor::{Places, Seen, Sense, Sensors, Wants},
};
use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::sync::Notify;
use windows::Client;

/// Patience for what must happen; nothing asserts speed.
const PATIENCE: Duration = Duration::from_secs(30);

/// The services of a laptop; `None` where a test of them must skip.
fn computer() -> Option<Computer> {
    Computer::start("../../tests/tests/night")
}

/// Sensors in a place of their own.
struct Lab {
    sensors: Sensors,
    changed: Arc<Notify>,
    root: TempDir,
}

/// A computer that has nothing: no bus, no display, no terminal.
fn bare(root: &Path) -> Places {
    Places {
        root: root.to_owned(),
        system_bus: format!("unix:path={}", root.join("no-bus").display()),
        session_bus: None,
        runtime: None,
        wayland: None,
        display: None,
    }
}

impl Lab {
    fn new(adapt: impl FnOnce(&mut Places)) -> Lab {
        let root = tempfile::tempdir().unwrap();
        let mut places = bare(root.path());
        adapt(&mut places);
        let wants = Wants { home: root.path().into(), programs: vec![], idle: Duration::from_secs(1) };
        let changed = Arc::new(Notify::new());
        Lab { sensors: Sensors::start_at(places, wants, changed.clone()), changed, root }
    }

    /// What is seen of one fact.
    fn seen(&self, name: &str) -> Seen {
        self.sensors.sources().into_iter().find(|seen| seen.name == name).unwrap()
    }

    /// Waits until it is seen like this; the event loop would look as often by itself.
    async fn until(&mut self, what: &str, is: impl Fn(&Observation) -> bool) -> Observation {
        let since = Instant::now();
        loop {
            let seen = self.sensors.observe();
            if is(&seen) {
                println!("{what}: after {:?}", since.elapsed());
                return seen;
            }
            assert!(since.elapsed() < PATIENCE, "{what}: not seen, but {seen:#?}\n{:#?}", self.sensors.sources());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until it is *told* of this: looks only when it is notified.
    async fn told(&mut self, what: &str, is: impl Fn(&Observation) -> bool) -> Observation {
        let since = Instant::now();
        loop {
            let told = tokio::time::timeout(PATIENCE.saturating_sub(since.elapsed()), self.changed.notified()).await;
            let seen = self.sensors.observe();
            assert!(told.is_ok(), "{what}: not told; now seen is {seen:#?}\n{:#?}", self.sensors.sources());
            if is(&seen) {
                println!("{what}: told after {:?}", since.elapsed());
                return seen;
            }
        }
    }

    async fn source(&mut self, fact: &str, source: &str) {
        let since = Instant::now();
        while self.seen(fact).source != Some(source) {
            assert!(since.elapsed() < PATIENCE, "{fact} is not from {source}: {:#?}", self.sensors.sources());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn idle(seen: &Observation, at_least_ms: u64) -> bool {
    matches!(seen.idle, Reading::Known(idle) if idle >= Duration::from_millis(at_least_ms))
}

fn active(seen: &Observation) -> bool {
    matches!(seen.idle, Reading::Known(idle) if idle < Duration::from_secs(1))
}

#[tokio::test]
async fn a_bare_computer_is_known_as_far_as_it_can_be() {
    let mut lab = Lab::new(|_| ());
    let seen = lab.until("an answer", |seen| seen.idle == Reading::Known(Duration::MAX)).await;
    assert_eq!(lab.seen("idle").source, Some("the terminals"));
    assert_eq!(seen.power, Reading::Known(Power { on_mains: true, charge_percent: None }));
    let seen = lab.until("no screen", |seen| seen.full_screen == Reading::Known(false)).await;
    assert_eq!(seen.metered, Reading::Known(false), "nothing is sent without a route");
    assert!(matches!(seen.temperature_c, Reading::Unknown(_)));
    assert!(matches!((&seen.memory_free, &seen.disk_free), (Reading::Known(1..), Reading::Known(1..))));
}

/// An X server's input, by the server's own test extension.
#[tokio::test]
async fn input_at_an_x_server_is_told() {
    let Some(screen) = Screen::start() else { return };
    let mut lab = Lab::new(|places| places.display = Some(screen.name.clone()));
    for _ in 0..2 {
        lab.until("a pause", |seen| idle(seen, 1200)).await;
        assert_eq!(lab.seen("idle").source, Some("X11"));
        screen.key();
        lab.told("a key", active).await;
    }
}

#[tokio::test]
async fn a_full_screen_window_is_told_with_a_window_manager_and_without() {
    let Some(screen) = Screen::start() else { return };
    let mut lab = Lab::new(|places| places.display = Some(screen.name.clone()));
    lab.until("an empty screen", |seen| seen.full_screen == Reading::Known(false)).await;
    let client = Client::of(&screen);
    let (small, large) = (client.window(false), client.window(true));
    lab.until("a large window", |seen| seen.full_screen == Reading::Known(true)).await;
    drop(large);
    lab.until("it closes", |seen| seen.full_screen == Reading::Known(false)).await;

    // Now somebody manages windows: their word counts, not the size.
    let desktop = client.window(true);
    let manager = client.manage(&[&desktop, &small]);
    manager.activate(&small);
    manager.is_desktop(&desktop);
    lab.until("a desktop is not full screen", |seen| seen.full_screen == Reading::Known(false)).await;
    // A game that is said to be borderless says nothing to the window manager; nor does one that it is to leave alone.
    for beside_manager in [false, true] {
        let borderless = if beside_manager { client.window_beside_manager() } else { client.window(true) };
        let _managed = if beside_manager {
            client.manage(&[&desktop, &small])
        } else {
            client.manage(&[&desktop, &small, &borderless])
        };
        lab.until("a borderless window", |seen| seen.full_screen == Reading::Known(true)).await;
        manager.maximize(&borderless, true);
        if !beside_manager {
            lab.until("one that is maximized", |seen| seen.full_screen == Reading::Known(false)).await;
        }
        drop(borderless);
        lab.until("it closes", |seen| seen.full_screen == Reading::Known(false)).await;
    }
    client.manage(&[&desktop, &small]);
    manager.full_screen(&small, true);
    lab.told("a window that is", |seen| seen.full_screen == Reading::Known(true)).await;
    assert_eq!(lab.seen("full screen").source, Some("X11"));
    manager.full_screen(&small, false);
    lab.told("not any more", |seen| seen.full_screen == Reading::Known(false)).await;
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_and_nothing_else_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let [x, bus, wayland] = ["x", "bus", "wayland-0"].map(|name| {
        // Accepts, and says nothing.
        std::os::unix::net::UnixListener::bind(folder.path().join(name)).unwrap()
    });
    let mut lab = Lab::new(|places| {
        places.display = Some(format!("{}:0", folder.path().join("x").display()));
        places.session_bus = Some(format!("unix:path={}", folder.path().join("bus").display()));
        places.system_bus = format!("unix:path={}", folder.path().join("bus").display());
        places.runtime = Some(folder.path().into());
    });
    lab.until("the disk meanwhile", |seen| matches!(seen.disk_free, Reading::Known(_))).await;
    assert!(matches!(lab.sensors.observe().idle, Reading::Unknown(why) if why.ends_with("is still being asked")));
    let graphical = "there is a graphical session, which does not let itself be asked";
    lab.until("the end of patience", |seen| seen.idle == Reading::Unknown(graphical.into())).await;
    lab.until("power from files", |seen| matches!(seen.power, Reading::Known(_))).await;
    drop((x, bus, wayland));
}

#[tokio::test]
async fn a_wayland_compositor_tells_of_idle_seats_and_of_input() {
    for version in [1, 2] {
        let compositor = Compositor::start(version);
        let mut lab = Lab::new(|places| places.runtime = Some(compositor.folder()));
        lab.until("somebody at it", active).await;
        assert_eq!(lab.seen("idle").source, Some("Wayland"));
        compositor.idled();
        lab.until("a pause", |seen| idle(seen, 2000)).await;
        compositor.resumed();
        lab.told("input", active).await;
        // The session ends; a compositor without the protocol is asked in vain.
        drop(compositor);
        lab.source("idle", "the terminals").await;
    }
    // An X server beside a compositor sees a part of the input only, whether or not it says so.
    let old = Compositor::start(0);
    let screen = Screen::start();
    let mut lab = Lab::new(|places| {
        (places.runtime, places.display) = (Some(old.folder()), screen.as_ref().map(|screen| screen.name.clone()));
    });
    lab.until(
        "no answer",
        |seen| matches!(&seen.idle, Reading::Unknown(why) if why.starts_with("there is a graphical")),
    )
    .await;
}

#[tokio::test]
async fn terminals_tell_of_what_is_typed() {
    let mut lab = Lab::new(|_| ());
    let pts = lab.root.path().join("dev/pts");
    fs::create_dir_all(&pts).unwrap();
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(5000);
    let file = fs::File::create(pts.join("0")).unwrap();
    file.set_times(fs::FileTimes::new().set_accessed(long_ago)).unwrap();
    fs::write(pts.join("0"), "typed").unwrap();
    file.set_times(fs::FileTimes::new().set_accessed(long_ago)).unwrap();
    lab.until("a terminal", |seen| idle(seen, 1200) && seen.idle != Reading::Known(Duration::MAX)).await;
    fs::read(pts.join("0")).unwrap();
    lab.told("a key", active).await;
}

/// UPower, NetworkManager and logind, mocked on a private bus.
#[tokio::test]
async fn the_services_of_a_laptop_tell() {
    let Some(mut computer) = computer() else { return };
    let mut lab = Lab::new(|places| {
        places.system_bus = computer.system_bus.clone();
        fs::create_dir_all(places.root.join("sys/class/power_supply")).unwrap();
        // What leads out may be a phone's hot spot.
        let put = |file: &str, text: &str| {
            let file = places.root.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        put(
            "proc/net/route",
            "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\nwlan0\t00000000\t0100A8C0\t0003\t0\t0\t600\t00000000\n",
        );
        put("sys/class/net/wlan0/uevent", "DEVTYPE=wlan\n");
    });
    let on = |on_mains, percent| Reading::Known(Power { on_mains, charge_percent: Some(percent) });
    lab.until("mains", |seen| seen.power == on(true, 80.0)).await;
    assert_eq!(lab.seen("power").source, Some("UPower"));
    computer.does("mains no");
    lab.told("unplugged", |seen| seen.power == on(false, 80.0)).await;
    computer.does("charge 41");
    lab.told("less charge", |seen| seen.power == on(false, 41.0)).await;

    lab.until("a free network", |seen| seen.metered == Reading::Known(false)).await;
    computer.does("metered 1");
    lab.told("a metered network", |seen| seen.metered == Reading::Known(true)).await;
    assert_eq!(lab.seen("metered").source, Some("NetworkManager"));
    computer.does("metered 0");
    lab.told("nobody knows", |seen| matches!(seen.metered, Reading::Unknown(_))).await;

    // A service that goes is told, and what is left is asked.
    computer.does("upower stop");
    lab.told("no UPower", |seen| seen.power == Reading::Known(Power { on_mains: true, charge_percent: None })).await;
    computer.does("upower start");
    lab.until("UPower again", |seen| matches!(seen.power, Reading::Known(Power { on_mains: false, .. }))).await;
}

#[tokio::test]
async fn logind_tells_of_sessions_and_holds_sleep_up_until_the_checkpoint_is_written() {
    let Some(mut computer) = computer() else { return };
    let mut lab = Lab::new(|places| places.system_bus = computer.system_bus.clone());
    lab.until("nobody logged in", |seen| seen.idle == Reading::Known(Duration::MAX)).await;
    assert_eq!(lab.seen("idle").source, Some("logind"));
    computer.does("session x11");
    lab.told(
        "a session that does not say",
        |seen| matches!(&seen.idle, Reading::Unknown(why) if why.contains("logind")),
    )
    .await;
    computer.does("idle yes");
    lab.told("an idle session", |seen| idle(seen, 50_000)).await;
    computer.does("idle no");
    lab.told("one in use", |seen| matches!(seen.idle, Reading::Unknown(_))).await;
    computer.does("locked yes");
    lab.told("a locked one", |seen| matches!(seen.idle, Reading::Known(_))).await;

    let since = Instant::now();
    while computer.does("inhibitors") != "Nightjar:sleep:delay" {
        assert!(since.elapsed() < PATIENCE, "no inhibitor: {}", computer.does("inhibitors"));
    }
    assert!(lab.sensors.sleep_delay().is_none(), "nothing to hold up yet");
    computer.does("sleep yes");
    lab.told("sleep", |seen| seen.sleeping).await;
    let delay = lab.sensors.sleep_delay().expect("the inhibitor is handed over");
    assert!(lab.sensors.sleep_delay().is_none(), "once");
    assert_eq!(computer.does("inhibitors"), "Nightjar:sleep:delay");
    drop(delay);
    while !computer.does("inhibitors").is_empty() {
        assert!(since.elapsed() < PATIENCE, "the inhibitor is not released");
    }
    computer.does("sleep no");
    lab.told("awake", |seen| !seen.sleeping).await;
    while computer.does("inhibitors") != "Nightjar:sleep:delay" {
        assert!(since.elapsed() < PATIENCE, "no new inhibitor");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
