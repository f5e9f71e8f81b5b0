//! Datasets: text in, content-addressed shards of shuffled samples out, and how they are opened again.
//!
//! `prepare` reads the [`source`]s once, in order, as a [`walk`] finds them: [`read`] cuts them to [`piece`]s,
//! [`split`] decides by group what is held out, [`vocabulary`] makes tokens of the text, [`stream`] cuts the tokens to
//! samples and spills each into a bucket drawn at random ([`reading`] drives them), and [`shuffle`] makes shards of the
//! buckets. What is left out or changed on the way is told in [`notes`]. Memory stays bounded whatever
//! the size of the input: what does not fit waits in the buckets' files. A [`journal`] names what is finished, so that
//! a killed run continues.

mod admitted;
mod arrow;
mod bucket;
mod byte_pair;
mod encoder;
mod error;
mod folder;
mod identity;
mod input;
mod journal;
mod json;
mod json_text;
mod measuring;
mod notes;
mod open;
mod parquet_column;
mod pattern;
mod piece;
mod prepare;
mod preview;
pub(crate) mod progress;
mod read;
mod reading;
mod registry;
mod remote;
mod report;
mod report_page;
mod sample;
mod seen;
mod shuffle;
mod sniff;
mod source;
mod split;
mod stream;
mod text_check;
mod text_file;
mod token_file;
mod vocabulary;
mod walk;

#[cfg(test)]
mod document_tests;
#[cfg(test)]
mod input_tests;
#[cfg(test)]
mod tests;

pub(crate) use byte_pair::{Rule, WordRule, merges_of, word_rule};
pub use error::DatasetError;
pub use identity::{TokenizerMismatch, check_same_tokenizer};
pub use nightjar_shared::end_of_text::KNOWN as END_OF_TEXT;
pub use notes::{Note, Notes};
pub use open::Dataset;
pub use prepare::{PrepareOptions, Prepared, prepare};
pub use preview::preview;
pub use remote::{Objects, OpenObjects};
pub use report::{Domain, HeldoutSet, Report};
pub use source::{HeldoutPath, IdWidth};
pub use vocabulary::{ByteVocabularyError, TokenizerChoice, byte_tokenizer};
