//! Idle time from a Wayland compositor (ext-idle-notify-v1): it says when input has ceased for a few seconds, and at
//! once when it begins again. Version 2 counts input alone; version 1 takes a film that keeps the screen on for use.

use crate::{
    policy::Reading,
    sensor::{facts::Input, places::Places, readings::Reporter},
};
use std::{
    collections::HashSet,
    os::{fd::BorrowedFd, unix::net::UnixStream},
    path::Path,
    time::Duration,
};
use wayland_client::{
    Connection, Dispatch, EventQueue, Proxy, QueueHandle,
    backend::{ObjectId, WaylandError},
    protocol::{
        wl_callback::{self, WlCallback},
        wl_registry::{self, WlRegistry},
        wl_seat::WlSeat,
    },
};
use wayland_protocols::ext::idle_notify::v1::client::{
    ext_idle_notification_v1::{self, ExtIdleNotificationV1},
    ext_idle_notifier_v1::ExtIdleNotifierV1,
};

/// Input that is longer ago than this is told by the compositor; less cannot be told apart from none.
const PATIENCE: Duration = Duration::from_secs(2);
/// More seats than anybody has: a compositor cannot make the agent keep an endless list.
const SEATS_MAX: usize = 16;

/// Asks the first compositor that answers until it fails; returns why.
pub async fn idle(places: Places, reporter: Reporter<Input>) -> String {
    let mut why = "there is no Wayland display".to_owned();
    for socket in places.wayland_sockets() {
        why = match watch(&socket, &reporter).await {
            Ok(()) => "the compositor went away".into(),
            Err(e) => e,
        };
    }
    why
}

#[derive(Default)]
struct State {
    notifier: Option<ExtIdleNotifierV1>,
    seats: Vec<(u32, WlSeat, Option<ExtIdleNotificationV1>)>,
    /// The notifications of seats that nobody uses.
    idle: HashSet<ObjectId>,
    /// Whether all globals have been told.
    complete: bool,
    changed: bool,
}

async fn watch(socket: &Path, reporter: &Reporter<Input>) -> Result<(), String> {
    let stream = tokio::net::UnixStream::connect(socket).await.and_then(tokio::net::UnixStream::into_std);
    let stream = stream.map_err(|e| format!("{} cannot be reached ({e})", socket.display()))?;
    let connection = Connection::from_socket(stream).map_err(|e| e.to_string())?;
    let mut queue = connection.new_event_queue::<State>();
    let (handle, display) = (queue.handle(), connection.display());
    let _registry = display.get_registry(&handle, ());
    display.sync(&handle, ());
    let mut state = State::default();
    while !state.complete {
        dispatch(&mut queue, &mut state).await?;
    }
    if state.notifier.is_none() {
        return Err("the compositor does not have ext-idle-notify".into());
    }
    loop {
        state.observe_seats(&handle);
        if state.changed {
            state.changed = false;
            let watched = state.seats.iter().filter_map(|(_, _, notification)| notification.as_ref());
            let all_idle = watched.clone().all(|notification| state.idle.contains(&notification.id()));
            reporter.says(Reading::Known(match watched.count() {
                0 => Input::Never,
                _ if all_idle => Input::ago(PATIENCE),
                _ => Input::Now,
            }));
        }
        dispatch(&mut queue, &mut state).await?;
    }
}

/// Waits for events and handles them.
async fn dispatch(queue: &mut EventQueue<State>, state: &mut State) -> Result<(), String> {
    queue.flush().map_err(|e| e.to_string())?;
    if let Some(guard) = queue.prepare_read() {
        readable(guard.connection_fd()).await.map_err(|e| e.to_string())?;
        match guard.read() {
            Err(WaylandError::Io(e)) if e.kind() != std::io::ErrorKind::WouldBlock => return Err(e.to_string()),
            Err(WaylandError::Protocol(e)) => return Err(e.to_string()),
            _ => {}
        }
    }
    queue.dispatch_pending(state).map(|_| ()).map_err(|e| e.to_string())
}

/// Waits until a socket has something to read, which somebody else reads.
async fn readable(socket: BorrowedFd<'_>) -> std::io::Result<()> {
    let socket = UnixStream::from(socket.try_clone_to_owned()?);
    socket.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(socket)?.readable().await
}

impl State {
    /// Asks for a notification of each seat that has none yet.
    fn observe_seats(&mut self, handle: &QueueHandle<State>) {
        let Some(notifier) = &self.notifier else { return };
        for (_, seat, notification) in self.seats.iter_mut().filter(|(_, _, notification)| notification.is_none()) {
            let patience = PATIENCE.as_millis() as u32;
            *notification = Some(match notifier.version() {
                1 => notifier.get_idle_notification(patience, seat, handle, ()),
                _ => notifier.get_input_idle_notification(patience, seat, handle, ()),
            });
            self.changed = true;
        }
    }
}

impl Dispatch<WlRegistry, ()> for State {
    fn event(
        state: &mut Self,
        registry: &WlRegistry,
        event: wl_registry::Event,
        (): &(),
        _: &Connection,
        handle: &QueueHandle<State>,
    ) {
        match event {
            wl_registry::Event::Global { name, interface, version }
                if interface == WlSeat::interface().name && state.seats.len() < SEATS_MAX =>
            {
                state.seats.push((name, registry.bind(name, version.min(1), handle, ()), None));
            }
            wl_registry::Event::Global { name, interface, version }
                if interface == ExtIdleNotifierV1::interface().name =>
            {
                state.notifier = Some(registry.bind(name, version.min(2), handle, ()));
            }
            wl_registry::Event::GlobalRemove { name } => {
                for (_, _, notification) in state.seats.extract_if(.., |(seat, _, _)| *seat == name) {
                    if let Some(notification) = notification {
                        state.idle.remove(&notification.id());
                        notification.destroy();
                    }
                    state.changed = true;
                }
            }
            _ => {}
        }
    }
}

impl Dispatch<ExtIdleNotificationV1, ()> for State {
    fn event(
        state: &mut Self,
        notification: &ExtIdleNotificationV1,
        event: ext_idle_notification_v1::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<State>,
    ) {
        state.changed = match event {
            ext_idle_notification_v1::Event::Idled => state.idle.insert(notification.id()),
            ext_idle_notification_v1::Event::Resumed => state.idle.remove(&notification.id()),
            _ => false,
        } || state.changed;
    }
}

impl Dispatch<WlCallback, ()> for State {
    fn event(state: &mut Self, _: &WlCallback, _: wl_callback::Event, (): &(), _: &Connection, _: &QueueHandle<State>) {
        state.complete = true;
    }
}

wayland_client::delegate_noop!(State: ignore WlSeat);
wayland_client::delegate_noop!(State: ExtIdleNotifierV1);
