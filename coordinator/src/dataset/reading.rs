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
    source::Source,
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
    heldout: bool,
}

impl Reading<'_> {
    /// Goes on from `state` to the end; the journal then says what the buckets are.
    pub fn run(&self, journal: &mut Journal, mut state: ReadState) -> Result<(), DatasetError> {
        let bar = progress("reading", self.sources.iter().map(|s| s.bytes).sum(), self.options.quiet);
        let mut train = self.open("train", &state.train)?;
        let mut heldout = self.open("heldout", &state.heldout)?;
        let text_bytes_max = self.options.max_bytes.unwrap_or(u64::MAX);
        let (mut batch, mut batch_bytes, mut checkpoint_at) =
            (vec![], 0, state.text_bytes + self.limits.checkpoint_bytes);
        let read = ReadOptions { column: &self.options.column, piece_bytes: self.split.piece_bytes, ids: self.ids };
        let mut cursor = Cursor::new(self.sources, read, state.source, state.position);
        if journal.notes.of(Note::Bad) > self.options.skip_bad {
            return Err(self.survey(&mut cursor, &state, &mut journal.notes));
        }
        while state.text_bytes < text_bytes_max
            && let Some((next, source)) = cursor.next(&mut journal.notes)?
        {
            match next {
                Next::Bad(reason) => {
                    journal.notes.add(Note::Bad, reason);
                    if journal.notes.of(Note::Bad) > self.options.skip_bad {
                        return Err(self.survey(&mut cursor, &state, &mut journal.notes));
                    }
                }
                Next::Pieces(pieces) => {
                    for piece in pieces {
                        let bytes = piece.text.len() as u64 + self.vocabulary.bytes_of(&piece.ids);
                        state.text_bytes += bytes;
                        batch_bytes += bytes as usize;
                        batch.push(Placed {
                            heldout: self.split.holds_out(self.group_of(&piece, source, &mut state)),
                            piece,
                        });
                    }
                }
            }
            (state.source, state.position) = cursor.place();
            bar.set_position(cursor.bytes_read());
            let checkpoint_due = state.text_bytes >= checkpoint_at;
            if batch_bytes >= BATCH_BYTES || checkpoint_due {
                self.push(&batch, &mut state.seam, &mut train, &mut heldout, &mut journal.notes)?;
                batch.clear();
                batch_bytes = 0;
            }
            if checkpoint_due {
                self.check_text(&state, &journal.notes)?;
                (state.train, state.heldout) = (train.checkpoint()?, heldout.checkpoint()?);
                journal.stage = Stage::Read(state.clone());
                journal.save(self.disk)?;
                fail::point("dataset.checkpoint");
                checkpoint_at = state.text_bytes + self.limits.checkpoint_bytes;
            }
        }
        self.push(&batch, &mut state.seam, &mut train, &mut heldout, &mut journal.notes)?;
        bar.finish();
        (state.train, state.heldout) = (train.checkpoint()?, heldout.checkpoint()?);
        self.check_text(&state, &journal.notes)?;
        self.check_enough(&state)?;
        for note in [Note::Unknown, Note::Lost] {
            let share = 100.0 * journal.notes.of(note) as f64 / state.text_bytes.max(1) as f64;
            if share == 0.0 {
                continue;
            }
            journal.notes.tell(note, format!("{share:.2} % of the text"));
        }
        let train = train.buckets().map(|name| Bucket { name, heldout: false });
        let heldout = heldout.buckets().map(|name| Bucket { name, heldout: true });
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
        heldout: &mut Stream,
        notes: &mut Notes,
    ) -> Result<(), DatasetError> {
        let most = (BATCH_BYTES / self.split.piece_bytes).max(1);
        for part in batch.chunks(most) {
            let pieces: Vec<&Piece> = part.iter().map(|p| &p.piece).collect();
            for (placed, encoded) in part.iter().zip(self.vocabulary.encode(&pieces)?) {
                let mut encoded = self.vocabulary.join(seam, &placed.piece, encoded)?;
                notes.count(Note::Unknown, encoded.unspelled.unknown);
                notes.count(Note::Lost, encoded.unspelled.lost);
                if placed.piece.ends {
                    encoded.tokens.extend(self.vocabulary.end_of_document(&placed.piece.text));
                }
                if placed.heldout { &mut *heldout } else { &mut *train }.push(&encoded.tokens)?;
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
        let too_little = |split, tokens, advice| Err(DatasetError::TooLittle { split, tokens, needed, advice });
        if state.text_bytes == 0 {
            let what = format!("{} file(s)", self.sources.len());
            return Err(DatasetError::Empty { what });
        }
        if state.train.samples == 0 {
            return too_little("the training part", state.train.tokens, "name more text, or pass a smaller --context");
        }
        if state.heldout.samples == 0 {
            return too_little(
                "the held-out part",
                state.heldout.tokens,
                "name more text or documents, or pass a larger --heldout",
            );
        }
        Ok(())
    }
}
