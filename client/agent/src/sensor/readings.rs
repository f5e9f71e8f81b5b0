//! Where all sensors write what they see, and from where an observation is put together without waiting for any of
//! them. A fact has several sources, the best first; the first that answers counts, and one that is still being asked
//! is waited for.

use super::{Wants, facts::Facts};
use crate::policy::Reading;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{Notify, watch};

/// What a change of a fact is to the event loop.
pub(super) trait Fact: Clone + PartialEq + Send + 'static {
    /// Whether going from `before` to `self` may forbid something, so that it must be told at once.
    fn alarms(&self, before: &Self, wants: &Wants) -> bool;
}

/// What one source of a fact does.
enum Answer<T> {
    /// It has not answered yet.
    Asked,
    /// This, which holds until the given time unless it is said again.
    Says(Reading<T>, Option<Instant>),
    /// It answers that it does not know, for this reason; a lesser source may.
    Passes(String),
    /// It does not answer, for this reason.
    Silent(String),
}

impl<T> Answer<T> {
    fn speaks(&self) -> bool {
        matches!(self, Answer::Says(..) | Answer::Passes(_))
    }
}

/// One fact and its sources, the best first.
pub(super) struct Sourced<T> {
    sources: Vec<(&'static str, Answer<T>)>,
}

impl<T: Fact> Sourced<T> {
    /// A fact that these sources are asked for.
    pub fn from(names: &[&'static str]) -> Self {
        Sourced { sources: names.iter().map(|name| (*name, Answer::Asked)).collect() }
    }

    /// A fact of which this source says this.
    #[cfg(test)]
    pub fn said(name: &'static str, reading: Reading<T>) -> Self {
        Sourced { sources: vec![(name, Answer::Says(reading, None))] }
    }

    /// Whether nobody is asked for it.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// What is known of it, and who says so. Where nobody knows, the reason is that of the last resort.
    pub fn read(&self) -> (Reading<T>, Option<&'static str>) {
        let mut reason = "";
        for (name, answer) in &self.sources {
            match answer {
                Answer::Asked => return (Reading::Unknown(format!("{name} is still being asked")), None),
                Answer::Says(_, Some(end)) if *end < Instant::now() => {
                    return (Reading::Unknown(format!("{name} has stopped answering")), Some(name));
                }
                Answer::Says(reading, _) => return (reading.clone(), Some(name)),
                Answer::Passes(why) | Answer::Silent(why) => reason = why,
            }
        }
        (Reading::Unknown(reason.to_owned()), None)
    }

    /// Whether it waits for no first answer that would count.
    pub fn ready(&self) -> bool {
        let first =
            self.sources.iter().map(|(_, answer)| answer).find(|a| matches!(a, Answer::Asked | Answer::Says(..)));
        !matches!(first, Some(Answer::Asked))
    }

    /// Whether a better source than this one speaks.
    fn outranked(&self, rank: usize) -> bool {
        self.sources[..rank].iter().any(|(_, answer)| matches!(answer, Answer::Says(..)))
    }
}

/// What all sources of all facts say.
pub(super) struct Readings {
    facts: Mutex<Facts>,
    changed: Arc<Notify>,
    /// Counts up whenever a source begins or ceases to answer.
    answering: watch::Sender<u64>,
    /// Counts up whenever sources that failed should be asked anew: a session came or went, the computer woke up.
    nudges: watch::Sender<u64>,
    wants: watch::Sender<Wants>,
}

impl Readings {
    /// Before any source has said anything.
    pub fn new(facts: Facts, wants: Wants, changed: Arc<Notify>) -> Arc<Self> {
        Arc::new(Readings {
            facts: Mutex::new(facts),
            changed,
            answering: watch::Sender::new(0),
            nudges: watch::Sender::new(0),
            wants: watch::Sender::new(wants),
        })
    }

    /// All facts. Held only for moments.
    pub fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the owner's preferences need, now.
    pub fn wants(&self) -> Wants {
        self.wants.borrow().clone()
    }

    /// They have changed.
    pub fn set_wants(&self, wants: Wants) {
        self.wants.send_replace(wants);
    }

    /// Has sources that failed asked anew, soon.
    pub fn nudge(&self) {
        self.nudges.send_modify(|n| *n += 1);
    }

    /// Tells the event loop to look.
    pub fn alarm(&self) {
        self.changed.notify_one();
    }
}

/// By this one source says what it sees.
pub(super) struct Reporter<T> {
    readings: Arc<Readings>,
    of: fn(&mut Facts) -> &mut Sourced<T>,
    rank: usize,
}

impl<T> Clone for Reporter<T> {
    fn clone(&self) -> Self {
        Reporter { readings: self.readings.clone(), of: self.of, rank: self.rank }
    }
}

impl<T: Fact> Reporter<T> {
    /// For the source at `rank`.
    pub fn new(readings: &Arc<Readings>, of: fn(&mut Facts) -> &mut Sourced<T>, rank: usize) -> Self {
        Reporter { readings: readings.clone(), of, rank }
    }

