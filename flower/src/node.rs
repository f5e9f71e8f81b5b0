//! One SuperNode before a SuperLink: it takes a message, has its cohort of volunteers carry it out, and answers.
//!
//! What is at hand is in the journal. Every step may be done again: weights are named by their bytes, a series is begun
//! once under the message's name, and its answer stays at the coordinator. So after a kill, or when either side was away,
//! the same message is simply carried out again.

use crate::{
    fleet::{Fleet, FleetError, Series},
    job::Model,
    journal::{Given, Journal, Task},
    wire::{
        incoming::{self, IncomingError},
        link::{HEARTBEAT_S, Link, LinkError},
        proto::Scalar,
        reply::{Metric, Reply, Sender},
    },
};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How often a SuperLink is asked for a message, and a coordinator for news.
const POLL: Duration = Duration::from_secs(1);
/// Whoever did not answer is asked again after so long, at first and at most.
const AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// A stop is noticed within so long.
const LOOK: Duration = Duration::from_millis(100);
/// A series that was cut is over within so long.
const CUT_S: f64 = 120.0;
/// An answer is sent so long before the lab gives its message up, or a tenth of its time.
const MARGIN_S: f64 = 30.0;

/// Why a message is not answered, or not now.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    /// This program is to end; it goes on with the message when it is started again.
    #[error("stopped")]
    Stopped,
    /// The lab has given it up.
    #[error("its time is over")]
    TooLate,
    /// The SuperLink.
    #[error("{0}")]
    Link(#[from] LinkError),
    /// What is at hand cannot be kept.
    #[error("what is at hand cannot be written down: {0}")]
    Journal(#[from] io::Error),
    /// What the lab is told.
    #[error("{0}")]
    Fault(String),
}

/// How a message is to be carried out.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Outer rounds for a message to train.
    pub rounds: u32,
    /// Seconds from a message to its answer.
    pub deadline_s: f64,
    /// Volunteers without whom there is no answer.
    pub volunteers_min: u32,
}

/// A cohort's SuperNode.
pub struct Node {
    /// As the configuration calls it.
    pub name: String,
    /// To the lab.
    pub link: Link,
    /// To the volunteers.
    pub fleet: Fleet,
    /// What they train.
    pub model: Model,
    /// What is at hand.
    pub journal: Journal,
    /// How it is carried out.
    pub terms: Terms,
    /// Whether this program is to end.
    pub stop: Arc<AtomicBool>,
}

/// What came of a message.
enum Answer {
    Trained(Given, Series, Vec<f32>),
    Evaluated { loss: f64, samples: u64 },
}

fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

impl Node {
    /// Stands before the SuperLink until this program is to end.
    pub fn run(&self) {
        thread::scope(|scope| {
            if !self.join() {
                return;
            }
            scope.spawn(|| self.beat());
            while !self.stopped() {
                if let Err(error) = self.step() {
                    tracing::warn!(cohort = self.name, "{error}");
                    let is_stranger = matches!(&error, Unanswered::Link(error) if error.is_stranger());
                    if is_stranger && !self.join() {
                        break;
                    }
                    self.pause(AGAIN[0] * 5);
                }
            }
            if let Err(error) = self.link.leave() {
                tracing::warn!(cohort = self.name, "{error}; it takes the cohort for gone after a while");
            }
        });
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Waits, unless this program is to end.
    fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.stopped() && Instant::now() < until {
            thread::sleep(LOOK.min(time));
        }
    }

    /// Joins the SuperLink, however long that takes; false if this program is to end before.
    fn join(&self) -> bool {
        let (mut wait, mut told) = (AGAIN[0], String::new());
        while !self.stopped() {
            match self.link.join() {
                Ok(node) => {
                    tracing::info!(cohort = self.name, node, "the SuperLink has taken the cohort in");
                    return true;
                }
                Err(error) => {
                    let words = match &error {
                        LinkError::Refused { status: 400..500, .. } => format!(
                            "{error}; if it lets in known nodes only, its operator registers the key that \
                             `nightjar-flower keys` shows"
                        ),
                        other => other.to_string(),
                    };
                    if words != told {
                        tracing::warn!(cohort = self.name, "{words}; it is asked again");
                        told = words;
                    }
                }
            }
            self.pause(wait);
            wait = (2 * wait).min(AGAIN[1]);
        }
        false
    }

