//! Linux. Each fact has several sources, asked at once and heard in this order.

mod bus;
mod kept_on;
mod logind;
mod mutter;
mod network;
mod power;
mod sleep;
mod terminals;
mod watch;
mod wayland;
mod x11;

use super::{
    places::Places,
    readings::{PACE, Readings, Reporter, keep},
};
use crate::policy::Reading;
use std::{sync::Arc, time::Duration};
use tokio::task::JoinSet;

/// Who tells how long nobody used the computer. X11 is asked before the screen saver of freedesktop.org, since it tells
/// of the first input by itself.
pub const IDLE_SOURCES: &[&str] = &["Wayland", "Mutter", "X11", "the screen saver", "logind", "the terminals"];
/// Who tells of those whom the source above does not see: at terminals, over the network, and in other sessions.
pub const OTHERS_SOURCES: &[&str] = &["logind", "the terminals"];
/// Who tells of mains and battery.
pub const POWER_SOURCES: &[&str] = &["UPower", "/sys/class/power_supply"];
/// Who tells what the network costs.
pub const METERED_SOURCES: &[&str] = &["NetworkManager", "the default route"];
/// Who tells of full-screen windows.
pub const FULL_SCREEN_SOURCES: &[&str] = &["X11", "the desktop", "the lack of a screen"];

/// Starts all that wait for events.
pub fn start(places: &Places, readings: &Arc<Readings>, tasks: &mut JoinSet<()>) {
    let (system, session, root) = (&places.system_bus, &places.session_bus, &places.root);
    macro_rules! source {
        ($fact:ident, $rank:expr, |$reporter:ident| $ask:expr) => {{
            tasks.spawn(keep(Reporter::new(readings, |facts| &mut facts.$fact, $rank), PACE, move |$reporter| $ask));
        }};
    }
    let p = places.clone();
    source!(idle, 0, |reporter| wayland::idle(p.clone(), reporter));
    let s = session.clone();
    source!(idle, 1, |reporter| mutter::idle(s.clone(), reporter));
    let (p, question) = (places.clone(), x11::Question::default());
    source!(idle, 2, |reporter| question.clone().idle(p.clone(), reporter));
    let s = session.clone();
    source!(idle, 3, |reporter| mutter::screen_saver(s.clone(), reporter));
    let p = places.clone();
    source!(idle, 4, |reporter| logind::idle(p.clone(), reporter));
    let p = places.clone();
    source!(idle, 5, |reporter| terminals::idle(p.clone(), reporter));
    let p = places.clone();
    source!(others, 0, |reporter| logind::others(p.clone(), reporter));
    let p = places.clone();
    source!(others, 1, |reporter| terminals::others(p.clone(), reporter));

    let s = system.clone();
    source!(power, 0, |reporter| power::upower(s.clone(), reporter));
    let r = root.clone();
    source!(power, 1, |reporter| power::files(r.clone(), reporter));

    let s = system.clone();
    source!(metered, 0, |reporter| network::network_manager(s.clone(), reporter));
    let r = root.clone();
    source!(metered, 1, |reporter| network::routes(r.clone(), reporter));

    let (p, question) = (places.clone(), x11::Question::default());
    source!(full_screen, 0, |reporter| question.clone().full_screen(p.clone(), reporter));
    let s = session.clone();
    source!(full_screen, 1, |reporter| kept_on::kept_on(s.clone(), reporter));
    let p = places.clone();
    source!(full_screen, 2, |reporter| no_screen(p.clone(), reporter));

    tasks.spawn(sleep::listen(system.clone(), readings.clone()));
}

/// Nothing covers a screen where there is none.
async fn no_screen(places: Places, reporter: Reporter<bool>) -> String {
    const EVERY: Duration = Duration::from_secs(5);
    while !places.graphical() {
        reporter.says_for(Reading::Known(false), EVERY * 6);
        tokio::time::sleep(EVERY).await;
    }
    "the desktop tells nobody which windows cover the screen".into()
}
