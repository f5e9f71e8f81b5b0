//! `dataset prepare`: the passes in order, each continuing where the journal says.

use super::{
    admitted::Admitted,
    encoder::Seam,
    error::DatasetError,
    folder::{self, Found, PLAN},
    journal::{Journal, ReadState, ShuffleState, Stage},
    notes::{Note, Notes},
    open::Dataset,
    pattern::Patterns,
    progress::{at_work, progress},
    read::{Next, Position, ReadOptions},
    reading::Reading,
    registry::RegistryLimits,
    remote::OpenObjects,
    report::{HeldoutSet, PAGE, REPORT, Report},
    report_page,
    sample::sample,
    shuffle::Shuffler,
    source::{self, HeldoutPath, IdWidth, Source, Wanted},
    split::{GroupBy, SplitRule},
    stream::StreamState,
    token_file::Ids,
    vocabulary::{self, EndOfText, TokenizerChoice, Vocabulary},
};
use nightjar_shared::{
    disk::{Disk, FolderDisk},
    fail,
    ids::BlobHash,
    shard::Manifest,
};
use serde::Serialize;
use std::{fs, path::PathBuf};

/// Most text from Cargo's registry, unless `max_bytes` says otherwise.
const REGISTRY_BYTES_MAX: u64 = 32 << 20;
/// Buckets that what is trained on is scattered over at first: also the fewest shards.
const TRAIN_BUCKETS: usize = 8;

/// What `dataset prepare` is asked for.
#[derive(Clone, Debug)]
pub struct PrepareOptions {
    /// Files and folders to read.
    pub paths: Vec<PathBuf>,
    /// Whether to read the crate sources that Cargo unpacked.
    pub cargo_registry: bool,
    /// Where the dataset goes.
    pub out: PathBuf,
    /// Which tokens.
    pub tokenizer: TokenizerChoice,
    /// Tokens that a sample predicts.
    pub context: u32,
    /// The token that ends a document; else it is looked for.
    pub end_of_text: Option<String>,
    /// The column of .jsonl, .json and .parquet files; dots lead into objects.
    pub column: String,
    /// Patterns of the files to take; empty takes all.
    pub include: Vec<String>,
    /// Patterns of files and folders to leave out.
    pub exclude: Vec<String>,
    /// Records that may be left out because they cannot be read.
    pub skip_bad: u64,
    /// Share of the groups that is held out.
    pub heldout: f64,
    /// Files that are only measured on; where there are some, nothing else is held out.
    pub heldout_paths: Vec<HeldoutPath>,
    /// Whether exact copies of documents stay.
    pub keep_duplicates: bool,
    /// Most bytes of text.
    pub max_bytes: Option<u64>,
    /// How wide the ids of .bin files are, where those hold tokens.
    pub token_ids: Option<IdWidth>,
    /// Opens inputs whose paths begin with `s3://`.
    pub open_objects: Option<OpenObjects>,
    /// All that is drawn depends on it.
    pub seed: u64,
    /// Whether to show no progress bars; there are none either where stderr is no terminal.
    pub quiet: bool,
}

impl PrepareOptions {
    /// As the command does it where nothing else is said.
    pub fn new(paths: Vec<PathBuf>, out: PathBuf) -> Self {
        PrepareOptions {
            paths,
            cargo_registry: false,
            out,
            tokenizer: TokenizerChoice::Bytes,
            context: 128,
            end_of_text: None,
            column: "text".to_owned(),
            include: vec![],
            exclude: vec![],
            skip_bad: 0,
            heldout: 0.02,
            heldout_paths: vec![],
            keep_duplicates: false,
            max_bytes: None,
            token_ids: None,
            open_objects: None,
            seed: 1,
            quiet: false,
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// The dataset.
    pub manifest: Manifest,
    /// Whether an earlier run had done all of it.
    pub already_done: bool,
}

/// Sizes that tests make small.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Longest piece of text.
    pub piece_bytes: usize,
    /// Text between two checkpoints.
    pub checkpoint_bytes: u64,
    /// Largest bucket that is shuffled in memory.
    pub bucket_bytes_max: u64,
    /// Children of a larger one.
    pub fan_out: usize,
    /// Tokens in a shard, in bytes before compression.
    pub shard_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            piece_bytes: 64 << 10,
            checkpoint_bytes: 64 << 20,
            bucket_bytes_max: 64 << 20,
            fan_out: 64,
            shard_bytes: 2 << 20,
        }
    }
}

