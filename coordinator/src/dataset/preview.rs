//! `dataset prepare --dry-run`: what a preparation would read and come to, told from a sample. Nothing is written.

use super::{
    error::DatasetError,
    notes::{Note, Notes},
    piece::Piece,
    prepare::{Inputs, Limits, PrepareOptions, registry_of, trained_on},
    progress::progress,
    read::{Next, ReadOptions},
    report::{Report, grouped},
    sample::sample,
    source::Source,
    vocabulary::{TokenizerChoice, Vocabulary},
};
use indicatif::HumanBytes;
use nightjar_shared::shard::token_bytes;
use std::fs;

/// Bytes of text behind a token of a vocabulary that is not there yet, about.
const BYTES_A_TOKEN: f64 = 4.0;

/// Says what [`super::prepare`] would do with the same options, a line each. What would be left out is in `notes`, as
/// far as the sample shows it.
pub fn preview(options: &PrepareOptions, notes: &mut Notes) -> Result<Vec<String>, DatasetError> {
    let Inputs { sources, end, ids } = Inputs::find(options, registry_of(options).as_ref(), notes)?;
    let vocabulary = match &options.tokenizer {
        TokenizerChoice::Bytes => Some(Vocabulary::Bytes),
        TokenizerChoice::Train(_) => None,
        TokenizerChoice::File(path) => {
            let json = fs::read(path).map_err(DatasetError::io(path))?;
            Some(Vocabulary::from_json(&options.tokenizer.to_string(), &json, &end)?)
        }
    };
    let read = ReadOptions { column: &options.column, piece_bytes: Limits::default().piece_bytes, ids };
    let all: u64 = sources.iter().map(Source::text_bytes).sum();
    let bar = progress("looking", all, options.quiet);
    let (mut report, mut text_bytes, mut documents) = (Report::default(), 0, 0);
    let mut said = Notes::default();
    sample(&sources, read, &mut said, &bar, |next, source| {
        match next {
            Next::Bad(reason) => notes.add(Note::Bad, reason),
            Next::Pieces(pieces) => {
                let bytes = pieces.iter().map(|piece| piece.text.len() as u64).sum::<u64>();
                text_bytes += bytes;
                documents += pieces.iter().filter(|piece| piece.begins).count() as u64;
                let domain = report.domain(&source.domain);
                report.domains[domain].text_bytes += bytes;
                for (piece, tokens) in pieces.iter().zip(tokens_of(&pieces, vocabulary.as_ref())?) {
                    report.count(domain, tokens, source.heldout.is_some(), piece.ends);
                }
            }
        }
        Ok(())
    })?;
    bar.finish_and_clear();
    notes.merge(&said);
    let kept = trained_on(&sources);
    let on_disk: u64 = kept.iter().map(|source| source.bytes).sum();
    let mut lines = vec![format!("would read {} files of {}", grouped(kept.len() as u64), HumanBytes(on_disk))];
    if sources.len() > kept.len() {
        lines.push(format!("and hold out {} files", sources.len() - kept.len()));
    }
    let looked_at = report.sum(|d| d.tokens + d.heldout_tokens);
    let share = looked_at as f64 / text_bytes.max(1) as f64;
    let about = |of: u64| if text_bytes == 0 { looked_at } else { (of as f64 * share) as u64 };
    lines.push(format!(
        "looked at {} documents, {} of text; so there are about {} tokens to train on, {} samples of {}",
        grouped(documents),
        HumanBytes(text_bytes),
        grouped(about(kept.iter().map(Source::text_bytes).sum())),
        grouped(about(kept.iter().map(Source::text_bytes).sum()) / u64::from(options.context)),
        options.context
    ));
    let width = token_bytes(vocabulary.as_ref().map_or(u32::from(u16::MAX), Vocabulary::size)) as u64;
    lines.push(format!(
        "it would take up to {} on the disk, and as much again while it is at work",
        HumanBytes(about(all) * width)
    ));
    lines.push("nothing was written: leave out --dry-run to prepare it".to_owned());
    Ok(lines)
}

/// How many tokens each piece has.
fn tokens_of(pieces: &[Piece], vocabulary: Option<&Vocabulary>) -> Result<Vec<u64>, DatasetError> {
    let Some(vocabulary) = vocabulary else {
        return Ok(pieces.iter().map(|piece| (piece.text.len() as f64 / BYTES_A_TOKEN).ceil() as u64).collect());
    };
    let encoded = vocabulary.encode(&pieces.iter().collect::<Vec<_>>())?;
    Ok(encoded.iter().map(|encoded| encoded.tokens.len() as u64).collect())
}
