//! The tray icon on a real bus: a `dbus-daemon` of its own, with a panel that keeps a list of icons, as desktops have
//! it.
#![cfg(target_os = "linux")]

use nightjar_agent::tray::{self, IconView, MenuChoice, State};
use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio::sync::{mpsc, watch};
use zbus::{
    Connection, Proxy,
    zvariant::{OwnedValue, Value},
};

/// A bus that ends with the test.
struct Bus {
    daemon: Child,
    address: String,
}

impl Bus {
    /// `None` where no `dbus-daemon` is installed, which is a failure in CI.
    fn start() -> Option<Bus> {
        let spawned = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--print-address"])
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut daemon) = spawned else {
            assert!(std::env::var_os("CI").is_none(), "CI needs dbus-daemon: `cargo xtask setup`");
            eprintln!("SKIPPED: dbus-daemon is not installed");
            return None;
        };
        let mut address = String::new();
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Some(Bus { daemon, address: address.trim().to_owned() })
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// Runs one of the ignored tests below in a process whose session bus this is: an address in the environment counts for
/// a whole process.
fn with_bus(address: &str, test: &str) {
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", test, "--ignored", "--nocapture"]).env("DBUS_SESSION_BUS_ADDRESS", address);
    let ended = again.output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn the_icon_is_shown_follows_the_agent_and_its_menu_pauses() {
    if let Some(bus) = Bus::start() {
        with_bus(&bus.address, "on_a_bus_with_a_panel");
    }
}

#[test]
fn without_a_bus_nothing_is_hurt() {
    with_bus("unix:path=/nonexistent/bus", "on_no_bus");
}

/// What a desktop's panel offers to icons.
struct Watcher {
    registered: mpsc::UnboundedSender<String>,
}

#[zbus::interface(name = "org.kde.StatusNotifierWatcher")]
impl Watcher {
    fn register_status_notifier_item(&self, service: String) {
        let _ = self.registered.send(service);
    }

    #[zbus(property)]
    fn is_status_notifier_host_registered(&self) -> bool {
        true
    }
}

/// Asks again and again, for what takes a moment to get over the bus.
async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    for _ in 0..600 {
        if let Some(found) = ask().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what}: not within 30 s");
}

type Layout = (i32, HashMap<String, OwnedValue>, Vec<OwnedValue>);

/// The menu's lines that are no separators: number, label, whether it can be chosen.
async fn menu(bus: &Connection, name: &str) -> Vec<(i32, String, bool)> {
    let proxy = Proxy::new(bus, name.to_owned(), "/MenuBar", "com.canonical.dbusmenu").await.unwrap();
    let (_, (_, _, children)): (u32, Layout) =
        proxy.call("GetLayout", &(0i32, -1i32, Vec::<String>::new())).await.unwrap();
    let line = |child: OwnedValue| {
        let Value::Structure(parts) = &*child else { panic!("no menu item: {child:?}") };
        let (id, properties, _): Layout = Value::from(parts.try_clone().unwrap()).try_into().unwrap();
        let label = properties.get("label").and_then(|label| label.downcast_ref::<String>().ok())?;
        let enabled = properties.get("enabled").and_then(|on| on.downcast_ref::<bool>().ok()).unwrap_or(true);
        Some((id, label, enabled))
    };
    children.into_iter().filter_map(line).collect()
}

async fn click(bus: &Connection, name: &str, label: &str) {
    let (id, ..) = menu(bus, name).await.into_iter().find(|(_, l, _)| l == label).unwrap();
    let proxy = Proxy::new(bus, name.to_owned(), "/MenuBar", "com.canonical.dbusmenu").await.unwrap();
    let _: () = proxy.call("Event", &(id, "clicked", Value::from(0i32), 0u32)).await.unwrap();
}

fn labels(menu: &[(i32, String, bool)]) -> Vec<&str> {
    menu.iter().map(|(_, label, _)| label.as_str()).collect()
}

#[tokio::test]
#[ignore = "started by the test above, on a bus of its own"]
async fn on_a_bus_with_a_panel() {
    let view = |state, sentence: &str| IconView { state, paused: state == State::Paused, sentence: sentence.into() };
    let (views, shown) = watch::channel(view(State::Running, "it trains: nobody uses the computer"));
    let (choices, mut chosen) = mpsc::channel(4);
    tray::spawn(shown, choices);

    // The panel comes later than the agent, as at a login.
    let bus = Connection::session().await.unwrap();
    let (registered, mut names) = mpsc::unbounded_channel();
    bus.object_server().at("/StatusNotifierWatcher", Watcher { registered }).await.unwrap();
    bus.request_name("org.kde.StatusNotifierWatcher").await.unwrap();
    let name = tokio::time::timeout(Duration::from_secs(30), names.recv()).await.expect("an icon registers").unwrap();

    let item = Proxy::new(&bus, name.clone(), "/StatusNotifierItem", "org.kde.StatusNotifierItem").await.unwrap();
    let text = async |key| item.get_property::<String>(key).await.unwrap();
    assert_eq!((text("Id").await, text("Status").await), ("nightjar".into(), "Active".into()));
    let pixmaps = item.get_property::<Vec<(i32, i32, Vec<u8>)>>("IconPixmap").await.unwrap();
    assert!(pixmaps.iter().all(|(w, h, bytes)| (w * h * 4) as usize == bytes.len()) && pixmaps.len() >= 3);
    let lines = menu(&bus, &name).await;
    assert_eq!(
        labels(&lines),
        ["It trains: nobody uses the computer", "Pause for 1 hour", "Pause until I resume", "Open the page", "Quit"]
    );
    assert!(!lines[0].2 && lines[1..].iter().all(|line| line.2), "the sentence is no button: {lines:?}");

    for (label, choice) in [
        ("Pause for 1 hour", MenuChoice::Pause(Some(Duration::from_secs(3600)))),
        ("Pause until I resume", MenuChoice::Pause(None)),
        ("Open the page", MenuChoice::OpenPage),
        ("Quit", MenuChoice::Quit),
    ] {
        click(&bus, &name, label).await;
        assert_eq!(chosen.recv().await, Some(choice));
    }
    let _: () = item.call("Activate", &(0i32, 0i32)).await.unwrap();
    assert_eq!(chosen.recv().await, Some(MenuChoice::OpenPage));

    views.send(view(State::Paused, "you have paused it")).unwrap();
    until("a menu that can resume", async || labels(&menu(&bus, &name).await).contains(&"Resume").then_some(())).await;
    click(&bus, &name, "Resume").await;
    assert_eq!(chosen.recv().await, Some(MenuChoice::Resume));

    views.send(view(State::Trouble, "the GPU's driver has crashed 3 times")).unwrap();
    let fresh = async || {
        let item = Proxy::new(&bus, name.clone(), "/StatusNotifierItem", "org.kde.StatusNotifierItem").await.unwrap();
        (item.get_property::<String>("Status").await.unwrap() == "NeedsAttention").then_some(())
    };
    until("an icon that asks for attention", fresh).await;

    // The agent ends: so does its icon.
    drop(views);
    let dbus = zbus::fdo::DBusProxy::new(&bus).await.unwrap();
    let gone = async || (!dbus.name_has_owner(name.as_str().try_into().unwrap()).await.unwrap()).then_some(());
    until("an icon that is gone", gone).await;
}

#[tokio::test]
#[ignore = "started by the test above, without a bus"]
async fn on_no_bus() {
    let (views, shown) = watch::channel(IconView::default());
    let (choices, mut chosen) = mpsc::channel(1);
    tray::spawn(shown, choices);
    for _ in 0..20 {
        views.send(IconView { state: State::Running, paused: false, sentence: "it trains".into() }).unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(views.receiver_count(), 1, "it still waits for a bus");
    drop(views);
    assert_eq!(chosen.recv().await, None, "it ends with the agent");
}
