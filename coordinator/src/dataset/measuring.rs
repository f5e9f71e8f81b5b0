//! Which files are of a split for measuring. Words of their names tell, and only beside files that are to train on: a
//! text by itself may be called anything.

use super::source::{Format, ending};
use std::path::Path;

const TRAIN: [&str; 4] = ["train", "training", "trainset", "traindata"];
const MEASURING: [&str; 27] = [
    "test",
    "tests",
    "testing",
    "testset",
    "testdata",
    "validation",
    "validate",
    "validating",
    "validationset",
    "valid",
    "validset",
    "val",
    "valset",
    "dev",
    "devel",
    "devset",
    "development",
    "eval",
    "evals",
    "evalset",
    "evaluate",
    "evaluation",
    "evaluations",
    "heldout",
    "holdout",
    "withheld",
    "unseen",
];

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Split {
    /// To train on.
    Train,
    /// To measure with.
    Measuring,
}

/// Where a file's name says so. Only files that say so in the same place belong together: a program called train.py
/// says nothing about test.txt.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A folder above it.
    Folder,
    /// Its own name, among files of records.
    Record,
    /// Its own name, among texts with this ending.
    Text(String),
}

/// What a file is for, as its place under an input says: its own name first, then the folders above it.
pub fn split_of(relative: &Path, format: Format) -> Option<(Split, Place)> {
    let names = relative.components().rev().map(|name| name.as_os_str().to_string_lossy());
    let said = names.enumerate().find_map(|(at, name)| Some((at, said_by(&name)?)));
    let (at, split) = said?;
    let place = match format {
        _ if at > 0 => Place::Folder,
        Format::Text => Place::Text(ending(relative)),
        Format::JsonLines | Format::Json | Format::Parquet | Format::Arrow | Format::Tokens => Place::Record,
    };
    Some((split, place))
}

/// A name that has words of both is rather of what is trained on, as in train-test-split.
fn said_by(name: &str) -> Option<Split> {
    let words = words(name);
    // Held-out, test_set.
    let pairs = words.windows(2).map(|pair| pair.concat());
    let has = |known: &[&str]| words.iter().cloned().chain(pairs.clone()).any(|word| known.contains(&&*word));
    match () {
        () if has(&TRAIN) => Some(Split::Train),
        () if has(&MEASURING) => Some(Split::Measuring),
        () => None,
    }
}

/// A name's words, small: what stands between other characters, digits, and where a small letter meets a large one.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_small = false;
    for c in name.chars() {
        if !c.is_alphabetic() || (was_small && c.is_uppercase()) {
            words.push(String::new());
        }
        if c.is_alphabetic()
            && let Some(word) = words.last_mut()
        {
            word.extend(c.to_lowercase());
        }
        was_small = c.is_lowercase();
    }
    words.retain(|word| !word.is_empty());
    words
}
