//! The data of a simulated run: a manifest, and its shards' bytes where anyone reads them.

use nightjar_shared::{
    ids::BlobHash,
    rng,
    run_spec::RunSpec,
    shard::{Manifest, ShardInfo, token_bytes},
};
use std::{collections::BTreeMap, sync::Arc};

/// A manifest and its shards.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// What devices are told.
    pub manifest: Manifest,
    /// The shards, by name; empty in cost mode.
    pub shards: BTreeMap<BlobHash, Arc<[u8]>>,
}

impl Dataset {
    /// Of prepared shards.
    pub fn new(manifest: Manifest, shards: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let shards = shards.into_iter().map(|bytes| (BlobHash::of(&bytes), bytes.into())).collect();
        Dataset { manifest, shards }
    }

    /// Names and lengths only: `shards` shards of `samples` samples, of which a byte in two is left after compression.
    pub fn of_sizes(spec: &RunSpec, shards: u32, samples: u32) -> Self {
        let model = &spec.model;
        let tokens = u64::from(samples) * (u64::from(model.max_position_embeddings) + 1);
        let info = |number: u32| ShardInfo {
            hash: made_up_hash("shard", u64::from(number)),
            bytes: tokens * token_bytes(model.vocab_size) as u64 / 2,
            samples,
            text_bytes: tokens * 4,
        };
        let manifest = Manifest {
            format: 1,
            context: model.max_position_embeddings,
            vocab_size: model.vocab_size,
            tokenizer: None,
            end_of_text: None,
            train: (0..shards).map(info).collect(),
            heldout: vec![],
        };
        Dataset { manifest, shards: BTreeMap::new() }
    }
}

/// The name of a blob that has no bytes: the same for the same kind and number.
pub fn made_up_hash(kind: &str, number: u64) -> BlobHash {
    let seed = kind.bytes().fold(number, |h, b| rng::mix(h ^ u64::from(b)));
    let mut hash = [0; 32];
    for (i, part) in hash.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        *part = rng::draw(seed, number, i as u64).to_le_bytes();
    }
    BlobHash(hash)
}
