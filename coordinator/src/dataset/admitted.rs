//! What is held out is taken from what is read: a rule that would hold nothing out of it is made finer.

use super::{
    error::DatasetError,
    notes::Notes,
    read::{Cursor, Next, Position, ReadOptions},
    source::{Format, Source},
    split::{GroupBy, SplitRule},
    token_file::Ids,
};

/// What decides about a rule.
pub struct Admitted<'a> {
    /// What is read, if it is not too much.
    pub sources: &'a [Source],
    /// The column of records.
    pub column: &'a str,
    /// What files of tokens hold.
    pub ids: Option<Ids>,
    /// Most bytes of text.
    pub max_bytes: Option<u64>,
    /// Share of the groups that is asked for.
    pub share: f64,
    /// Longest piece.
    pub piece_bytes: usize,
    /// The dataset's seed.
    pub seed: u64,
}

impl Admitted<'_> {
    /// The rule for all sources, if it holds something out of what is read of them; else one that holds out pieces,
    /// fewer where there are few.
    pub fn rule(&self) -> Result<SplitRule, DatasetError> {
        let rule = SplitRule::for_sources(self.sources, self.share, self.piece_bytes, self.seed);
        if self.sources.iter().any(|s| s.crate_name.is_some()) {
            return Ok(rule);
        }
        let (groups, text_bytes) = self.count(rule, rule.first_held_out() + 1)?;
        if groups > rule.first_held_out() {
            return Ok(rule);
        }
        let rule = rule.in_pieces(text_bytes, self.piece_bytes);
        let (pieces, _) = self.count(rule, rule.every)?;
        Ok(SplitRule { every: rule.every.min(pieces).max(2), ..rule })
    }

    /// How many groups there are, counted up to `most`, and about how much text.
    fn count(&self, rule: SplitRule, most: u64) -> Result<(u64, u64), DatasetError> {
        let options = ReadOptions { column: self.column, piece_bytes: rule.piece_bytes, ids: self.ids };
        let mut cursor = Cursor::new(self.sources, options, 0, Position::default());
        let (mut groups, mut text_bytes) = (0, 0);
        let text_bytes_max = self.max_bytes.unwrap_or(u64::MAX);
        while groups < most && text_bytes < text_bytes_max {
            let Some((next, source)) = cursor.next(&mut Notes::default())? else { break };
            let Next::Pieces(pieces) = next else { continue };
            let begun = pieces.iter().filter(|piece| rule.by == GroupBy::Piece || piece.begins).count();
            groups += begun as u64;
            if source.format == Format::Text && rule.by == GroupBy::Document {
                // The rest of the file belongs to the same group.
                text_bytes += source.text_bytes();
                cursor.skip_source();
            } else {
                text_bytes += pieces.iter().map(|piece| (piece.text.len() + 4 * piece.ids.len()) as u64).sum::<u64>();
            }
        }
        Ok((groups, text_bytes.min(text_bytes_max)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn rule(folder: &Path, files: &[(&str, String)], max_bytes: Option<u64>, seed: u64) -> (SplitRule, SplitRule) {
        let sources: Vec<Source> = files
            .iter()
            .map(|(name, text)| {
                let path = folder.join(name);
                std::fs::write(&path, text).unwrap();
                Source {
                    format: Format::of(&path),
                    path,
                    bytes: text.len() as u64,
                    changed_ns: 0,
                    crate_name: None,
                    heldout: None,
                    domain: String::new(),
                    object: None,
                }
            })
            .collect();
        let admitted = Admitted {
            sources: &sources,
            column: "text",
            ids: None,
            max_bytes,
            share: 0.02,
            piece_bytes: 1 << 16,
            seed,
        };
        (admitted.rule().unwrap(), SplitRule::for_sources(&sources, 0.02, 1 << 16, seed))
    }

    #[test]
    fn something_is_held_out_of_what_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let names: Vec<String> = (0..60).map(|i| format!("{i:02}.txt")).collect();
        let files: Vec<(&str, String)> = names.iter().map(|name| (name.as_str(), "words ".repeat(1000))).collect();
        let (mut finer, mut as_before) = (0, 0);
        for seed in 0..20 {
            let (found, whole) = rule(folder.path(), &files, Some(60_000), seed);
            // Ten files are read.
            match whole.first_held_out() < 10 {
                true => assert_eq!(found, whole),
                false => assert_eq!((found.by, found.every), (GroupBy::Piece, 20)),
            }
            finer += usize::from(found != whole);
            as_before += usize::from(found == whole);
            assert!(rule(folder.path(), &files, None, seed).0 == whole);
        }
        assert!(finer > 0 && as_before > 0);
    }

    #[test]
    fn a_file_that_gives_no_text_does_not_make_documents_of_few_files() {
        let folder = tempfile::tempdir().unwrap();
        let files = [("a.txt", "words ".repeat(100_000)), ("config.json", "{\"name\": \"x\"}".to_owned())];
        let rules: Vec<_> = (0..9).map(|seed| rule(folder.path(), &files, None, seed).0).collect();
        assert!(rules.iter().filter(|rule| rule.by == GroupBy::Piece && rule.every == 50).count() >= 8, "{rules:?}");
    }

    #[test]
    fn few_records_have_one_that_is_held_out() {
        let folder = tempfile::tempdir().unwrap();
        let lines = (0..12).map(|i| format!("{{\"text\": \"record {i}\"}}\n")).collect::<String>();
        for seed in 0..20 {
            let (found, whole) = rule(folder.path(), &[("a.jsonl", lines.clone())], None, seed);
            let every = if whole.first_held_out() < 12 { 50 } else { 12 };
            assert_eq!((found.every, found.first_held_out() < 12), (every, true));
            let (found, _) = rule(folder.path(), &[("a.jsonl", lines.clone())], Some(30), seed);
            assert!(found.first_held_out() < 4, "{found:?}");
        }
    }
}