/// What a folder was prepared for. A run with another plan does not continue it.
#[derive(Serialize)]
struct Plan {
    tokenizer: String,
    context: u32,
    column: String,
    heldout: f64,
    max_bytes: Option<u64>,
    seed: u64,
    /// The end of text, where it is not the one that the vocabulary itself suggests.
    #[serde(skip_serializing_if = "Option::is_none")]
    end_of_text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_id_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    heldout_sets: Vec<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    keep_duplicates: bool,
    split: SplitRule,
    /// Hash of the list of sources, with lengths and times of change.
    sources: BlobHash,
    source_bytes: u64,
}

/// Reads the inputs and writes a dataset, or goes on doing so. What is to be said about the inputs is in `notes`, also
/// when it fails; of a dataset that was done before, only what can be seen without reading.
pub fn prepare(options: &PrepareOptions, notes: &mut Notes) -> Result<Prepared, DatasetError> {
    prepare_within(options, &Limits::default(), notes)
}

/// [`prepare`] with sizes of one's own.
pub fn prepare_within(options: &PrepareOptions, limits: &Limits, notes: &mut Notes) -> Result<Prepared, DatasetError> {
    prepare_from(options, limits, registry_of(options).as_ref(), notes)
}

/// [`prepare_within`] with a registry of one's own.
pub fn prepare_from(
    options: &PrepareOptions,
    limits: &Limits,
    registry: Option<&RegistryLimits>,
    notes: &mut Notes,
) -> Result<Prepared, DatasetError> {
    let Inputs { sources, end, ids } = Inputs::find(options, registry, notes)?;
    let (column, piece_bytes, seed) = (&*options.column, limits.piece_bytes, options.seed);
    let admitted = Admitted {
        sources: trained_on(&sources),
        column,
        ids,
        max_bytes: options.max_bytes,
        share: options.heldout,
        piece_bytes,
        seed,
    };
    let split = match options.heldout_paths.is_empty() {
        true => admitted.rule()?,
        false => SplitRule { by: GroupBy::Document, every: 2, piece_bytes, seed },
    };
    let plan = Plan {
        tokenizer: options.tokenizer.fingerprint()?,
        context: options.context,
        column: options.column.clone(),
        heldout: options.heldout,
        max_bytes: options.max_bytes,
        seed: options.seed,
        end_of_text: end.token.clone().filter(|_| end.is_stated),
        token_id_bytes: options.token_ids.map(IdWidth::bytes),
        heldout_sets: options.heldout_paths.iter().map(|held| held.name.clone()).collect(),
        keep_duplicates: options.keep_duplicates,
        split,
        sources: BlobHash::of(&json(&sources)?),
        source_bytes: sources.iter().map(|s| s.bytes).sum(),
    };

    let plan = json(&plan)?;
    let cannot_open = |source| DatasetError::Out { out: options.out.clone(), source };
    let disk = FolderDisk::open(&options.out).map_err(cannot_open)?;
    let found = folder::find(&disk, &options.out, &plan)?;
    if found == Found::Done {
        let dataset = Dataset::open(&options.out)?;
        // The same plan gives the same shards: those that are gone are made again with all the others.
        if dataset.unfit().is_empty() {
            folder::remove_work(&disk)?;
            return Ok(Prepared { manifest: dataset.manifest().clone(), already_done: true });
        }
    }
    let lock = folder::lock(&disk, &options.out)?;
    if found == Found::Nothing {
        disk.remove("tokenizer.json").map_err(DatasetError::io(disk.path("tokenizer.json")))?;
        disk.write(PLAN, &plan).map_err(DatasetError::io(disk.path(PLAN)))?;
    }

    let vocabulary = choose_vocabulary(&disk, options, &end, &split, &sources)?;
    let fresh = || Journal {
        notes: Notes::default(),
        stage: Stage::Read(ReadState {
            source: 0,
            position: Position::default(),
            groups: 0,
            group_crate: None,
            text_bytes: 0,
            heldout_bytes: 0,
            seen: 0,
            seam: Seam::default(),
            train: StreamState::new(TRAIN_BUCKETS),
            heldout: vec![StreamState::new(1); options.heldout_paths.len().max(1)],
        }),
        report: Report::default(),
    };
    let mut journal = Journal::load(&disk)?.unwrap_or_else(fresh);
    if let Stage::Read(state) = journal.stage.clone() {
        let reading = Reading { disk: &disk, options, limits, split, ids, sources: &sources, vocabulary: &vocabulary };
        let done = reading.run(&mut journal, state);
        notes.merge(&journal.notes);
        done?;
    } else {
        notes.merge(&journal.notes);
    }
    if let Stage::Shuffle(state) = journal.stage.clone() {
        let bytes = state.pending.iter().filter_map(|b| fs::metadata(disk.path(&format!("work/{}", b.name))).ok());
        let bar = progress("shuffling", bytes.map(|m| m.len()).sum(), options.quiet);
        let shuffler = Shuffler {
            disk: &disk,
            vocabulary: &vocabulary,
            context: options.context,
            seed: options.seed,
            limits,
            bar: &bar,
        };
        let state = shuffler.run(&mut journal, state)?;
        bar.finish();
        finish(&disk, options, &vocabulary, &end, state, journal.report.with_notes(notes))?;
    }
    drop(lock);
    folder::remove_work(&disk)?;
    Ok(Prepared { manifest: Dataset::open(&options.out)?.manifest().clone(), already_done: false })
}

