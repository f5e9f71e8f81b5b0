//! Whether a page may train: what its owner has said, what the browser tells of the page and the charger, and how warm
//! the device is. Pure: the same facts give the same answer. What is not known counts as forbidden, and says so.

use nightjar_session::session::Permission;
use nightjar_shared::time::{Mono, Wall};
use serde::{Deserialize, Serialize};

/// Whether the device is being charged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Charger {
    /// This browser does not tell.
    #[default]
    Unknown,
    /// It is, or it has no battery.
    Plugged,
    /// It is not.
    Unplugged,
}

/// What is known of a page and its owner.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Whether the owner wants it to train.
    pub is_wanted: bool,
    /// Whether the page is in front.
    pub is_visible: bool,
    /// What the browser tells of the charger.
    pub charger: Charger,
    /// Until when the owner has said that the device stays on its charger.
    pub plugged_until: Option<Wall>,
    /// Until when it rests to cool down.
    pub rests_until: Option<Mono>,
}

impl Facts {
    /// The verdict. A page that goes out of sight keeps its lease: it may be back in a moment, and browsers stop it by
    /// themselves if it does not stop.
    pub fn permission(&self, now: Wall) -> Permission {
        let held = |why: &str| Permission::Held(why.to_owned());
        let yields = |why: &str| Permission::Yield { reason: why.to_owned(), free_memory: false };
        let is_promised = self.plugged_until.is_some_and(|until| now < until);
        match self.charger {
            _ if !self.is_wanted => held("you have not started it, or have stopped it"),
            Charger::Unplugged => held("the device is not charging"),
            Charger::Unknown if !is_promised => {
                held("this browser does not tell whether the device is charging, and you have not said that it is")
            }
            _ if !self.is_visible => yields("the page is not in front"),
            _ if self.rests_until.is_some() => {
                yields("the device has become slower, so it cools down for some minutes")
            }
            Charger::Plugged | Charger::Unknown => Permission::Allowed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Wall = Wall { unix_ms: 1000 };

    fn good() -> Facts {
        Facts { is_wanted: true, is_visible: true, charger: Charger::Plugged, ..Facts::default() }
    }

    fn reason(facts: Facts) -> String {
        facts.permission(NOW).reason().unwrap_or_default().to_owned()
    }

    #[test]
    fn nothing_known_is_nothing_allowed() {
        assert_eq!(good().permission(NOW), Permission::Allowed);
        assert!(reason(Facts::default()).contains("not started"));
        assert!(reason(Facts { charger: Charger::Unplugged, ..good() }).contains("not charging"));
        assert!(reason(Facts { charger: Charger::Unknown, ..good() }).contains("does not tell"));
    }

    #[test]
    fn the_owners_word_for_the_night_ends_with_it_and_is_no_word_against_the_battery() {
        let promised =
            |until| Facts { charger: Charger::Unknown, plugged_until: Some(Wall { unix_ms: until }), ..good() };
        assert_eq!(promised(1001).permission(NOW), Permission::Allowed);
        assert!(reason(promised(1000)).contains("does not tell"));
        assert!(reason(Facts { charger: Charger::Unplugged, ..promised(5000) }).contains("not charging"));
    }

    #[test]
    fn out_of_sight_or_warm_the_lease_is_kept() {
        for facts in [Facts { is_visible: false, ..good() }, Facts { rests_until: Some(Mono { ms: 1 }), ..good() }] {
            assert!(matches!(facts.permission(NOW), Permission::Yield { free_memory: false, .. }));
        }
        let stopped = Facts { is_wanted: false, is_visible: false, ..good() };
        assert!(matches!(stopped.permission(NOW), Permission::Held(_)), "what was trained is delivered");
    }
}
