//! What is held out: one group in every so many, drawn from the seed. A group is never torn apart, so that held-out
//! text was not trained on.

use super::source::{Format, Source};
use nightjar_shared::rng;
use serde::{Deserialize, Serialize};

/// What is held out or trained on as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupBy {
    /// A file, line or row (or, in Cargo's registry, a crate).
    Document,
    /// A piece of text: the rule where there are too few files to hold a whole one out.
    Piece,
}

/// The rule: of each `every` consecutive groups one is held out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitRule {
    /// What a group is.
    pub by: GroupBy,
    /// One in so many; at least 2.
    pub every: u64,
    /// Longest piece that text is cut to, in bytes.
    pub piece_bytes: usize,
    /// The dataset's seed.
    pub seed: u64,
}

impl SplitRule {
    /// The rule that comes closest to the `share` asked for. Where everything is text and there are fewer files than
    /// it takes to hold one out, long files are held out in pieces.
    pub fn for_sources(sources: &[Source], share: f64, piece_bytes: usize, seed: u64) -> Self {
        let every = ((1.0 / share).round() as u64).max(2);
        let rule = SplitRule { by: GroupBy::Document, every, piece_bytes, seed };
        let documents_unknown = sources.iter().any(|s| s.format != Format::Text);
        if documents_unknown {
            return rule;
        }
        if sources.iter().any(|s| s.crate_name.is_some()) {
            let crates = sources.chunk_by(|a, b| a.crate_name.is_some() && a.crate_name == b.crate_name).count() as u64;
            return SplitRule { every: every.min(crates.max(2)), ..rule };
        }
        if sources.len() as u64 >= every {
            return rule;
        }
        let bytes: u64 = sources.iter().map(Source::text_bytes).sum();
        let SplitRule { piece_bytes, .. } = rule.in_pieces(bytes, piece_bytes);
        let pieces: u64 = sources.iter().map(|s| s.text_bytes().div_ceil(piece_bytes as u64)).sum();
        SplitRule { by: GroupBy::Piece, every: every.min(pieces.max(2)), piece_bytes, seed }
    }

    /// The same with pieces of so much text as groups.
    pub fn in_pieces(self, text_bytes: u64, longest: usize) -> Self {
        let least = (longest / 16).max(1);
        let piece_bytes = ((text_bytes / self.every) as usize).clamp(least, longest);
        SplitRule { by: GroupBy::Piece, piece_bytes, ..self }
    }

    /// The number of the first group that is held out.
    pub fn first_held_out(&self) -> u64 {
        rng::below(self.seed, rng::stream::DATASET, 0, self.every)
    }

    /// Whether group number `group` is held out.
    pub fn holds_out(&self, group: u64) -> bool {
        let (block, place) = (group / self.every, group % self.every);
        place == rng::below(self.seed, rng::stream::DATASET, block, self.every)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: u64) -> Source {
        Source {
            path: "t".into(),
            format: Format::Text,
            bytes,
            changed_ns: 0,
            crate_name: None,
            heldout: None,
            domain: String::new(),
            object: None,
        }
    }

    #[test]
    fn one_group_in_every_block_is_held_out() {
        let rule = SplitRule::for_sources(&vec![text(10); 200], 0.02, 1 << 16, 7);
        assert_eq!((rule.by, rule.every), (GroupBy::Document, 50));
        for block in 0..20 {
            assert_eq!((0..50).filter(|g| rule.holds_out(block * 50 + g)).count(), 1);
        }
    }

    #[test]
    fn few_files_are_held_out_in_pieces() {
        let rule = SplitRule::for_sources(&[text(1_300_000)], 0.02, 1 << 16, 7);
        assert_eq!(rule, SplitRule { by: GroupBy::Piece, every: 50, piece_bytes: 26_000, seed: 7 });
        let small = SplitRule::for_sources(&[text(10_000)], 0.02, 1 << 16, 7);
        assert_eq!((small.every, small.piece_bytes), (3, 4096));
    }
}