    /// Says again and again that the cohort is there.
    fn beat(&self) {
        while !self.stopped() {
            self.pause(Duration::from_secs_f64(HEARTBEAT_S / 3.0));
            if !self.stopped() && matches!(self.link.heartbeat(), Ok(false)) {
                tracing::warn!(cohort = self.name, "the SuperLink has forgotten the cohort, which joins again");
                self.join();
            }
        }
    }

    /// Carries out the message at hand, or asks for the next.
    fn step(&self) -> Result<(), Unanswered> {
        if let Some(task) = self.journal.read()? {
            return self.carry_out(task);
        }
        match self.link.pull()? {
            None => self.pause(POLL),
            Some(message) => self.journal.write(&Task { message, came_s: now_s(), given: None })?,
        }
        Ok(())
    }

    fn carry_out(&self, mut task: Task) -> Result<(), Unanswered> {
        let begun = Instant::now();
        let what = format!("{} of run {}", task.message.message_type, task.message.run_id);
        tracing::info!(cohort = self.name, "{what}");
        let by = || Sender { node: self.link.id(), now_s: now_s() };
        let sent = match self.answer(&mut task) {
            Ok(Answer::Trained(given, series, flat)) => {
                let metrics: [Metric; 4] = [
                    ("num-examples", whole(series.samples)),
                    ("train-loss", Scalar::Double(series.train_loss.unwrap_or(0.0))),
                    ("fleet-volunteers", whole(series.devices)),
                    ("fleet-stale", whole(series.left_out)),
                ];
                tracing::info!(cohort = self.name, "{what}: {metrics:?}");
                let arrays = Some((&self.model, &given.arrangement, &*flat));
                let reply = Reply::new(&task.message, &by(), arrays, &metrics);
                self.link.push(&reply, begun.elapsed().as_secs_f64())
            }
            Ok(Answer::Evaluated { loss, samples }) => {
                let metrics: [Metric; 2] = [("num-examples", whole(samples)), ("eval-loss", Scalar::Double(loss))];
                tracing::info!(cohort = self.name, "{what}: {metrics:?}");
                let reply = Reply::new(&task.message, &by(), None, &metrics);
                self.link.push(&reply, begun.elapsed().as_secs_f64())
            }
            Err(Unanswered::Fault(reason)) => {
                tracing::warn!(cohort = self.name, "{what} is answered with an error: {reason}");
                self.link.push(&Reply::fault(&task.message, &by(), &reason), begun.elapsed().as_secs_f64())
            }
            Err(Unanswered::TooLate) => {
                tracing::warn!(cohort = self.name, "{what} is given up: the lab waits for it no longer");
                Ok(())
            }
            Err(Unanswered::Stopped) => return Ok(()),
            Err(later) => return Err(later),
        };
        match sent {
            Err(error) if error.may_pass() || error.is_stranger() => return Err(error.into()),
            Err(error) => tracing::warn!(cohort = self.name, "{what}: the answer is not wanted any more: {error}"),
            Ok(()) => {}
        }
        Ok(self.journal.clear()?)
    }

