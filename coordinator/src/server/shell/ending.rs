//! How the event loop is run, and how it ends: first nobody is given new work, and what is on its way is finished; then
//! it stops. Each step has its time, and the whole is over in less than 15 seconds, whatever hangs.

use super::{Parts, Shell, ShellError, until_stopped};
use crate::{
    engine::event::{Action, Event},
    server::{
        handle::Question,
        health::Stage,
        supervisor::Supervisor,
        wish::{Wish, Wishes},
    },
    store::Publisher,
};
use std::{pin::pin, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

/// How long uploads and the version at hand may take to be finished.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// From the wish to end to the last that is waited for; saying goodbye to devices takes at most 2 s more.
const END_MAX: Duration = Duration::from_millis(12_500);
/// The same from a second wish on.
const AT_ONCE_MAX: Duration = Duration::from_secs(1);
/// A device whose upload has ended offers it again within a moment.
const QUIET: Duration = Duration::from_millis(500);
/// How often it is looked whether all is finished.
pub(super) const DRAIN_LOOK: Duration = Duration::from_millis(50);

/// What the event loop is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// To go on.
    No,
    /// To finish what is on its way.
    Drain,
    /// To stop.
    Now,
}

/// Runs until an end is wanted, or nothing can go on. `first` is what the engine wants done before anything else.
pub async fn run(
    parts: Parts,
    publisher: Publisher,
    first: Vec<Action>,
    questions: mpsc::Receiver<Question>,
    ready: String,
    wishes: &mut Wishes,
) -> Result<(), ShellError> {
    let (tell, stopping) = watch::channel(Stop::No);
    let (health, metrics) = (parts.health.clone(), parts.metrics.clone());
    let (handle, say) = (parts.handle.clone(), parts.say.clone());
    let mut supervisor = Supervisor::find();
    let mut pulse = interval(supervisor.every());
    pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // When it is told to stop, and when it is not waited for any longer.
    let (mut stop_at, mut leave_at) = (None, None);
    let mut work = pin!(until_stopped(parts, publisher, first, questions, ready, stopping));
    loop {
        let stop = *tell.borrow();
        tokio::select! {
            ended = &mut work => return match ended {
                Err(ShellError::Stopped) => Ok(()),
                ended => ended,
            },
            wish = wishes.next(), if stop != Stop::Now => match wish {
                Some(Wish::Reload(spec)) => wishes.reload(spec, handle.clone(), say.clone()),
                Some(Wish::End) if stop == Stop::No => {
                    health.enter(Stage::Draining);
                    supervisor.stopping(&health, Instant::now().into_std());
                    (stop_at, leave_at) = (Some(Instant::now() + DRAIN_MAX), Some(Instant::now() + END_MAX));
                    say("stopping  what is on its way is finished, in 15 seconds at most; once more stops at once");
                    tell.send_replace(Stop::Drain);
                }
                Some(Wish::End) => {
                    leave_at = Some(Instant::now() + AT_ONCE_MAX);
                    tell.send_replace(Stop::Now);
                }
                None => {
                    leave_at = Some(Instant::now() + END_MAX);
                    tell.send_replace(Stop::Now);
                }
            },
            () = at(stop_at), if stop == Stop::Drain => drop(tell.send_replace(Stop::Now)),
            () = at(leave_at) => {
                // What was acknowledged is stored; the rest is as after a kill.
                tracing::warn!("something hangs, and is not waited for any longer");
                return Ok(());
            }
            _ = pulse.tick() => supervisor.pulse(&health, &metrics, Instant::now().into_std()),
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// What is on its way is being finished.
#[derive(Default)]
pub(super) struct Drain {
    /// When something last was.
    busy_at: Option<Instant>,
}

impl Shell {
    /// Does as it is told; `true` where that is to stop.
    pub(super) fn told(&mut self) -> bool {
        let stop = *self.stopping.borrow_and_update();
        if stop == Stop::Drain {
            // Who is at work may be about to come back.
            let is_at_work = self.parts.engine.status().leases_open > 0;
            self.drain = Some(Drain { busy_at: is_at_work.then(Instant::now) });
            self.decide(Event::Drain);
        }
        stop == Stop::Now
    }

    /// Whether all that was on its way is finished.
    pub(super) fn is_drained(&mut self) -> bool {
        let Some(drain) = &mut self.drain else { return false };
        let (now, parts) = (Instant::now(), &self.parts);
        let decides = self.on_its_way.is_some() || !self.decided.is_empty();
        if decides
            || parts.knowledge.uploads.under_way() > 0
            || !self.waiting.is_empty()
            || parts.engine.is_publishing()
        {
            drain.busy_at = Some(now);
        }
        drain.busy_at.is_none_or(|at| now.duration_since(at) >= QUIET)
    }
}
