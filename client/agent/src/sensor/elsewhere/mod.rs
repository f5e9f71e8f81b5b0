//! Systems other than Linux. They are asked again and again, often only while something may run. What was compiled and
//! run where is told in the README.

#[cfg(target_os = "macos")]
mod macos;
#[cfg(not(any(target_os = "macos", windows)))]
mod unasked;
#[cfg(windows)]
mod windows;

#[cfg(target_os = "macos")]
use macos as answers;
#[cfg(not(any(target_os = "macos", windows)))]
use unasked as answers;
#[cfg(windows)]
use windows as answers;

use super::{
    SleepDelay,
    facts::Input,
    places::Places,
    readings::{Fact, Readings, Reporter},
};
use crate::policy::Reading;
use std::{sync::Arc, time::Duration};
use tokio::task::JoinSet;

/// Who tells how long nobody used the computer.
pub const IDLE_SOURCES: &[&str] = &[answers::NAME];
/// Here the source above sees everybody who is at the computer.
pub const OTHERS_SOURCES: &[&str] = &[];
/// Who tells of mains and battery.
pub const POWER_SOURCES: &[&str] = &[answers::NAME];
/// Who tells what the network costs.
pub const METERED_SOURCES: &[&str] = &[answers::NAME];
/// Who tells of full-screen windows.
pub const FULL_SCREEN_SOURCES: &[&str] = &[answers::NAME];

const FRESH: Duration = Duration::from_secs(30);

/// Starts all questions. None of the system's functions waits.
pub fn start(_: &Places, readings: &Arc<Readings>, tasks: &mut JoinSet<()>) {
    let idle = Reporter::new(readings, |facts| &mut facts.idle, 0);
    tasks.spawn(async move {
        loop {
            let answer = answers::idle();
            let pause = super::pause(answer.known().copied(), idle.wants().idle);
            let input = match answer {
                Reading::Known(time) => Reading::Known(Input::ago(time)),
                Reading::Unknown(why) => Reading::Unknown(why),
            };
            idle.says_for(input, FRESH);
            tokio::time::sleep(pause).await;
        }
    });
    answers::listen_for_sleep(readings.clone());
    poll(tasks, Reporter::new(readings, |facts| &mut facts.power, 0), answers::power);
    poll(tasks, Reporter::new(readings, |facts| &mut facts.full_screen, 0), answers::full_screen);
    poll(tasks, Reporter::new(readings, |facts| &mut facts.metered, 0), answers::metered);
}

/// The system goes to sleep as soon as the delay is dropped, or is awake again.
#[cfg_attr(not(any(target_os = "macos", windows)), allow(dead_code, reason = "nobody tells of sleep here"))]
fn set_sleep(readings: &Readings, sleeping: bool, delay: Option<SleepDelay>) {
    {
        let mut facts = readings.facts();
        (facts.sleeping, facts.sleep_delay) = (sleeping, delay);
    }
    readings.alarm();
}

fn poll<T: Fact>(tasks: &mut JoinSet<()>, reporter: Reporter<T>, ask: fn() -> Reading<T>) {
    tasks.spawn(async move {
        loop {
            reporter.says_for(ask(), FRESH);
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    });
}
