//! The first pass: text becomes samples, and the samples wait in buckets.

use super::{
    error::DatasetError,
    journal::{Bucket, Journal, ReadState, ShuffleState, Stage},
    prepare::{Limits, PrepareOptions},
    progress::progress,
    read::{Piece, Position, ReadOptions, Reader},
    source::Source,
    split::{GroupBy, SplitRule},
    stream::{Stream, StreamState},
    vocabulary::Vocabulary,
};
use nightjar_shared::{
    disk::{Disk, FolderDisk},
    fail,
    shard::token_bytes,
};

/// Text that is tokenized at once, in pieces on all cores.
const BATCH_BYTES: usize = 1 << 20;

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
        let (mut batch, mut batch_bytes, mut checkpoint_at) = (vec![], 0, state.text_bytes + self.limits.checkpoint_bytes);
        let mut behind: u64 = self.sources.iter().take(state.source).map(|s| s.bytes).sum();
        while let Some(source) = self.sources.get(state.source) {
            let read = ReadOptions { column: &self.options.column, piece_bytes: self.split.piece_bytes };
            let mut reader = Reader::open(source, read, state.position)?;
            while state.text_bytes < text_bytes_max
                && let Some(pieces) = reader.next(&mut journal.skipped)?
            {
                for piece in pieces {
                    state.text_bytes += piece.text.len() as u64;
                    batch_bytes += piece.text.len();
                    batch.push(Placed { heldout: self.split.holds_out(self.group_of(&piece, source, &mut state)), piece });
                }
                state.position = reader.position();
                bar.set_position(behind + reader.bytes_read());
                let checkpoint_due = state.text_bytes >= checkpoint_at;
                if batch_bytes >= BATCH_BYTES || checkpoint_due {
                    self.push(&batch, &mut train, &mut heldout)?;
                    batch.clear();
                    batch_bytes = 0;
                }
                if checkpoint_due {
                    (state.train, state.heldout) = (train.checkpoint()?, heldout.checkpoint()?);
                    journal.stage = Stage::Read(state.clone());
                    journal.save(self.disk)?;
                    fail::point("dataset.checkpoint");
                    checkpoint_at = state.text_bytes + self.limits.checkpoint_bytes;
                }
            }
            behind += source.bytes;
            (state.source, state.position) = (state.source + 1, Position::default());
        }
        self.push(&batch, &mut train, &mut heldout)?;
        bar.finish();
        (state.train, state.heldout) = (train.checkpoint()?, heldout.checkpoint()?);
        self.check_enough(&state)?;
        let train = train.buckets().map(|name| Bucket { name, heldout: false });
        let heldout = heldout.buckets().map(|name| Bucket { name, heldout: true });
        journal.stage = Stage::Shuffle(ShuffleState { pending: train.chain(heldout).collect(), ..ShuffleState::default() });
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

    fn push(&self, batch: &[Placed], train: &mut Stream, heldout: &mut Stream) -> Result<(), DatasetError> {
        let most = (BATCH_BYTES / self.split.piece_bytes).max(1);
        for part in batch.chunks(most) {
            let texts: Vec<&str> = part.iter().map(|p| p.piece.text.as_str()).collect();
            for (placed, mut tokens) in part.iter().zip(self.vocabulary.encode(&texts)?) {
                if placed.piece.ends {
                    tokens.extend(self.vocabulary.end_of_document(&placed.piece.text));
                }
                if placed.heldout { &mut *heldout } else { &mut *train }.push(&tokens)?;
            }
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
