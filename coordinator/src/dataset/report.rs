//! What a dataset is made of, for people: by domain, how many documents, how long they are, what was left out. It is
//! gathered while reading, and lies beside the dataset as `report.json`, and as a page.

use super::{
    error::DatasetError,
    notes::{Note, Notes},
};
use nightjar_shared::shard::Manifest;
use serde::{Deserialize, Serialize};
use std::{fs, path::Path};

/// The file within a dataset's folder.
pub const REPORT: &str = "report.json";
/// The page within a dataset's folder.
pub const PAGE: &str = "report.html";
/// Domains that are told apart, at most.
const DOMAINS_MAX: usize = 32;
/// The name of all others.
const OTHERS: &str = "others";
/// Steps of lengths: each is twice as long as the one before.
pub const LENGTHS: usize = 24;

/// Documents of one kind: a folder of the input, or files with one name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// What it is called.
    pub name: String,
    /// Documents, without copies.
    pub documents: u64,
    /// Copies that were left out.
    pub duplicates: u64,
    /// Bytes of text.
    pub text_bytes: u64,
    /// Tokens to train on, with those that end documents.
    pub tokens: u64,
    /// Tokens that are held out.
    pub heldout_tokens: u64,
    /// Documents by length: number `i` counts those of 2^i tokens to fewer than twice as many; the last one all longer.
    pub lengths: Vec<u64>,
}

/// Held-out shards that belong together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldoutSet {
    /// What it is called.
    pub name: String,
    /// How many of the manifest's held-out shards, in their order.
    pub shards: usize,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Domains, in the order in which they were read.
    pub domains: Vec<Domain>,
    /// What is measured on, where files were named for it.
    #[serde(default)]
    pub heldout_sets: Vec<HeldoutSet>,
    /// What was left out or changed, in words.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Tokens so far of the document that is being read.
    #[serde(default, skip_serializing_if = "is_zero")]
    open: u64,
}

impl Report {
    /// The number of a domain.
    pub fn domain(&mut self, name: &str) -> usize {
        let find = |domains: &[Domain], name: &str| domains.iter().position(|domain| domain.name == name);
        if let Some(known) = find(&self.domains, name) {
            return known;
        }
        let name = if self.domains.len() < DOMAINS_MAX { name } else { OTHERS };
        find(&self.domains, name).unwrap_or_else(|| {
            self.domains.push(Domain { name: name.to_owned(), lengths: vec![0; LENGTHS], ..Domain::default() });
            self.domains.len() - 1
        })
    }

    /// Counts tokens of a document, and at its end the document.
    pub fn count(&mut self, domain: usize, tokens: u64, is_heldout: bool, ends: bool) {
        self.open += tokens;
        let Some(domain) = self.domains.get_mut(domain) else { return };
        *(if is_heldout { &mut domain.heldout_tokens } else { &mut domain.tokens }) += tokens;
        if ends {
            domain.documents += 1;
            let step = (self.open.max(1).ilog2() as usize).min(LENGTHS - 1);
            if let Some(count) = domain.lengths.get_mut(step) {
                *count += 1;
            }
            self.open = 0;
        }
    }

    /// The sum over all domains.
    pub fn sum(&self, of: impl Fn(&Domain) -> u64) -> u64 {
        self.domains.iter().map(of).sum()
    }

    /// Documents by length, of all domains.
    pub fn lengths(&self) -> [u64; LENGTHS] {
        std::array::from_fn(|step| self.sum(|domain| domain.lengths.get(step).copied().unwrap_or(0)))
    }

    /// With what is to be said about the inputs.
    pub fn with_notes(mut self, notes: &Notes) -> Self {
        let mut notes = notes.clone();
        // It is there only where the preparation went on once it was begun.
        notes.forget(Note::Output);
        (self.notes, self.open) = (notes.lines(), 0);
        self
    }

    /// Of a prepared dataset; `None` for one that an earlier version made.
    pub fn read(folder: &Path) -> Result<Option<Self>, DatasetError> {
        let path = folder.join(REPORT);
        match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(DatasetError::io(path)(error)),
            Ok(json) => serde_json::from_slice(&json)
                .map(Some)
                .map_err(|error| DatasetError::Damaged { what: format!("{}: {error}", path.display()) }),
        }
    }

    /// What `dataset info` says, a line each.
    pub fn lines(&self, manifest: &Manifest) -> Vec<String> {
        let (tokens, heldout) = (self.sum(|d| d.tokens), self.sum(|d| d.heldout_tokens));
        let (documents, copies) = (self.sum(|d| d.documents), self.sum(|d| d.duplicates));
        let mut lines = vec![format!(
            "{} tokens to train on, {} held out, of {} documents ({} copies were left out) in {} bytes of text",
            grouped(tokens),
            grouped(heldout),
            grouped(documents),
            grouped(copies),
            grouped(self.sum(|d| d.text_bytes)),
        )];
        if self.domains.len() > 1 {
            let share = |domain: &Domain| 100.0 * domain.tokens as f64 / tokens.max(1) as f64;
            lines.extend(self.domains.iter().map(|domain| {
                let (name, tokens, documents) = (&domain.name, grouped(domain.tokens), grouped(domain.documents));
                format!("  {name}: {tokens} tokens ({:.1} %) of {documents} documents", share(domain))
            }));
        }
        let mut shards = manifest.heldout.iter();
        for set in &self.heldout_sets {
            let samples: u64 = shards.by_ref().take(set.shards).map(|shard| u64::from(shard.samples)).sum();
            lines.push(format!("  held out as {}: {} samples", set.name, grouped(samples)));
        }
        lines
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A number with spaces between its thousands.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let parts: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|part| std::str::from_utf8(part).ok()).collect();
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_counted_at_their_ends_and_domains_up_to_a_bound() {
        let mut report = Report::default();
        let books = report.domain("books");
        report.count(books, 100, false, false);
        report.count(books, 30, false, true);
        report.count(books, 0, true, true);
        assert_eq!((report.sum(|d| d.documents), report.sum(|d| d.tokens), report.lengths()[7]), (2, 130, 1));
        let last = (0..100).map(|i| report.domain(&format!("domain {i}"))).last().unwrap();
        assert_eq!((report.domains.len(), report.domains[last].name.as_str()), (DOMAINS_MAX + 1, OTHERS));
        assert_eq!(report.domain("new"), last);
        assert_eq!(
            ["0", "999", "1 000", "12 345 678"],
            [0, 999, 1000, 12_345_678].map(grouped).each_ref().map(|s| s.as_str())
        );
    }
}
