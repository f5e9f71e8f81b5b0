//! Idle time from D-Bus: GNOME's compositor Mutter, which tells of the first input by a watch; and, for desktops with
//! neither that nor Wayland's protocol nor X11, the freedesktop.org screen saver, which must be asked again and again.

use super::bus;
use crate::{
    policy::Reading,
    sensor::{facts::Input, readings::Reporter},
};
use futures_util::StreamExt;
use std::time::{Duration, Instant};

/// Idle time that is asked for holds for so long, unless it is told again.
const FRESH: Duration = Duration::from_secs(60);

/// Asks Mutter until it fails; returns why.
pub async fn idle(address: Option<String>, reporter: Reporter<Input>) -> String {
    let Some(address) = address else { return "there is no session bus".into() };
    watch(&address, &reporter).await.err().unwrap_or_else(bus::gone)
}

async fn watch(address: &str, reporter: &Reporter<Input>) -> Result<(), String> {
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
        reporter.says_for(Reading::Known(Input::ago(idle)), FRESH);
        let pause = Duration::from_secs(if armed.is_some() { 20 } else { 5 });
        tokio::select! {
            signal = fired.next() => {
                let body = signal.ok_or_else(bus::gone)?.body();
                if body.deserialize::<u32>().ok() == armed {
                    armed = None;
                    reporter.says_for(Reading::Known(Input::ago(Duration::ZERO)), FRESH);
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
pub async fn screen_saver(address: Option<String>, reporter: Reporter<Input>) -> String {
    let Some(address) = address else { return "there is no session bus".into() };
    poll(&address, &reporter).await.err().unwrap_or_else(bus::gone)
}

async fn poll(address: &str, reporter: &Reporter<Input>) -> Result<(), String> {
    let bus = bus::connect(address).await?;
    let name = "org.freedesktop.ScreenSaver";
    let saver = bus::proxy(&bus, name, "/org/freedesktop/ScreenSaver", name).await?;
    let mut unit = Unit::default();
    let (mut before, mut asked): (u32, _) = (bus::call(&saver, "GetSessionIdleTime", &()).await?, Instant::now());
    loop {
        tokio::time::sleep(crate::sensor::pause(unit.known.map(|unit| unit * before), reporter.wants().idle)).await;
        let now: u32 = bus::call(&saver, "GetSessionIdleTime", &()).await?;
        unit.learn(now.checked_sub(before), asked.elapsed());
        (before, asked) = (now, Instant::now());
        let input = unit.known.map_or(Input::Now, |unit| Input::ago(unit * now));
        reporter.says_for(Reading::Known(input), FRESH);
    }
}

/// What a screen saver counts in. Some desktops count in seconds, others in milliseconds: how fast the number grows
/// tells which. It must tell the same twice in a row, since a number that has begun anew in between may have grown by
/// anything.
#[derive(Default)]
struct Unit {
    known: Option<Duration>,
    guess: Option<Duration>,
}

impl Unit {
    const ALL: [Duration; 2] = [Duration::from_secs(1), Duration::from_millis(1)];

    /// The number has grown by this in that time; `None`: it is less.
    fn learn(&mut self, grown: Option<u32>, elapsed: Duration) {
        let off_max = |unit: Duration| unit + elapsed / 10;
        // Idle time never grows faster than time itself.
        let too_fast = |unit: &Duration| grown.is_some_and(|n| *unit * n > elapsed + off_max(*unit));
        if self.known.is_some_and(|unit| too_fast(&unit)) {
            self.known = None;
        }
        if self.known.is_none() {
            let fits =
                |unit: &Duration| grown.is_some_and(|n| n > 0 && (*unit * n).abs_diff(elapsed) <= off_max(*unit));
            let guess = Self::ALL.into_iter().find(fits);
            self.known = guess.filter(|_| guess == self.guess);
            self.guess = guess;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_millis(2510);
    const SECOND: Option<Duration> = Some(Unit::ALL[0]);
    const MILLISECOND: Option<Duration> = Some(Unit::ALL[1]);

    fn known(growth: &[Option<u32>]) -> Option<Duration> {
        let mut unit = Unit::default();
        growth.iter().for_each(|grown| unit.learn(*grown, PAUSE));
        unit.known
    }

    #[test]
    fn the_unit_is_known_once_the_time_has_told_it_twice() {
        assert_eq!(known(&[Some(2)]), None);
        assert_eq!(known(&[Some(2), Some(3)]), SECOND);
        assert_eq!(known(&[Some(2511), Some(2509)]), MILLISECOND);
        assert_eq!(known(&[Some(2), None, Some(3)]), None, "there was input in between");
        assert_eq!(known(&[Some(2), Some(3), None, Some(0)]), SECOND, "what is known is not forgotten over that");
    }

    /// Somebody types, and the time since the last key is a few milliseconds more at each look.
    #[test]
    fn typing_is_no_slow_clock() {
        assert_eq!(known(&[Some(4), Some(7), Some(5), None, Some(9)]), None);
        assert_eq!(known(&[Some(2), Some(3), Some(180)]), None, "it was no clock in seconds after all");
    }
}
