//! Where the system does not let a program see these facts by itself, as on Android and iOS, the app around it feeds
//! them.

use super::{Seen, Sense, facts};
use crate::policy::Observation;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// What the app said holds for so long; an app that was stopped says nothing more.
const FRESH: Duration = Duration::from_secs(300);

type Last = Arc<Mutex<Option<(Observation, Instant)>>>;

/// The app's end: it may be cloned, and used from any thread.
#[derive(Clone)]
pub struct HostFeed {
    last: Last,
    changed: Arc<Notify>,
}

impl HostFeed {
    /// Says how the computer is now.
    pub fn put(&self, observation: Observation) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((observation, Instant::now()));
        self.changed.notify_one();
    }
}

/// The agent's end.
pub struct HostFed {
    last: Last,
}

impl HostFed {
    /// Both ends; `changed` is notified whenever the app says something.
    pub fn new(changed: Arc<Notify>) -> (HostFeed, HostFed) {
        let last = Last::default();
        (HostFeed { last: last.clone(), changed }, HostFed { last })
    }

    fn read(&self) -> Observation {
        match &*self.last.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((observation, at)) if at.elapsed() < FRESH => observation.clone(),
            Some(_) => Observation::unknown("the app has stopped telling"),
            None => Observation::unknown("the app has not told yet"),
        }
    }
}

impl Sense for HostFed {
    fn observe(&mut self) -> Observation {
        self.read()
    }

    fn sources(&self) -> Vec<Seen> {
        let told = self.last.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        facts::seen(&self.read(), [told.then_some("the app"); 9])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Reading;

    #[test]
    fn what_the_app_says_is_seen() {
        let (feed, mut sense) = HostFed::new(Arc::new(Notify::new()));
        assert!(matches!(sense.observe().idle, Reading::Unknown(_)));
        feed.put(Observation {
            idle: Reading::Known(Duration::from_secs(90)),
            ..Observation::unknown("the phone does not tell")
        });
        assert_eq!(sense.observe().idle, Reading::Known(Duration::from_secs(90)));
        let sources = sense.sources();
        assert_eq!((sources[0].value.as_deref(), sources[0].source), (Some("1 min"), Some("the app")));
        assert_eq!(sources[1].unknown.as_deref(), Some("the phone does not tell"));
    }
}
