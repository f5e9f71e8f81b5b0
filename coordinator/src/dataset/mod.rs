//! Datasets: text in, content-addressed shards of shuffled samples out, and how they are opened again.
//!
//! `prepare` reads the [`source`]s once, in order: [`read`] cuts them to pieces, [`split`] decides by group what is held
//! out, [`vocabulary`] makes tokens of the text, [`stream`] cuts the tokens to samples and spills each into a bucket
//! drawn at random ([`reading`] drives them), and [`shuffle`] makes shards of the buckets. Memory stays bounded whatever
//! the size of the input: what does not fit waits in the buckets' files. A [`journal`] names what is finished, so that a
//! killed run continues.

mod error;
mod folder;
mod journal;
mod open;
mod parquet_column;
mod prepare;
mod progress;
mod read;
mod reading;
mod registry;
mod shuffle;
mod source;
mod split;
mod stream;
mod vocabulary;

#[cfg(test)]
mod tests;

pub use error::DatasetError;
pub use journal::Skipped;
pub use open::Dataset;
pub use prepare::{PrepareOptions, Prepared, prepare};
pub use vocabulary::{ByteVocabularyError, END_OF_TEXT, TokenizerChoice, byte_tokenizer};
