//! Idle time from D-Bus: GNOME's compositor Mutter, which tells of the first input by a watch; and, for desktops with neither
//! that nor Wayland's protocol nor X11, the freedesktop.org screen saver, which must be asked again and again.

use super::bus;
use crate::{
    policy::Reading,
    sensor::{board::Post, facts::Input},
};
use futures_util::StreamExt;
use std::time::Duration;

/// Idle time that is asked for holds for so long, unless it is told again.
const FRESH: Duration = Duration::from_secs(60);

/// Asks Mutter until it fails; returns why.
pub async fn idle(address: Option<String>, post: Post<Input>) -> String {
    let Some(address) = address else { return "there is no session bus".into() };
    watch(&address, &post).await.err().unwrap_or_else(bus::gone)
}

async fn watch(address: &str, post: &Post<Input>) -> Result<(), String> {
    let bus = bus::connect(address).await?;
    let (name, path) = ("org.gnome.Mutter.IdleMonitor", "/org/gnome/Mutter/IdleMonitor/Core");
    let monitor = bus::proxy(&bus, name, path, name).await?;
    let mut owner = bus::within(monitor.receive_owner_changed()).await?;
    let mut fired = bus::within(monitor.receive_signal("WatchFired")).await?;
    // A watch for the owner's activity fires once. It is set while they do nothing.
    let mut armed: Option<u32> = None;
    loop {
        let mut idle = Duration::from_millis(bus::call(&monitor, "GetIdletime", &()).await?);
        if armed.is_none() && idle >= Duration::from_secs(1) {
            armed = Some(bus::call(&monitor, "AddUserActiveWatch", &()).await?);
            // Input between the two calls would go unnoticed.
            idle = Duration::from_millis(bus::call(&monitor, "GetIdletime", &()).await?);
        }
        post.says_for(Reading::Known(Input::ago(idle)), FRESH);
        let pause = Duration::from_secs(if armed.is_some() { 20 } else { 5 });
        tokio::select! {
            signal = fired.next() => {
                let body = signal.ok_or_else(bus::gone)?.body();
                if body.deserialize::<u32>().ok() == armed {
                    armed = None;
                    post.says_for(Reading::Known(Input::ago(Duration::ZERO)), FRESH);
                    // The owner is at it: there is nothing to learn for a moment.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
            owner = owner.next() => if !matches!(owner, Some(Some(_))) { return Err("it went away".into()) },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Asks the screen saver until it fails; returns why.
pub async fn screen_saver(address: Option<String>, post: Post<Input>) -> String {
    let Some(address) = address else { return "there is no session bus".into() };
    poll(&address, &post).await.err().unwrap_or_else(bus::gone)
}

async fn poll(address: &str, post: &Post<Input>) -> Result<(), String> {
    let bus = bus::connect(address).await?;
    let name = "org.freedesktop.ScreenSaver";
    let saver = bus::proxy(&bus, name, "/org/freedesktop/ScreenSaver", name).await?;
    // Some desktops count in seconds, others in milliseconds: how fast the number grows tells which.
    let mut unit = None;
    let mut before: u32 = bus::call(&saver, "GetSessionIdleTime", &()).await?;
    loop {
        tokio::time::sleep(crate::sensor::pause(unit.map(|unit: Duration| unit * before), post.wants().idle)).await;
        let now: u32 = bus::call(&saver, "GetSessionIdleTime", &()).await?;
        if unit.is_none() {
            unit = match now.saturating_sub(before) {
                0 => None,
                1..=10 => Some(Duration::from_secs(1)),
                _ => Some(Duration::from_millis(1)),
            };
        }
        before = now;
        let input = unit.map_or(Input::Now, |unit| Input::ago(unit * now));
        post.says_for(Reading::Known(input), FRESH);
    }
}
