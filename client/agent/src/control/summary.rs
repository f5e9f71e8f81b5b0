//! How the agent stands in one word and one short sentence, and what its owner can do about it. Decided here, of what
//! policy, session and link say, so that page, tray and command line cannot differ: the page only paints it.

use super::{LeftAlone, Why, Word};
use crate::policy::ReasonKind;
use serde::{Deserialize, Serialize};

/// A worker that failed this often in a row will not do better by itself.
const FAILURES_MAX: u32 = 3;

/// How it stands, in one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A worker computes.
    Training,
    /// It may train, and is about to, or waits for work.
    Ready,
    /// The owner's preferences, or the computer's state, hold it back.
    #[default]
    Holding,
    /// The owner has paused it.
    Paused,
    /// It may train, and the coordinator cannot be reached; it keeps trying.
    Offline,
    /// It goes no further without its owner.
    NeedsYou,
    /// It has never been given an invite.
    NotJoined,
}

/// What the owner can do about it with one click.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// End a pause.
    Resume,
    /// Try again at once what failed.
    Retry,
    /// Paste an invite.
    Join,
    /// Leave the run.
    Leave,
    /// Go to a preference.
    Preferences,
}

/// A button.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// What it does.
    pub deed: Deed,
    /// What stands on it.
    pub words: String,
    /// Which preference, where it is about one.
    #[serde(default)]
    pub key: Option<String>,
}

/// Something that waits for the owner while the rest goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// What.
    pub sentence: String,
    /// What to do about it.
    #[serde(default)]
    pub offer: Option<Offer>,
}

/// How the agent stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// In one word.
    pub state: State,
    /// That word, for people.
    pub word: String,
    /// In a short sentence: that of [`Why`], without what is to be typed into a terminal. Starts small, has no full
    /// stop.
    pub headline: String,
    /// What else there is to know about it; times are in [`Why`]. May be empty.
    #[serde(default)]
    pub detail: String,
    /// What the owner can do about it.
    #[serde(default)]
    pub offers: Vec<Offer>,
    /// What waits for the owner besides.
    #[serde(default)]
    pub notices: Vec<Notice>,
}

/// All that it follows from.
pub(crate) struct Facts<'a> {
    pub why: &'a Why,
    /// Whether the agent is in a run.
    pub in_run: bool,
    /// Whether it has never been in one, or has left it.
    pub is_new: bool,
    /// Whether a worker computes.
    pub computes: bool,
    /// Why there is no connection, where one was tried.
    pub offline: Option<&'a str>,
    /// Whether somebody else answers in the coordinator's place.
    pub wrong_key: bool,
    /// How often in a row the worker has failed.
    pub failures: u32,
    /// What on this device stands in the way of the next lease.
    pub trouble: Option<&'a str>,
    /// What is not computed on any more.
    pub left_alone: &'a [LeftAlone],
    /// What is wrong with the preferences' file.
    pub config_error: Option<&'a str>,
    /// The owner's word for now.
    pub word: Option<&'a Word>,
    /// What ends a hold.
    pub ends: Ends,
    /// The owner's cap on memory, where the run's model needs more: the preference's key.
    pub capped: Option<&'static str>,
}

/// What ends a hold whose end nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    /// What its kind says; where there is a preference for it, another value may do so sooner.
    AsItsKind,
    /// Another value of its preference, and nothing else.
    Preference,
    /// Something that no preference is about.
    Elsewhere,
}

