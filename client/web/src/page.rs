//! What the page and its worker say to each other, as JSON.

use crate::consent::Charger;
use nightjar_session::session::Status;
use nightjar_shared::time::Wall;
use serde::{Deserialize, Serialize};

/// What the page tells.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "tells", rename_all = "snake_case")]
pub enum Told {
    /// What it sees.
    Seen {
        /// Whether it is in front.
        is_visible: bool,
        /// Whether the device is charging.
        charger: Charger,
    },
    /// The owner joins a run.
    Join {
        /// The invite's link.
        link: String,
        /// How the owner calls this device.
        name: String,
    },
    /// The owner leaves it.
    Leave,
    /// The owner wants it to train, or not any more.
    Train {
        /// Which.
        is_wanted: bool,
    },
    /// The owner says that the device stays on its charger.
    Plugged {
        /// Until then; `None`: not any more.
        until: Option<Wall>,
    },
}

/// How things stand.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct View {
    /// The run that it is in.
    pub run: Option<String>,
    /// What that is for.
    pub about: String,
    /// A short name of this device's key.
    pub device: String,
    /// Why it is out of its run, or was not let in.
    pub out: Option<String>,
    /// Whether the owner wants it to train.
    pub is_wanted: bool,
    /// Until when the owner has said that it stays on its charger.
    pub plugged_until: Option<Wall>,
    /// What the browser says of that.
    pub charger: Charger,
    /// Seconds that it still rests to cool down.
    pub rests_s: Option<u64>,
    /// Why it does not train.
    pub waits_for: Option<String>,
    /// Tokens that it has delivered today.
    pub tokens_today: u64,
    /// Tokens that it has delivered in this run.
    pub tokens: u64,
    /// The last lines.
    pub log: Vec<String>,
    /// What it does.
    pub session: Status,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_page_tells_is_read() {
        let told = |text: &str| serde_json::from_str::<Told>(text).unwrap();
        assert_eq!(
            told(r#"{"tells": "seen", "is_visible": true, "charger": "unknown"}"#),
            Told::Seen { is_visible: true, charger: Charger::Unknown }
        );
        assert_eq!(told(r#"{"tells": "plugged", "until": 5}"#), Told::Plugged { until: Some(Wall { unix_ms: 5 }) });
        assert_eq!(told(r#"{"tells": "leave"}"#), Told::Leave);
        assert!(serde_json::from_str::<Told>(r#"{"tells": "else"}"#).is_err());
    }
}