/// What is read, and what has to be known of its tokens.
pub struct Inputs {
    /// Files, those that are held out first.
    pub sources: Vec<Source>,
    /// What ends a document.
    pub end: EndOfText,
    /// What files of tokens hold.
    pub ids: Option<Ids>,
}

impl Inputs {
    /// Finds them, and checks what was asked for. Nothing is read yet but names and the tokenizer.
    pub fn find(
        options: &PrepareOptions,
        registry: Option<&RegistryLimits>,
        notes: &mut Notes,
    ) -> Result<Self, DatasetError> {
        check(options)?;
        let patterns = Patterns::new(&options.include, &options.exclude)?;
        let wanted = Wanted {
            paths: &options.paths,
            heldout: &options.heldout_paths,
            patterns: &patterns,
            out: &options.out,
            has_ids: options.token_ids.is_some(),
            open_objects: options.open_objects,
            cargo_registry: registry,
        };
        let sources = source::list(&wanted, notes)?;
        let end = EndOfText::choose(&options.tokenizer, options.end_of_text.as_deref())?;
        if end.token.is_none() && options.tokenizer != TokenizerChoice::Bytes {
            notes.count(Note::NoEndOfText, 1);
        }
        let ids = ids_of(options, &end)?;
        Ok(Inputs { sources, end, ids })
    }
}

/// Those of the sources that are not only measured on.
pub fn trained_on(sources: &[Source]) -> &[Source] {
    &sources[sources.iter().take_while(|source| source.heldout.is_some()).count()..]
}

fn check(options: &PrepareOptions) -> Result<(), DatasetError> {
    let refuse = |option, value: String, allowed| Err(DatasetError::OutOfRange { option, value, allowed });
    if !(1..=1 << 20).contains(&options.context) {
        return refuse("--context", options.context.to_string(), "1 to 1048576");
    }
    if !(options.heldout > 0.0 && options.heldout <= 0.5) {
        return refuse("--heldout", options.heldout.to_string(), "a share above 0, at most 0.5");
    }
    let names = options.heldout_paths.iter().map(|held| &held.name);
    if let Some(twice) = names.clone().find(|name| names.clone().filter(|other| other == name).count() > 1) {
        return refuse(
            "--heldout-path",
            format!("`{twice}` more than once"),
            "a name of its own for each, as in NAME=PATH",
        );
    }
    if options.max_bytes == Some(0) {
        return refuse("--max-bytes", "0".into(), "at least 1");
    }
    Ok(())
}

/// What of Cargo's registry is read, where it is.
pub fn registry_of(options: &PrepareOptions) -> Option<RegistryLimits> {
    options.cargo_registry.then(|| RegistryLimits {
        cargo_home: cargo_home(),
        bytes_max: options.max_bytes.unwrap_or(REGISTRY_BYTES_MAX).min(REGISTRY_BYTES_MAX),
    })
}

