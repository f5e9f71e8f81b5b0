//! What both ends of Nightjar must agree on: names, the run spec, the model's layout, shards, codecs, published
//! versions, messages. Plain arithmetic in a fixed order, so that every device computes the same bits.
//!
//! Never here: an async runtime, a socket, a GPU, a clock, or a random source of its own. Time and seeds are arguments.

pub mod blob;
pub mod bytes;
pub mod delta;
pub mod disk;
pub mod end_of_text;
pub mod fail;
pub mod fragment;
pub mod home_files;
pub mod ids;
pub mod invite;
pub mod lease;
pub mod mark;
pub mod model_folder;
pub mod model_spec;
pub mod plain;
pub mod public_name;
pub mod range;
pub mod rng;
pub mod run_spec;
pub mod sealed;
pub mod shard;
pub mod time;
#[cfg(feature = "tokenizer")]
pub mod tokenizer;
pub mod version;
pub mod web;
pub mod wire;
pub mod work_files;
