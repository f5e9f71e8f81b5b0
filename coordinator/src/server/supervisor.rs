//! What the service manager is told, where there is one (`Type=notify`, sd_notify(3)): that the run is served, what it
//! waits for, that the event loop still turns, and that the end has begun.

use super::{
    health::{Health, Stage},
    metrics::{Metrics, Seen},
};
use std::time::{Duration, Instant};

/// How often the service manager is told that all is well; a watchdog may want it more often.
const PULSE: Duration = Duration::from_secs(1);

/// See the module.
pub struct Supervisor {
    has_watchdog: bool,
    every: Duration,
    is_ready: bool,
    /// The sentence that it was told last.
    told: String,
}

impl Supervisor {
    /// The one that started this process, if any did.
    pub fn find() -> Self {
        let watchdog = notify::watchdog();
        let every = watchdog.map_or(PULSE, |watchdog| PULSE.min(watchdog / 3)).max(Duration::from_millis(1));
        Supervisor { has_watchdog: watchdog.is_some(), every, is_ready: false, told: String::new() }
    }

    /// How often [`Supervisor::pulse`] is due.
    pub fn every(&self) -> Duration {
        self.every
    }

    /// Tells how it stands. A watchdog is not told that all is well where the event loop hangs: then this process is
    /// started anew.
    pub fn pulse(&mut self, health: &Health, metrics: &Metrics, now: Instant) {
        if !self.is_ready && health.has_reached(Stage::Serving) {
            self.is_ready = true;
            notify::tell(notify::READY);
        }
        if self.has_watchdog && health.is_turning(now) {
            notify::tell(notify::WATCHDOG);
        }
        let words = health.not_ready(now).or_else(|| health.trouble());
        self.say(words.unwrap_or_else(|| metrics.seen().map_or_else(String::new, |seen| serving(&seen))));
    }

    /// The end has begun.
    pub fn stopping(&mut self, health: &Health, now: Instant) {
        notify::tell(notify::STOPPING);
        self.say(health.not_ready(now).unwrap_or_default());
    }

    fn say(&mut self, words: String) {
        if words != self.told {
            notify::status(&words);
            self.told = words;
        }
    }
}

fn serving(seen: &Seen) -> String {
    let version = seen.run.version.map_or(0, |version| version.0);
    match (seen.run.finished, seen.run.leases_open) {
        (true, _) => format!("the run is over, at version {version}"),
        (false, 1) => format!("version {version}, 1 lease is out"),
        (false, leases) => format!("version {version}, {leases} leases are out"),
    }
}

/// The service manager's socket. It may be gone, or full: this process goes on all the same.
#[cfg(unix)]
mod notify {
    use sd_notify::NotifyState;
    use std::time::Duration;

    pub const READY: NotifyState<'_> = NotifyState::Ready;
    pub const WATCHDOG: NotifyState<'_> = NotifyState::Watchdog;
    pub const STOPPING: NotifyState<'_> = NotifyState::Stopping;

    pub fn watchdog() -> Option<Duration> {
        let mut us = 0;
        sd_notify::watchdog_enabled(false, &mut us).then(|| Duration::from_micros(us))
    }

    pub fn tell(state: NotifyState<'_>) {
        if let Err(error) = sd_notify::notify(false, &[state]) {
            tracing::debug!(%error, "the service manager cannot be told");
        }
    }

    pub fn status(words: &str) {
        tell(NotifyState::Status(words));
    }
}

/// No service manager of this kind.
#[cfg(not(unix))]
mod notify {
    pub const READY: () = ();
    pub const WATCHDOG: () = ();
    pub const STOPPING: () = ();

    pub fn watchdog() -> Option<std::time::Duration> {
        None
    }

    pub fn tell((): ()) {}

    pub fn status(_words: &str) {}
}
