//! X11: idle time from the XScreenSaver extension, with an alarm on the server's IDLETIME counter (SYNC extension) that
//! tells of the first input at once; and whether a window covers the screen. The X library waits for its server, so
//! each question has a thread of its own, and a server that hangs holds up nothing else.

use crate::{
    policy::Reading,
    sensor::{facts::Input, places::Places, readings::Reporter},
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
        randr::{self, ConnectionExt as _},
        screensaver::ConnectionExt as _,
        sync::{self, ConnectionExt as _},
        xproto::{
            Atom, AtomEnum, ChangeWindowAttributesAux, ConnectionExt as _, EventMask, MapState, Window, WindowClass,
        },
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
/// Most monitors that are looked at.
const MONITORS_MAX: usize = 32;
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
    /// Whether it shows X windows on a Wayland compositor, and so sees input to those only. Servers before Xwayland 23
    /// do not say so; then a compositor's socket tells.
    within_wayland: bool,
    /// Dead once nobody wants to know any more.
    alive: Weak<()>,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Question {
    /// Asks for the idle time until that fails; returns why.
    pub async fn idle(self, places: Places, reporter: Reporter<Input>) -> String {
        self.ask(places, move |display| display.idle(&reporter)).await
    }

    /// Asks for full-screen windows until that fails; returns why.
    pub async fn full_screen(self, places: Places, reporter: Reporter<bool>) -> String {
        self.ask(places, move |display| display.full_screen(&reporter)).await
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

    fn idle(&self, reporter: &Reporter<Input>) -> Result<(), Failure> {
        if self.within_wayland {
            return Err("on Wayland it sees only a part of the input".into());
        }
        let has_alarm = self.set_alarm().unwrap_or(false);
        while self.alive.upgrade().is_some() {
            let info = self.connection.screensaver_query_info(self.root)?.reply()?;
            let idle = Duration::from_millis(info.ms_since_user_input.into());
            reporter.says_for(Reading::Known(Input::ago(idle)), FRESH);
            let pause = if has_alarm { EVERY } else { crate::sensor::pause(Some(idle), reporter.wants().idle) };
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
        let Some(idle_time) = counters.into_iter().find(|counter| counter.name == b"IDLETIME") else {
            return Ok(false);
        };
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

    fn full_screen(&self, reporter: &Reporter<bool>) -> Result<(), Failure> {
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
                reporter.passes("Wayland tells nobody which windows cover the screen");
            } else {
                reporter.says_for(Reading::Known(covered), FRESH);
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

    /// Whether the window manager shows any window full screen on the desktop in view, or one without a frame covers a
    /// monitor all the same, as games do that are said to be borderless.
    fn covered(&self, atoms: &Atoms) -> Result<bool, Failure> {
        let in_view = self.property(self.root, atoms.current_desktop, 1)?.first().copied();
        let monitors = self.monitors()?;
        for window in self.property(self.root, atoms.clients, WINDOWS_MAX)? {
            // Windows come and go between two questions.
            let Ok(states) = self.property(window, atoms.state, 32) else { continue };
            let desktop = self.property(window, atoms.desktop, 1).unwrap_or_default().first().copied();
            // The last number means all desktops.
            let is_in_view = desktop.is_none() || desktop == Some(u32::MAX) || desktop == in_view;
            if !is_in_view || states.contains(&atoms.hidden) {
                continue;
            }
            if states.contains(&atoms.full_screen) || self.is_borderless(window, &states, atoms, &monitors) {
                return Ok(true);
            }
        }
        self.covered_beside_manager(atoms, &monitors)
    }

    /// Whether a managed window covers a monitor without being said to be full screen. One that is maximized may do so
    /// where there is no panel, and the desktop itself does.
    fn is_borderless(&self, window: Window, states: &[Atom], atoms: &Atoms, monitors: &[Place]) -> bool {
        let is_maximized =
            states.contains(&atoms.maximized_vertically) && states.contains(&atoms.maximized_horizontally);
        let attributes = || self.connection.get_window_attributes(window).ok()?.reply().ok();
        !is_maximized
            && self.place(window).is_some_and(|at| at.covers_any(monitors))
            && attributes().is_some_and(|window| window.map_state == MapState::VIEWABLE)
            && !self.is_furniture(window, atoms)
    }

    /// Whether it is the desktop, or a panel.
    fn is_furniture(&self, window: Window, atoms: &Atoms) -> bool {
        let kinds = self.property(window, atoms.kind, 8).unwrap_or_default();
        kinds.contains(&atoms.kind_desktop) || kinds.contains(&atoms.kind_dock)
    }

    /// Whether a window that the window manager was told to leave alone covers a monitor. A locked screen is no film.
    fn covered_beside_manager(&self, atoms: &Atoms, monitors: &[Place]) -> Result<bool, Failure> {
        let windows = self.connection.query_tree(self.root)?.reply()?.children;
        for window in windows.into_iter().rev().take(WINDOWS_MAX as usize) {
            let Ok(attributes) = self.connection.get_window_attributes(window)?.reply() else { continue };
            let counts = attributes.override_redirect
                && attributes.map_state == MapState::VIEWABLE
                && attributes.class == WindowClass::INPUT_OUTPUT;
            if counts
                && self.place(window).is_some_and(|at| at.covers_any(monitors))
                && !self.is_furniture(window, atoms)
                && !self.is_guard(window)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a window locks the screen, or is a window manager's own.
    fn is_guard(&self, window: Window) -> bool {
        let text = |property: AtomEnum| {
            let reply =
                self.connection.get_property(false, window, property, AtomEnum::ANY, 0, 64).ok()?.reply().ok()?;
            Some(String::from_utf8_lossy(&reply.value).to_lowercase())
        };
        let names = [AtomEnum::WM_CLASS, AtomEnum::WM_NAME].into_iter().filter_map(text).collect::<String>();
        ["lock", "saver", "guard"].iter().any(|word| names.contains(word))
    }

    /// Where a window is on the screen, its border included, whatever frames it is in.
    fn place(&self, window: Window) -> Option<Place> {
        let size = self.connection.get_geometry(window).ok()?.reply().ok()?;
        let at = self.connection.translate_coordinates(window, self.root, 0, 0).ok()?.reply().ok()?;
        let Place { left, top, right, bottom } = Place::new(at.dst_x, at.dst_y, size.width, size.height);
        let border = i32::from(size.border_width);
        Some(Place { left: left - border, top: top - border, right: right + border, bottom: bottom + border })
    }

    /// The monitors that there are; where the server does not say, the whole screen.
    fn monitors(&self) -> Result<Vec<Place>, Failure> {
        if self.connection.extension_information(randr::X11_EXTENSION_NAME)?.is_some()
            && let Ok(reply) = self.connection.randr_get_monitors(self.root, true)?.reply()
            && !reply.monitors.is_empty()
        {
            let monitors = reply.monitors.iter().take(MONITORS_MAX);
            return Ok(monitors.map(|m| Place::new(m.x, m.y, m.width, m.height)).collect());
        }
        let screen = self.connection.get_geometry(self.root)?.reply()?;
        Ok(vec![Place::new(0, 0, screen.width, screen.height)])
    }

    /// Where no window manager tells: whether a window covers a monitor.
    fn covered_without_manager(&self) -> Result<bool, Failure> {
        let monitors = self.monitors()?;
        let windows = self.connection.query_tree(self.root)?.reply()?.children;
        for window in windows.into_iter().rev().take(WINDOWS_MAX as usize) {
            let Ok(attributes) = self.connection.get_window_attributes(window)?.reply() else { continue };
            if attributes.map_state == MapState::VIEWABLE
                && self.place(window).is_some_and(|at| at.covers_any(&monitors))
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

/// A rectangle of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    left: i32,
    top: i32,
    right: i32,
    bottom: i32,
}

impl Place {
    fn new(x: i16, y: i16, width: u16, height: u16) -> Self {
        let (left, top) = (i32::from(x), i32::from(y));
        Place { left, top, right: left + i32::from(width), bottom: top + i32::from(height) }
    }

    fn covers_any(self, others: &[Place]) -> bool {
        let covers = |other: &Place| {
            let Place { left, top, right, bottom } = *other;
            right > left && self.left <= left && self.top <= top && self.right >= right && self.bottom >= bottom
        };
        others.iter().any(covers)
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
    maximized_vertically: Atom,
    maximized_horizontally: Atom,
    kind: Atom,
    kind_desktop: Atom,
    kind_dock: Atom,
}

impl Atoms {
    fn of(connection: &RustConnection) -> Result<Self, Failure> {
        let atom =
            |name: &str| -> Result<Atom, Failure> { Ok(connection.intern_atom(false, name.as_bytes())?.reply()?.atom) };
        Ok(Atoms {
            manager: atom("_NET_SUPPORTING_WM_CHECK")?,
            active: atom("_NET_ACTIVE_WINDOW")?,
            clients: atom("_NET_CLIENT_LIST")?,
            current_desktop: atom("_NET_CURRENT_DESKTOP")?,
            desktop: atom("_NET_WM_DESKTOP")?,
            state: atom("_NET_WM_STATE")?,
            full_screen: atom("_NET_WM_STATE_FULLSCREEN")?,
            hidden: atom("_NET_WM_STATE_HIDDEN")?,
            maximized_vertically: atom("_NET_WM_STATE_MAXIMIZED_VERT")?,
            maximized_horizontally: atom("_NET_WM_STATE_MAXIMIZED_HORZ")?,
            kind: atom("_NET_WM_WINDOW_TYPE")?,
            kind_desktop: atom("_NET_WM_WINDOW_TYPE_DESKTOP")?,
            kind_dock: atom("_NET_WM_WINDOW_TYPE_DOCK")?,
        })
    }

    /// Whether a change of this property may cover or free a screen.
    fn tell(&self, property: Atom) -> bool {
        [self.active, self.clients, self.current_desktop, self.desktop, self.state].contains(&property)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_covers_a_monitor_or_it_does_not() {
        let monitors = [Place::new(0, 0, 1920, 1080), Place::new(1920, 0, 1280, 1024)];
        let covers = |x, y, width, height| Place::new(x, y, width, height).covers_any(&monitors);
        assert!(covers(0, 0, 1920, 1080) && covers(1920, 0, 1280, 1024) && covers(-5, -5, 2000, 1100));
        assert!(!covers(0, 0, 1920, 1050), "a panel is left free");
        assert!(!covers(960, 0, 1920, 1080), "half of either");
        assert!(!Place::new(0, 0, 10, 10).covers_any(&[Place::new(0, 0, 0, 0)]), "a monitor that is off");
    }
}
