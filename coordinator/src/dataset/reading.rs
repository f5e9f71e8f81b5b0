//! The first pass: text becomes samples, and the samples wait in buckets.

use super::{
    encoder::Seam,
    error::DatasetError,
    journal::{Bucket, Journal, ReadState, ShuffleState, Stage},
    notes::{Note, Notes},
    piece::Piece,
    prepare::{Limits, PrepareOptions},
    progress::progress,
    read::{Cursor, Next, ReadOptions},
    seen::{REMEMBERED_MAX, Seen, hash_of, hash_of_file},
    source::{Format, Source},
    split::{GroupBy, SplitRule},
    stream::{Stream, StreamState},
    token_file::Ids,
    vocabulary::Vocabulary,
};
use nightjar_shared::{
    disk::{Disk, FolderDisk},
    fail,
    shard::token_bytes,
};
use std::collections::HashSet;

/// Text that is tokenized at once, in pieces on all cores.
const BATCH_BYTES: usize = 1 << 20;
/// Records that cannot be read and that a message names.
const BAD_NAMED_MAX: usize = 20;
/// So many are counted; then looking for more ends.
const BAD_COUNTED_MAX: u64 = 100_000;
/// So many without a single one that can be read: the options are wrong, rather than the records.
const BAD_FROM_THE_START: u64 = 100;

/// A larger share of the text that the vocabulary cannot spell is refused: it is of another language.
const UNSPELLED_MAX: f64 = 0.5;
/// A larger share of characters that are not UTF-8 is refused: the text is written in another way.
const INVALID_PERCENT_MAX: f64 = 1.0;
/// Fewest of them; a few strays are no reason.
const INVALID_MIN: u64 = 16;

/// What the pass needs.
pub struct Reading<'a> {
    /// The output folder.
    pub disk: &'a FolderDisk,
    /// What was asked for.
    pub options: &'a PrepareOptions,
    /// Sizes.
    pub limits: &'a Limits,
    /// What is held out.
    pub split: SplitRule,
    /// What files of tokens hold.
    pub ids: Option<Ids>,
    /// What is read.
    pub sources: &'a [Source],
    /// Makes tokens.
    pub vocabulary: &'a Vocabulary,
}

/// A piece, and where it belongs.
struct Placed {
    piece: Piece,
    /// The stream of what is held out, where it is.
    heldout: Option<usize>,
    domain: usize,
}

