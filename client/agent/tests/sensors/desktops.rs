//! Desktops that tell of idle time on the session bus: GNOME's Mutter, and screen savers that count in seconds or
//! milliseconds; and one that keeps the screen on.

use super::{Lab, active, computer, idle};
use nightjar_agent::policy::Reading;
use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use zbus::{Connection, connection, interface, object_server::SignalEmitter};

#[derive(Clone)]
struct Mutter {
    last_input: Arc<Mutex<Instant>>,
    armed: Arc<Mutex<Option<u32>>>,
}

#[interface(name = "org.gnome.Mutter.IdleMonitor")]
impl Mutter {
    fn get_idletime(&self) -> u64 {
        self.last_input.lock().unwrap().elapsed().as_millis() as u64
    }

    fn add_user_active_watch(&self) -> u32 {
        *self.armed.lock().unwrap().get_or_insert(7)
    }

    #[zbus(signal)]
    async fn watch_fired(emitter: &SignalEmitter<'_>, id: u32) -> zbus::Result<()>;
}

const MUTTER: &str = "/org/gnome/Mutter/IdleMonitor/Core";

async fn service<I: zbus::object_server::Interface>(address: &str, name: &str, path: &str, object: I) -> Connection {
    let builder = connection::Builder::address(address).unwrap().name(name.to_owned()).unwrap();
    builder.serve_at(path.to_owned(), object).unwrap().build().await.unwrap()
}

#[tokio::test]
async fn mutter_tells_of_input_by_its_watch() {
    let Some(computer) = computer() else { return };
    let mutter = Mutter { last_input: Arc::new(Mutex::new(Instant::now())), armed: Arc::default() };
    let served = service(&computer.session_bus, "org.gnome.Mutter.IdleMonitor", MUTTER, mutter.clone()).await;
    let mut lab = Lab::new(|places| places.session_bus = Some(computer.session_bus.clone()));
    for _ in 0..2 {
        lab.until("a pause with a watch", |seen| idle(seen, 1200) && mutter.armed.lock().unwrap().is_some()).await;
        assert_eq!(lab.seen("idle").source, Some("Mutter"));
        *mutter.last_input.lock().unwrap() = Instant::now();
        let watch = mutter.armed.lock().unwrap().take().unwrap();
        let emitter = SignalEmitter::new(&served, MUTTER).unwrap();
        Mutter::watch_fired(&emitter, watch).await.unwrap();
        lab.told("input", active).await;
    }
    // The session ends.
    drop(served);
    lab.source("idle", "the terminals").await;
}

struct ScreenSaver {
    last_input: Arc<Mutex<Instant>>,
    unit_ms: u128,
}

#[interface(name = "org.freedesktop.ScreenSaver")]
impl ScreenSaver {
    fn get_session_idle_time(&self) -> u32 {
        (self.last_input.lock().unwrap().elapsed().as_millis() / self.unit_ms) as u32
    }
}

#[tokio::test]
async fn screen_savers_are_understood_whatever_they_count_in() {
    let Some(computer) = computer() else { return };
    for unit_ms in [1000, 1] {
        let last_input = Arc::new(Mutex::new(Instant::now() - Duration::from_secs(100)));
        let saver = ScreenSaver { last_input: last_input.clone(), unit_ms };
        let name = "org.freedesktop.ScreenSaver";
        let _served = service(&computer.session_bus, name, "/org/freedesktop/ScreenSaver", saver).await;
        let mut lab = Lab::new(|places| places.session_bus = Some(computer.session_bus.clone()));
        let hundred = |seen: &_| idle(seen, 100_000) && !idle(seen, 200_000);
        lab.until("a hundred seconds", hundred).await;
        assert_eq!(lab.seen("idle").source, Some("the screen saver"));
        *last_input.lock().unwrap() = Instant::now();
        lab.told("input", active).await;
    }
}

struct SessionManager {
    inhibited: Arc<Mutex<bool>>,
}

#[interface(name = "org.gnome.SessionManager")]
impl SessionManager {
    fn is_inhibited(&self, flags: u32) -> bool {
        flags == 8 && *self.inhibited.lock().unwrap()
    }
}

#[tokio::test]
async fn a_program_that_keeps_the_screen_on_counts_as_full_screen() {
    let Some(computer) = computer() else { return };
    let inhibited = Arc::new(Mutex::new(false));
    let manager = SessionManager { inhibited: inhibited.clone() };
    let _served =
        service(&computer.session_bus, "org.gnome.SessionManager", "/org/gnome/SessionManager", manager).await;
    let mut lab = Lab::new(|places| {
        places.session_bus = Some(computer.session_bus.clone());
        places.runtime = Some(places.root.clone());
        places.wayland = Some("a-session-that-does-not-answer".into());
    });
    let nobody = "the desktop tells nobody which windows cover the screen";
    lab.until("nothing known", |seen| seen.full_screen == Reading::Unknown(nobody.into())).await;
    *inhibited.lock().unwrap() = true;
    lab.told("a film", |seen| seen.full_screen == Reading::Known(true)).await;
    assert_eq!(lab.seen("full screen").source, Some("the desktop"));
}