    fn answer(&self, task: &mut Task) -> Result<Answer, Unanswered> {
        let message = task.message.clone();
        let ends_s = message.created_at + message.ttl;
        let deadline_s = (task.came_s + self.terms.deadline_s).min(ends_s - MARGIN_S.min(0.1 * message.ttl));
        if now_s() > ends_s {
            return Err(Unanswered::TooLate);
        }
        let rounds = match message.message_type.split('.').next() {
            Some("train") => self.terms.rounds,
            Some("evaluate") => 0,
            _ => {
                let kind: String = message.message_type.chars().take(40).collect();
                let words = "volunteers train and anchor nodes evaluate; the lab's ClientApp does not run there";
                return Err(Unanswered::Fault(format!("messages of type {kind:?} cannot be carried out: {words}")));
            }
        };
        let name = format!("{}/{}", message.run_id, message.message_id);
        let (given, mut series) = loop {
            let given = match task.given.clone() {
                Some(given) => given,
                None => self.take_in(task, deadline_s)?,
            };
            match self.ask(deadline_s, || self.fleet.begin(&name, &given.weights, rounds)) {
                // The coordinator clears weights away that no series has begun with.
                Err(Asked::Refused(error)) if error.is_missing() => task.given = None,
                begun => break (given, begun.map_err(Asked::told)?),
            }
        };
        let (mut is_cut, mut until_s) = (false, deadline_s);
        while !series.is_over || (rounds == 0 && series.loss.is_none()) {
            if now_s() > until_s {
                if series.is_over || is_cut {
                    break;
                }
                tracing::info!(cohort = self.name, "the deadline is here; what volunteers have brought is the answer");
                (is_cut, until_s) = (true, (until_s + CUT_S).min(ends_s));
                series = self.ask(until_s, || self.fleet.cut(&name)).map_err(Asked::told)?;
                continue;
            }
            self.pause(POLL);
            if self.stopped() {
                return Err(Unanswered::Stopped);
            }
            series = self.ask(until_s, || self.fleet.series()).map_err(Asked::told)?;
            if series.name != name {
                let words = "another series was begun at the cohort's coordinator in the meantime";
                return Err(Unanswered::Fault(words.into()));
            }
        }
        if rounds == 0 {
            return match (series.loss, series.loss_samples) {
                (Some(loss), Some(samples)) => Ok(Answer::Evaluated { loss, samples }),
                _ => Err(Unanswered::Fault(
                    "no anchor node of the cohort measured the loss in time; let one join the cohort's run, or set \
                     fraction_evaluate=0.0 in the strategy"
                        .into(),
                )),
            };
        }
        let least = u64::from(self.terms.volunteers_min.max(1));
        if !series.is_over || series.devices < least {
            let (came, connected) = (series.devices, series.connected);
            return Err(Unanswered::Fault(format!(
                "{came} volunteers brought their work in time, and {least} are wanted; {connected} are connected"
            )));
        }
        let flat = self.ask(ends_s, || self.fleet.weights(&self.model)).map_err(Asked::told)?;
        Ok(Answer::Trained(given, series, flat))
    }

    /// Reads the message's weights and stores them at the coordinator.
    fn take_in(&self, task: &mut Task, deadline_s: f64) -> Result<Given, Unanswered> {
        let message = &task.message;
        let read = incoming::read(&message.message_id, &self.model, |name| self.link.object(message.run_id, name));
        let read = read.map_err(|error| match error {
            IncomingError::Pull(LinkError::Gone(object)) => {
                Unanswered::Fault(format!("the SuperLink has object {object} of the message no more"))
            }
            IncomingError::Pull(error) => Unanswered::Link(error),
            other => Unanswered::Fault(other.to_string()),
        })?;
        let weights = self.ask(deadline_s, || self.fleet.store(&read.flat)).map_err(Asked::told)?;
        let given = Given { weights, arrangement: read.arrangement };
        task.given = Some(given.clone());
        self.journal.write(task)?;
        if let Err(error) = self.link.confirm(&task.message) {
            // It only keeps the objects for longer.
            tracing::debug!(cohort = self.name, "{error}");
        }
        Ok(given)
    }

    /// Asks the coordinator, again and again while it is away, until then.
    fn ask<T>(&self, until_s: f64, ask: impl Fn() -> Result<T, FleetError>) -> Result<T, Asked> {
        let mut wait = AGAIN[0];
        loop {
            match ask() {
                Err(error) if error.may_pass() && now_s() < until_s => {
                    tracing::warn!(cohort = self.name, "{error}; it is asked again");
                    self.pause(wait);
                    wait = (2 * wait).min(AGAIN[1]);
                }
                answer => return answer.map_err(Asked::Refused),
            }
            if self.stopped() {
                return Err(Asked::Stopped);
            }
        }
    }
}

/// Why a coordinator's answer is not there.
enum Asked {
    Stopped,
    Refused(FleetError),
}

impl Asked {
    fn told(self) -> Unanswered {
        match self {
            Asked::Stopped => Unanswered::Stopped,
            Asked::Refused(error) => Unanswered::Fault(error.to_string()),
        }
    }
}

fn whole(number: u64) -> Scalar {
    Scalar::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}