fn cargo_home() -> PathBuf {
    let set = std::env::var_os("CARGO_HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    set.unwrap_or_else(|| std::env::home_dir().unwrap_or_default().join(".cargo"))
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, DatasetError> {
    serde_json::to_vec_pretty(value)
        .map_err(|e| DatasetError::Damaged { what: format!("a path is no valid text: {e}") })
}

/// What files of tokens hold: what the tokenizer that made them has.
fn ids_of(options: &PrepareOptions, end: &EndOfText) -> Result<Option<Ids>, DatasetError> {
    let Some(width) = options.token_ids else { return Ok(None) };
    let TokenizerChoice::File(path) = &options.tokenizer else { return Err(DatasetError::IdsWithoutTokenizer) };
    let json = fs::read(path).map_err(DatasetError::io(path))?;
    let vocabulary = Vocabulary::from_json(&options.tokenizer.to_string(), &json, end)?;
    Ok(Some(Ids { width, size: vocabulary.size(), end: vocabulary.end_of_text() }))
}

/// Reads the tokenizer, or trains it unless an earlier run did.
fn choose_vocabulary(
    disk: &FolderDisk,
    options: &PrepareOptions,
    end: &EndOfText,
    split: &SplitRule,
    sources: &[Source],
) -> Result<Vocabulary, DatasetError> {
    if options.tokenizer == TokenizerChoice::Bytes {
        return Ok(Vocabulary::Bytes);
    }
    let file = "tokenizer.json";
    let name = options.tokenizer.to_string();
    if let Some(json) = disk.read(file).map_err(DatasetError::io(disk.path(file)))? {
        return Vocabulary::from_json(&name, &json, end);
    }
    let json = match &options.tokenizer {
        TokenizerChoice::Train(size) => {
            let read = ReadOptions { column: &options.column, piece_bytes: split.piece_bytes, ids: None };
            let mut texts = vec![];
            let bar =
                progress("sampling text", trained_on(sources).iter().map(Source::text_bytes).sum(), options.quiet);
            // What is to be said about the text is noted when it is read for good.
            sample(trained_on(sources), read, &mut Notes::default(), &bar, |next, _| {
                let Next::Pieces(pieces) = next else { return Ok(()) };
                texts.extend(pieces.into_iter().map(|piece| piece.text));
                Ok(())
            })?;
            bar.finish();
            let what = format!("training a vocabulary of {size} tokens");
            at_work(&what, options.quiet, || vocabulary::train(*size, end, texts.into_iter()))?
        }
        TokenizerChoice::File(path) => fs::read(path).map_err(DatasetError::io(path))?,
        TokenizerChoice::Bytes => return Ok(Vocabulary::Bytes),
    };
    let vocabulary = Vocabulary::from_json(&name, &json, end)?;
    disk.write(file, &json).map_err(DatasetError::io(disk.path(file)))?;
    fail::point("dataset.tokenizer");
    Ok(vocabulary)
}

/// Writes the manifest: from here on the dataset is there.
fn finish(
    disk: &FolderDisk,
    options: &PrepareOptions,
    vocabulary: &Vocabulary,
    end: &EndOfText,
    state: ShuffleState,
    mut report: Report,
) -> Result<(), DatasetError> {
    let write = |name: &str, bytes: &[u8]| disk.write(name, bytes).map_err(DatasetError::io(disk.path(name)));
    let tokenizer = match disk.read("tokenizer.json").map_err(DatasetError::io(disk.path("tokenizer.json")))? {
        None => None,
        Some(json) => {
            let hash = BlobHash::of(&json);
            write(&format!("blobs/{hash}"), &json)?;
            Some(hash)
        }
    };
    let manifest = Manifest {
        format: 1,
        context: options.context,
        vocab_size: vocabulary.size(),
        tokenizer,
        end_of_text: vocabulary.end_of_text().filter(|_| end.is_stated),
        train: state.train,
        heldout: state.heldout,
    };
    let names = options.heldout_paths.iter().map(|held| held.name.clone());
    report.heldout_sets = names.zip(state.sets).map(|(name, shards)| HeldoutSet { name, shards }).collect();
    write(REPORT, &json(&report)?)?;
    write(PAGE, report_page::page(&report, &manifest).as_bytes())?;
    write("manifest.json", &json(&manifest)?)?;
    fail::point("dataset.manifest");
    Ok(())
}