    /// What the owner's preferences need.
    pub fn wants(&self) -> Wants {
        self.readings.wants()
    }

    /// The source says this, and will say so itself when it changes.
    pub fn says(&self, reading: Reading<T>) {
        self.put(Answer::Says(reading, None));
    }

    /// The source says this, and repeats itself: silence for longer than `fresh` means that it hangs.
    pub fn says_for(&self, reading: Reading<T>, fresh: Duration) {
        self.put(Answer::Says(reading, Some(Instant::now() + fresh)));
    }

    /// The source does not know, and leaves it to lesser ones.
    pub fn passes(&self, why: &str) {
        self.put(Answer::Passes(why.to_owned()));
    }

    /// The source does not answer.
    pub fn silent(&self, why: String) {
        self.put(Answer::Silent(why));
    }

    fn put(&self, answer: Answer<T>) {
        let wants = self.readings.wants.borrow();
        let (alarm, answering) = {
            let mut facts = self.readings.facts();
            let fact = (self.of)(&mut facts);
            let (before, _) = fact.read();
            let rank = |answer: &Answer<T>| matches!(answer, Answer::Says(..));
            let (name, held) = &mut fact.sources[self.rank];
            let answering = rank(held) != rank(&answer);
            if let (Answer::Silent(why), false) = (&answer, matches!(held, Answer::Silent(_))) {
                tracing::debug!("{name} does not answer: {why}");
            }
            *held = answer;
            let alarm = match (&before, &fact.read().0) {
                (Reading::Known(before), Reading::Known(after)) => after.alarms(before, &wants),
                (Reading::Unknown(_), Reading::Unknown(_)) => false,
                _ => true,
            };
            (alarm, answering)
        };
        if answering {
            self.readings.answering.send_modify(|n| *n += 1);
        }
        if alarm {
            self.readings.alarm();
        }
    }

    /// Whether a better source speaks, and whether this one answers.
    fn state(&self) -> (bool, bool) {
        let mut facts = self.readings.facts();
        let fact = (self.of)(&mut facts);
        (fact.outranked(self.rank), fact.sources[self.rank].1.speaks())
    }

    /// Ends once a better source speaks, or none any more.
    async fn outranked(&self, is: bool) {
        let mut answering = self.readings.answering.subscribe();
        // The sender lives as long as the readings, so that waiting cannot fail.
        while self.state().0 != is && answering.changed().await.is_ok() {}
    }
}

/// How patient [`keep`] is.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    /// A source must say something within this time of being asked.
    limit: Duration,
    /// A source that failed is asked again after this time, then after twice as long, and so on.
    back_off: Duration,
    back_off_max: Duration,
}

/// The pace for sources of this computer.
pub(super) const PACE: Pace =
    Pace { limit: Duration::from_secs(3), back_off: Duration::from_secs(1), back_off_max: Duration::from_secs(30) };

/// Keeps one source going for ever: `ask` runs until it fails, and says why. It is dropped where it says nothing in
/// time or a better source speaks; what failed is asked again, later and later, at once where something happened to the
/// session.
pub(super) async fn keep<T: Fact, F: Future<Output = String>>(
    reporter: Reporter<T>,
    pace: Pace,
    ask: impl Fn(Reporter<T>) -> F,
) {
    let mut back_off = pace.back_off;
    loop {
        if reporter.state().0 {
            reporter.silent("not needed".into());
            reporter.outranked(false).await;
            reporter.put(Answer::Asked);
            back_off = pace.back_off;
        }
        let mut nudges = reporter.readings.nudges.subscribe();
        let asked = ask(reporter.clone());
        let silent_too_long = async {
            tokio::time::sleep(pace.limit).await;
            if reporter.state().1 {
                std::future::pending().await
            }
        };
        let why = tokio::select! {
            why = asked => why,
            () = silent_too_long => format!("no answer within {} s", pace.limit.as_secs()),
            () = reporter.outranked(true) => continue,
        };
        if reporter.state().1 {
            back_off = pace.back_off;
        }
        reporter.silent(why);
        tokio::select! {
            () = tokio::time::sleep(back_off) => {}
            _ = nudges.changed() => back_off = pace.back_off,
        }
        back_off = (back_off * 2).min(pace.back_off_max);
    }
}

#[cfg(test)]
mod tests;
