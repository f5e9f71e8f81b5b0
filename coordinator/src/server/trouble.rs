//! What the coordinator waits for, where it cannot go on by itself: for the person at the terminal, and for the pages.

use std::sync::{Arc, Mutex, PoisonError};

/// Where lines for the person at the terminal go.
pub type Say = Arc<dyn Fn(&str) + Send + Sync>;

/// Who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The event loop, for the ledger.
    Ledger,
    /// The publisher, for its blobs.
    Publisher,
    /// The repairer, for shards.
    Data,
}

impl Who {
    /// All of them.
    pub const ALL: [Who; 3] = [Who::Ledger, Who::Publisher, Who::Data];

    /// A word for figures.
    pub const fn name(self) -> &'static str {
        match self {
            Who::Ledger => "ledger",
            Who::Publisher => "publisher",
            Who::Data => "data",
        }
    }
}

/// See the module.
#[derive(Default)]
pub struct Troubles {
    words: Mutex<[Option<String>; 3]>,
}

impl Troubles {
    /// Somebody waits for this, or no longer.
    pub fn set(&self, who: Who, words: Option<String>) {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)[who as usize] = words;
    }

    /// Whether somebody waits.
    pub fn has(&self, who: Who) -> bool {
        self.of(who).is_some()
    }

    /// What somebody waits for.
    pub fn of(&self, who: Who) -> Option<String> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)[who as usize].clone()
    }

    /// All of it, as one sentence.
    pub fn all(&self) -> Option<String> {
        let words = Who::ALL.into_iter().filter_map(|who| self.of(who));
        Some(words.collect::<Vec<_>>().join("; ")).filter(|all| !all.is_empty())
    }
}