impl Reading<'_> {
    /// Goes on from `state` to the end; the journal then says what the buckets are.
    pub fn run(&self, journal: &mut Journal, mut state: ReadState) -> Result<(), DatasetError> {
        let bar = progress("reading", self.sources.iter().map(|s| s.bytes).sum(), self.options.quiet);
        let mut train = self.open("train", &state.train)?;
        let mut heldout = vec![];
        for (set, state) in state.heldout.iter().enumerate() {
            let name = if self.has_sets() { format!("heldout-{set}") } else { "heldout".to_owned() };
            heldout.push(self.open(&name, state)?);
        }
        let mut seen = Seen::open(&self.disk.path("work"), state.seen, REMEMBERED_MAX)?;
        let twins = self.twins();
        let text_bytes_max = self.options.max_bytes.unwrap_or(u64::MAX);
        let (mut batch, mut batch_bytes, mut checkpoint_at) =
            (vec![], 0, state.text_bytes + self.limits.checkpoint_bytes);
        let read = ReadOptions { column: &self.options.column, piece_bytes: self.split.piece_bytes, ids: self.ids };
        let mut cursor = Cursor::new(self.sources, read, state.source, state.position);
        if journal.notes.of(Note::Bad) > self.options.skip_bad {
            return Err(self.survey(&mut cursor, &state, &mut journal.notes));
        }
        while state.text_bytes - state.heldout_bytes < text_bytes_max
            && let Some((next, source)) = cursor.next(&mut journal.notes)?
        {
            match next {
                Next::Bad(reason) => {
                    journal.notes.add(Note::Bad, reason);
                    if journal.notes.of(Note::Bad) > self.options.skip_bad {
                        return Err(self.survey(&mut cursor, &state, &mut journal.notes));
                    }
                }
                Next::Pieces(pieces) if !self.is_new(&pieces, source, &twins, &mut seen)? => {
                    let domain = journal.report.domain(&source.domain);
                    journal.report.domains[domain].duplicates += 1;
                    journal.notes.add(Note::Duplicate, source.path.display().to_string());
                    if pieces.last().is_some_and(|piece| !piece.ends) {
                        cursor.skip_source();
                    }
                }
                Next::Pieces(pieces) => {
                    let domain = journal.report.domain(&source.domain);
                    for piece in pieces {
                        let bytes = piece.text.len() as u64 + self.vocabulary.bytes_of(&piece.ids);
                        state.text_bytes += bytes;
                        state.heldout_bytes += if source.heldout.is_some() { bytes } else { 0 };
                        journal.report.domains[domain].text_bytes += bytes;
                        batch_bytes += bytes as usize;
                        let is_held_out = self.split.holds_out(self.group_of(&piece, source, &mut state));
                        let heldout = source.heldout.or((is_held_out && !self.has_sets()).then_some(0));
                        batch.push(Placed { piece, heldout, domain });
                    }
                }
            }
            (state.source, state.position) = cursor.place();
            bar.set_position(cursor.bytes_read());
            let checkpoint_due = state.text_bytes >= checkpoint_at;
            if batch_bytes >= BATCH_BYTES || checkpoint_due {
                self.push(&batch, &mut state.seam, &mut train, &mut heldout, journal)?;
                batch.clear();
                batch_bytes = 0;
            }
            if checkpoint_due {
                self.check_text(&state, &journal.notes)?;
                state.train = train.checkpoint()?;
                state.heldout = heldout.iter_mut().map(Stream::checkpoint).collect::<Result<_, _>>()?;
                state.seen = seen.checkpoint()?;
                journal.stage = Stage::Read(state.clone());
                journal.save(self.disk)?;
                fail::point("dataset.checkpoint");
                checkpoint_at = state.text_bytes + self.limits.checkpoint_bytes;
            }
        }
        self.push(&batch, &mut state.seam, &mut train, &mut heldout, journal)?;
        bar.finish();
        state.train = train.checkpoint()?;
        state.heldout = heldout.iter_mut().map(Stream::checkpoint).collect::<Result<_, _>>()?;
        self.check_text(&state, &journal.notes)?;
        self.check_enough(&state)?;
        for note in [Note::Unknown, Note::Lost] {
            let share = 100.0 * journal.notes.of(note) as f64 / state.text_bytes.max(1) as f64;
            if share == 0.0 {
                continue;
            }
            journal.notes.tell(note, format!("{share:.2} % of the text"));
        }
        let train = train.buckets().map(|name| Bucket { name, heldout: false, set: 0 });
        let of_set =
            |(set, stream): (usize, Stream)| stream.buckets().map(move |name| Bucket { name, heldout: true, set });
        let heldout = heldout.into_iter().enumerate().flat_map(of_set);
        journal.stage =
            Stage::Shuffle(ShuffleState { pending: train.chain(heldout).collect(), ..ShuffleState::default() });
        journal.save(self.disk)?;
        fail::point("dataset.read");
        Ok(())
    }

    fn open(&self, name: &str, state: &StreamState) -> Result<Stream, DatasetError> {
        let width = token_bytes(self.vocabulary.size());
        Stream::open(&self.disk.path("work"), name, self.options.seed, self.options.context, width, state.clone())
    }

    /// Whether files were named that are only measured on; then nothing else is held out.
    fn has_sets(&self) -> bool {
        !self.options.heldout_paths.is_empty()
    }

    /// Lengths that several files have, each a document.
    fn twins(&self) -> HashSet<u64> {
        let mut lengths = HashSet::new();
        let files = self.sources.iter().filter(|source| source.format == Format::Text);
        files.map(|source| source.bytes).filter(|bytes| !lengths.insert(*bytes)).collect()
    }

    /// Whether a document that begins here is no copy of an earlier one. Of a file that does not fit into a piece, only
    /// another file of the same length may be a copy.
    fn is_new(
        &self,
        pieces: &[Piece],
        source: &Source,
        twins: &HashSet<u64>,
        seen: &mut Seen,
    ) -> Result<bool, DatasetError> {
        let begins = pieces.first().is_some_and(|piece| piece.begins);
        let ends = pieces.last().is_some_and(|piece| piece.ends);
        match source.format {
            _ if !begins || self.options.keep_duplicates => Ok(true),
            _ if ends => seen.is_new(hash_of(pieces)),
            Format::Text if twins.contains(&source.bytes) => seen.is_new(hash_of_file(&source.place())?),
            _ => Ok(true),
        }
    }

    /// Number of the group that a piece belongs to; counts the group, if it begins here.
    fn group_of(&self, piece: &Piece, source: &Source, state: &mut ReadState) -> u64 {
        let begins = match &source.crate_name {
            Some(name) => state.group_crate.as_ref() != Some(name),
            None => self.split.by == GroupBy::Piece || piece.begins,
        };
        if begins {
            state.groups += 1;
            state.group_crate.clone_from(&source.crate_name);
        }
        state.groups - 1
    }

    /// Looks through what is left for more records that cannot be read, so that all are told at once.
    fn survey(&self, cursor: &mut Cursor, state: &ReadState, notes: &mut Notes) -> DatasetError {
        let bar = progress("checking", self.sources.iter().map(|s| s.bytes).sum(), self.options.quiet);
        let text_bytes_max = self.options.max_bytes.unwrap_or(u64::MAX);
        let (mut text_bytes, mut named) = (state.text_bytes, notes.names(Note::Bad).to_vec());
        let mut whole = false;
        while text_bytes < text_bytes_max && notes.of(Note::Bad) < BAD_COUNTED_MAX {
            let next = match cursor.next(notes) {
                Ok(next) => next,
                Err(error) => return error,
            };
            match next {
                None => {
                    whole = true;
                    break;
                }
                Some((Next::Pieces(pieces), _)) => {
                    text_bytes += pieces.iter().map(|p| p.text.len() as u64).sum::<u64>()
                }
                Some((Next::Bad(reason), _)) => {
                    if named.len() < BAD_NAMED_MAX && !named.contains(&reason) {
                        named.push(reason.clone());
                    }
                    notes.add(Note::Bad, reason);
                }
            }
            bar.set_position(cursor.bytes_read());
            if text_bytes == 0 && notes.of(Note::Bad) >= BAD_FROM_THE_START {
                break;
            }
        }
        bar.finish_and_clear();
        let all = text_bytes == 0;
        named.truncate(if all { 3 } else { BAD_NAMED_MAX });
        let whole = whole || text_bytes >= text_bytes_max;
        let count = notes.of(Note::Bad);
        // The message tells them; the report need not do so too.
        notes.forget(Note::Bad);
        DatasetError::BadRecords { count, whole, all, named }
    }

    /// Pieces that follow one another become tokens that do.
    fn push(
        &self,
        batch: &[Placed],
        seam: &mut Seam,
        train: &mut Stream,
        heldout: &mut [Stream],
        journal: &mut Journal,
    ) -> Result<(), DatasetError> {
        let most = (BATCH_BYTES / self.split.piece_bytes).max(1);
        for part in batch.chunks(most) {
            let pieces: Vec<&Piece> = part.iter().map(|p| &p.piece).collect();
            for (placed, encoded) in part.iter().zip(self.vocabulary.encode(&pieces)?) {
                let mut encoded = self.vocabulary.join(seam, &placed.piece, encoded)?;
                journal.notes.count(Note::Unknown, encoded.unspelled.unknown);
                journal.notes.count(Note::Lost, encoded.unspelled.lost);
                if placed.piece.ends {
                    encoded.tokens.extend(self.vocabulary.end_of_document(&placed.piece.text));
                }
                let stream = placed.heldout.and_then(|set| heldout.get_mut(set));
                stream.unwrap_or(&mut *train).push(&encoded.tokens)?;
                let (tokens, is_heldout) = (encoded.tokens.len() as u64, placed.heldout.is_some());
                journal.report.count(placed.domain, tokens, is_heldout, placed.piece.ends);
                *seam = encoded.seam;
            }
        }
        Ok(())
    }

    /// Refuses text of which little would be left.
    fn check_text(&self, state: &ReadState, notes: &Notes) -> Result<(), DatasetError> {
        let share = |bytes: u64| bytes as f64 / state.text_bytes.max(1) as f64;
        let unspelled = share(notes.of(Note::Unknown) + notes.of(Note::Lost));
        if unspelled > UNSPELLED_MAX {
            let name = self.options.tokenizer.to_string();
            return Err(DatasetError::Unspelled { name, percent: 100.0 * unspelled });
        }
        let percent = 100.0 * share(notes.of(Note::InvalidUtf8));
        if percent > INVALID_PERCENT_MAX && notes.of(Note::InvalidUtf8) >= INVALID_MIN {
            return Err(DatasetError::NotUtf8 { percent, named: notes.names(Note::InvalidUtf8).to_vec() });
        }
        Ok(())
    }

    fn check_enough(&self, state: &ReadState) -> Result<(), DatasetError> {
        let needed = u64::from(self.options.context) + 1;
        let too_little = |split: &str, tokens, advice| {
            Err(DatasetError::TooLittle { split: split.to_owned(), tokens, needed, advice })
        };
        if state.text_bytes == 0 {
            let what = format!("{} file(s)", self.sources.len());
            return Err(DatasetError::Empty { what });
        }
        if state.train.samples == 0 {
            return too_little("the training part", state.train.tokens, "name more text, or pass a smaller --context");
        }
        let names = self.options.heldout_paths.iter().map(|held| held.name.as_str());
        for (stream, name) in state.heldout.iter().zip(names.chain(["the held-out part"])) {
            let advice = match self.has_sets() {
                true => "name more files for it, or pass a smaller --context",
                false => "name more text or documents, or pass a larger --heldout",
            };
            if stream.samples == 0 {
                return too_little(name, stream.tokens, advice);
            }
        }
        Ok(())
    }
}
