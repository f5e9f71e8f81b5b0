//! What was done today: what there is in all, less what there was when the day began. Kept as `today.json`.

use nightjar_shared::disk::Disk;
use serde::{Deserialize, Serialize};
use std::io;

const FILE: &str = "today.json";

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Today {
    /// The owner's date.
    date: String,
    /// Tokens that had been delivered when it began.
    before: u64,
}

impl Today {
    /// What is kept. A file that cannot be understood says nothing.
    pub fn load(disk: &dyn Disk) -> io::Result<Self> {
        Ok(disk.read(FILE)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default())
    }

    /// Keeps it.
    pub fn store(&self, disk: &dyn Disk) -> io::Result<()> {
        disk.write(FILE, &serde_json::to_vec(self)?)
    }

    /// A day begins, with so many tokens delivered before.
    pub fn begin(&mut self, date: &str, tokens: u64) {
        *self = Today { date: date.to_owned(), before: tokens };
    }

    /// Tokens of today, of so many in all.
    pub fn tokens(&mut self, tokens: u64, date: &str) -> u64 {
        if self.date != date || tokens < self.before {
            self.begin(date, tokens);
        }
        tokens - self.before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_counts_from_its_own_beginning() {
        let mut today = Today::default();
        assert_eq!(today.tokens(1000, "2026-11-30"), 0);
        assert_eq!(today.tokens(1500, "2026-11-30"), 500);
        assert_eq!(today.tokens(1500, "2026-12-01"), 0);
        assert_eq!(today.tokens(40, "2026-12-01"), 0, "another run");
        assert_eq!(today.tokens(60, "2026-12-01"), 20);
    }
}
