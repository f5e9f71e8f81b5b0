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
    /// Everybody, for the object store.
    Store,
}

impl Who {
    /// All of them.
    pub const ALL: [Who; 4] = [Who::Ledger, Who::Publisher, Who::Data, Who::Store];

    /// A word for figures.
    pub const fn name(self) -> &'static str {
        match self {
            Who::Ledger => "ledger",
            Who::Publisher => "publisher",
            Who::Data => "data",
            Who::Store => "store",
        }
    }
}

/// See the module.
#[derive(Default)]
pub struct Troubles {
    words: Mutex<[Option<String>; 4]>,
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

    /// All of it, as one sentence; and whether the disk is full.
    pub fn sentence(&self, disk_is_full: bool) -> Option<String> {
        let full = "the disk is full: no new work is given out until there is room".to_owned();
        let all: Vec<String> = disk_is_full.then_some(full).into_iter().chain(self.all()).collect();
        Some(all.join("; ")).filter(|all| !all.is_empty())
    }

    /// All of it, as one sentence.
    pub fn all(&self) -> Option<String> {
        let store = self.of(Who::Store);
        // Whoever waits for the store says no more than that.
        let is_said = |words: &String| store.as_ref().is_some_and(|store| words.ends_with(store.as_str()));
        let words = Who::ALL.into_iter().filter(|who| *who != Who::Store).filter_map(|who| self.of(who));
        let words = words.filter(|words| !is_said(words)).chain(store.clone());
        Some(words.collect::<Vec<_>>().join("; ")).filter(|all| !all.is_empty())
    }
}
