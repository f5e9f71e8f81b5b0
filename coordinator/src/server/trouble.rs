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

    /// What somebody waits for.
    pub fn of(&self, who: Who) -> Option<String> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)[who as usize].clone()
    }

    /// All of it, as one sentence.
    pub fn all(&self) -> Option<String> {
        let words = [Who::Ledger, Who::Publisher, Who::Data].into_iter().filter_map(|who| self.of(who));
        Some(words.collect::<Vec<_>>().join("; ")).filter(|all| !all.is_empty())
    }
}