impl Summary {
    /// How it stands, given this.
    pub(crate) fn of(facts: &Facts) -> Self {
        let reason = || without_commands(&facts.why.reason).to_owned();
        let (state, headline, detail, offers) = match facts.why.kind {
            Some(ReasonKind::NotJoined) | None if !facts.in_run => {
                let state = if facts.is_new { State::NotJoined } else { State::NeedsYou };
                let detail = if facts.is_new {
                    "The people of a run give you an invite: a link that you paste here."
                } else {
                    "With another invite this computer can join again: paste it here."
                };
                (state, reason(), detail.to_owned(), vec![offer(Deed::Join)])
            }
            Some(ReasonKind::Paused) => {
                let detail = if facts.why.until.is_some() || facts.word.is_some_and(|word| word.until.is_some()) {
                    String::new()
                } else {
                    "It stays so until you resume.".into()
                };
                (State::Paused, reason(), detail, vec![offer(Deed::Resume)])
            }
            Some(ReasonKind::RunOver) => {
                let detail = "Nightjar asks now and then whether it goes on. You can leave it, and join another with \
                    an invite.";
                (State::NeedsYou, reason(), detail.to_owned(), vec![offer(Deed::Leave), offer(Deed::Retry)])
            }
            Some(ReasonKind::Fruitless) => (State::NeedsYou, reason(), String::new(), vec![offer(Deed::Retry)]),
            Some(kind) => {
                let row = kind.row();
                let detail = match facts.ends {
                    _ if facts.why.until.is_some() => "",
                    Ends::Preference => "It stays so until you change this preference.",
                    Ends::AsItsKind | Ends::Elsewhere => row.ends,
                };
                let offers = row.preference.filter(|_| facts.ends != Ends::Elsewhere).map(preference_offer);
                (State::Holding, reason(), detail.to_owned(), offers.into_iter().collect())
            }
            None if facts.computes => {
                let detail = facts.offline.map_or_else(String::new, |why| {
                    format!("There is no connection now ({}); what is done waits until there is.", why.trim_end_matches('.'))
                });
                (State::Training, reason(), detail, vec![])
            }
            None if facts.wrong_key => (
                State::NeedsYou,
                "somebody else answers in the coordinator's place".into(),
                "Its key is not the one in your invite, so nothing is sent there. If the people of the run have a new key, they \
                 can give you a new invite: leave the run, then join with that."
                    .into(),
                vec![offer(Deed::Retry), offer(Deed::Leave)],
            ),
            None if facts.trouble.is_some() || facts.failures >= FAILURES_MAX => {
                // The times at which it tries again are no news by now.
                let words = facts.trouble.map_or_else(reason, |trouble| without_commands(trouble).to_owned());
                let detail = "It cannot train like this, and tries again now and then.";
                let words = words.trim_start_matches("it may train, but cannot yet: ").to_owned();
                (State::NeedsYou, words, detail.into(), vec![offer(Deed::Retry)])
            }
            None => match facts.offline {
                Some(why) => {
                    let detail = format!("{}. Nightjar keeps trying.", capital(why.trim_end_matches('.')));
                    (State::Offline, "the coordinator cannot be reached".into(), detail, vec![offer(Deed::Retry)])
                }
                None => match facts.capped {
                    Some(key) => {
                        let detail = "You allow training less memory than this takes. With more, it goes on at once.";
                        (State::NeedsYou, reason(), detail.into(), vec![preference_offer(key)])
                    }
                    None => (State::Ready, reason(), String::new(), vec![]),
                },
            },
        };
        Summary { state, word: state.word().into(), headline, detail, offers, notices: notices(facts) }
    }

    /// The first thing that waits for the owner, if any does.
    pub fn trouble(&self) -> Option<&str> {
        let first = self.notices.first().map(|notice| notice.sentence.as_str());
        if self.state == State::NeedsYou { Some(&self.headline) } else { first }
    }
}

impl State {
    /// The word for people.
    fn word(self) -> &'static str {
        match self {
            State::Training => "Training",
            State::Ready => "Ready",
            State::Holding => "Holding",
            State::Paused => "Paused",
            State::Offline => "Offline",
            State::NeedsYou => "Needs you",
            State::NotJoined => "Not part of a run",
        }
    }
}

fn offer(deed: Deed) -> Offer {
    let words = match deed {
        Deed::Resume => "Resume",
        Deed::Retry => "Try again now",
        Deed::Join => "Join",
        Deed::Leave => "Leave the run",
        Deed::Preferences => "Open this preference",
    };
    Offer { deed, words: words.into(), key: None }
}

fn preference_offer(key: &str) -> Offer {
    Offer { key: Some(key.into()), ..offer(Deed::Preferences) }
}

fn notices(facts: &Facts) -> Vec<Notice> {
    let retry = || Some(offer(Deed::Retry));
    let mut notices = vec![];
    if let Some(error) = facts.config_error {
        notices.push(Notice { sentence: format!("{error}; the last good preferences stay in force"), offer: None });
    }
    if facts.word.is_some_and(|word| !word.kept) {
        let sentence =
            "your word holds until Nightjar ends; the disk does not take it, so the next start will not know it";
        notices.push(Notice { sentence: sentence.into(), offer: None });
    }
    notices.extend(
        facts.left_alone.iter().map(|one| Notice { sentence: without_commands(&one.reason).into(), offer: retry() }),
    );
    // What keeps it from training is the headline; what will, once it is asked, is told beside another one.
    if let Some(trouble) = facts.trouble.filter(|_| facts.computes || facts.why.kind.is_some())
        && !facts.left_alone.iter().any(|one| one.reason == trouble)
        && !facts.why.reason.contains(trouble)
    {
        notices.push(Notice { sentence: without_commands(trouble).into(), offer: retry() });
    }
    notices
}

/// A sentence without the part that tells what to type into a terminal: a page has a button for it. It is always the
/// last part.
pub(crate) fn without_commands(sentence: &str) -> &str {
    let Some(at) = sentence.find("`nightjar") else { return sentence };
    let before = &sentence[..at];
    let joint = before.rfind("; ").or_else(|| before.rfind(". ")).or_else(|| before.rfind([':', ',', '(']));
    let kept = before[..joint.unwrap_or(0)].trim_end_matches(['.', ',', ';', ':', ' ']);
    if kept.is_empty() { sentence } else { kept }
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
