//! X11: idle time from the XScreenSaver extension, with an alarm on the server's IDLETIME counter (SYNC extension) that tells of
//! the first input at once; and whether a window covers the screen. The X library waits for its server, so each question has
//! a thread of its own, and a server that hangs holds up nothing else.

use crate::{
    policy::Reading,
    sensor::{board::Post, facts::Input, places::Places},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use x11rb::{
    connection::{Connection, RequestConnection},
    protocol::{
        Event,
        screensaver::ConnectionExt as _,
        sync::{self, ConnectionExt as _},
        xproto::{Atom, AtomEnum, ChangeWindowAttributesAux, ConnectionExt as _, EventMask, MapState, Window},
    },
    rust_connection::RustConnection,
};

/// The server is asked again after this time, whatever it tells.
const EVERY: Duration = Duration::from_millis(2500);
/// What it said holds for so long.
const FRESH: Duration = Duration::from_secs(20);
/// An alarm goes off at the first input after this time without.
const ALARM_MS: u32 = 500;
/// Windows are not looked at more often than this.
const BREATHER: Duration = Duration::from_millis(100);
/// Most windows that are looked at.
const WINDOWS_MAX: u32 = 256;

/// A question to the X server, asked again and again; at most one thread waits for its answers.
#[derive(Clone, Default)]
pub struct Question {
    asked: Arc<AtomicBool>,
}

struct Display {
    connection: RustConnection,
    root: Window,
    /// Whether it shows X windows on a Wayland compositor, and so sees input to those only. Servers before Xwayland 23 do not
    /// say so; then a compositor's socket tells.
    within_wayland: bool,
    /// Dead once nobody wants to know any more.
    alive: Weak<()>,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Question {
    /// Asks for the idle time until that fails; returns why.
    pub async fn idle(self, places: Places, post: Post<Input>) -> String {
        self.ask(places, move |display| display.idle(&post)).await
    }

    /// Asks for full-screen windows until that fails; returns why.
    pub async fn full_screen(self, places: Places, post: Post<bool>) -> String {
        self.ask(places, move |display| display.full_screen(&post)).await
    }

    async fn ask(self, places: Places, question: impl Fn(&Display) -> Result<(), Failure> + Send + 'static) -> String {
        if self.asked.swap(true, Ordering::SeqCst) {
            return "the X server does not answer".into();
        }
        let life = Arc::new(());
        let alive = Arc::downgrade(&life);
        let asked = self.asked.clone();
        let (tell, told) = tokio::sync::oneshot::channel();
        let thread = std::thread::Builder::new().name("x11".into()).stack_size(256 << 10).spawn(move || {
            let mut why = "there is no X display".to_owned();
            let beside_wayland = !places.wayland_sockets().is_empty();
            for name in places.x_displays() {
                let answer = Display::open(&name, beside_wayland, alive.clone()).and_then(|display| question(&display));
                match answer {
                    Ok(()) => break,
                    Err(e) => why = format!("{name}: {}", e.to_string().chars().take(160).collect::<String>()),
                }
            }
            asked.store(false, Ordering::SeqCst);
            // Nobody may wait for it any more.
            let _ = tell.send(why);
        });
        if let Err(e) = thread {
            self.asked.store(false, Ordering::SeqCst);
            return format!("no thread for X11 ({e})");
        }
        let why = told.await;
        drop(life);
        why.unwrap_or_else(|_| "the X server's answers make no sense".into())
    }
}

impl Display {
    fn open(name: &str, beside_wayland: bool, alive: Weak<()>) -> Result<Self, Failure> {
        let (connection, screen) = RustConnection::connect(Some(name))?;
        let root = connection.setup().roots.get(screen).ok_or("it has no such screen")?.root;
        let within_wayland = beside_wayland || connection.query_extension(b"XWAYLAND")?.reply()?.present;
        Ok(Display { connection, root, within_wayland, alive })
    }

    fn idle(&self, post: &Post<Input>) -> Result<(), Failure> {
        if self.within_wayland {
            return Err("on Wayland it sees only a part of the input".into());
        }
        let has_alarm = self.set_alarm().unwrap_or(false);
        while self.alive.upgrade().is_some() {
            let info = self.connection.screensaver_query_info(self.root)?.reply()?;
            let idle = Duration::from_millis(info.ms_since_user_input.into());
            post.says_for(Reading::Known(Input::ago(idle)), FRESH);
            let pause = if has_alarm { EVERY } else { crate::sensor::pause(Some(idle), post.wants().idle) };
            self.wait(pause, |event| matches!(event, Event::SyncAlarmNotify(_)))?;
        }
        Ok(())
    }

    /// Has the server tell of the first input after a while; `false` where it cannot.
    fn set_alarm(&self) -> Result<bool, Failure> {
        if self.connection.extension_information(sync::X11_EXTENSION_NAME)?.is_none() {
            return Ok(false);
        }
        self.connection.sync_initialize(3, 1)?.reply()?;
        let counters = self.connection.sync_list_system_counters()?.reply()?.counters;
        let Some(idle_time) = counters.into_iter().find(|counter| counter.name == b"IDLETIME") else { return Ok(false) };
        let alarm = sync::CreateAlarmAux::new()
            .counter(idle_time.counter)
            .value_type(sync::VALUETYPE::ABSOLUTE)
            .value(sync::Int64 { hi: 0, lo: ALARM_MS })
            .test_type(sync::TESTTYPE::NEGATIVE_TRANSITION)
            .delta(sync::Int64 { hi: 0, lo: 0 })
            .events(1);
        self.connection.sync_create_alarm(self.connection.generate_id()?, &alarm)?.check()?;
        Ok(true)
    }

    /// Waits for an event that counts, at most `time`.
    fn wait(&self, time: Duration, counts: impl Fn(&Event) -> bool) -> Result<(), Failure> {
        let end = Instant::now() + time;
        self.connection.flush()?;
        loop {
            let mut any = false;
            while let Some(event) = self.connection.poll_for_event()? {
                any |= counts(&event);
            }
            let left = end.saturating_duration_since(Instant::now());
            if any || left.is_zero() {
                return Ok(());
            }
            let mut sockets = [PollFd::new(self.connection.stream(), PollFlags::IN)];
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            match poll(&mut sockets, Some(&left)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn full_screen(&self, post: &Post<bool>) -> Result<(), Failure> {
        let atoms = Atoms::of(&self.connection)?;
        let tell = ChangeWindowAttributesAux::new().event_mask(EventMask::PROPERTY_CHANGE);
        let tell_of_windows = EventMask::PROPERTY_CHANGE | EventMask::SUBSTRUCTURE_NOTIFY;
        let tell_at_root = ChangeWindowAttributesAux::new().event_mask(tell_of_windows);
        self.connection.change_window_attributes(self.root, &tell_at_root)?.check()?;
        let mut active = 0;
        while self.alive.upgrade().is_some() {
            // The window in use tells when it goes full screen.
            let now_active = self.property(self.root, atoms.active, 1)?.first().copied().unwrap_or(0);
            if now_active != active {
                active = now_active;
                if active != 0 {
                    // It may have been closed since.
                    let _ = self.connection.change_window_attributes(active, &tell)?.check();
                }
            }
            let covered = if self.property(self.root, atoms.manager, 1)?.is_empty() {
                self.covered_without_manager()?
            } else {
                self.covered(&atoms)?
            };
            if self.within_wayland && !covered {
                post.passes("Wayland tells nobody which windows cover the screen");
            } else {
                post.says_for(Reading::Known(covered), FRESH);
            }
            // Windows change their properties all the time; where one moves among many, others follow.
            self.wait(EVERY, |event| match event {
                Event::PropertyNotify(told) => atoms.tell(told.atom),
                Event::MapNotify(_) | Event::UnmapNotify(_) | Event::DestroyNotify(_) => true,
                _ => false,
            })?;
            std::thread::sleep(BREATHER);
        }
        Ok(())
    }

    /// Whether the window manager shows any window full screen on the desktop in view.
    fn covered(&self, atoms: &Atoms) -> Result<bool, Failure> {
        let in_view = self.property(self.root, atoms.current_desktop, 1)?.first().copied();
        for window in self.property(self.root, atoms.clients, WINDOWS_MAX)? {
            // Windows come and go between two questions.
            let Ok(states) = self.property(window, atoms.state, 32) else { continue };
            if !states.contains(&atoms.full_screen) || states.contains(&atoms.hidden) {
                continue;
            }
            let desktop = self.property(window, atoms.desktop, 1).unwrap_or_default().first().copied();
            // The last number means all desktops.
            if desktop.is_none() || desktop == Some(u32::MAX) || desktop == in_view {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Where no window manager tells: whether a window is as large as the screen.
    fn covered_without_manager(&self) -> Result<bool, Failure> {
        let screen = self.connection.get_geometry(self.root)?.reply()?;
        let windows = self.connection.query_tree(self.root)?.reply()?.children;
        for window in windows.into_iter().rev().take(WINDOWS_MAX as usize) {
            let (attributes, geometry) =
                (self.connection.get_window_attributes(window)?.reply(), self.connection.get_geometry(window)?.reply());
            let (Ok(attributes), Ok(at)) = (attributes, geometry) else { continue };
            if attributes.map_state == MapState::VIEWABLE
                && at.x <= 0
                && at.y <= 0
                && i32::from(at.x) + i32::from(at.width) >= i32::from(screen.width)
                && i32::from(at.y) + i32::from(at.height) >= i32::from(screen.height)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A property that is a list of numbers, at most so many; empty where there is none.
    fn property(&self, window: Window, name: Atom, max: u32) -> Result<Vec<u32>, Failure> {
        let reply = self.connection.get_property(false, window, name, AtomEnum::ANY, 0, max)?.reply()?;
        Ok(reply.value32().map(Iterator::collect).unwrap_or_default())
    }
}

/// The names of the properties and states that window managers use.
struct Atoms {
    manager: Atom,
    active: Atom,
    clients: Atom,
    current_desktop: Atom,
    desktop: Atom,
    state: Atom,
    full_screen: Atom,
    hidden: Atom,
}

impl Atoms {
    fn of(connection: &RustConnection) -> Result<Self, Failure> {
        let atom = |name: &str| -> Result<Atom, Failure> { Ok(connection.intern_atom(false, name.as_bytes())?.reply()?.atom) };
        Ok(Atoms {
            manager: atom("_NET_SUPPORTING_WM_CHECK")?,
            active: atom("_NET_ACTIVE_WINDOW")?,
            clients: atom("_NET_CLIENT_LIST")?,
            current_desktop: atom("_NET_CURRENT_DESKTOP")?,
            desktop: atom("_NET_WM_DESKTOP")?,
            state: atom("_NET_WM_STATE")?,
            full_screen: atom("_NET_WM_STATE_FULLSCREEN")?,
            hidden: atom("_NET_WM_STATE_HIDDEN")?,
        })
    }

    /// Whether a change of this property may cover or free a screen.
    fn tell(&self, property: Atom) -> bool {
        [self.active, self.clients, self.current_desktop, self.desktop, self.state].contains(&property)
    }
}
