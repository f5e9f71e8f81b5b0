//! Data that does not fit its run.

use crate::engine::{Mismatch, check};
use crate::world::{manifest, spec};
use nightjar_shared::shard::Manifest;

#[test]
fn a_dataset_that_does_not_fit_is_named() {
    assert_eq!(check(&spec(), &manifest()), Ok(()));
    assert_eq!(check(&spec(), &Manifest { context: 5, ..manifest() }), Err(Mismatch::Context { data: 5, model: 4 }));
    assert_eq!(
        check(&spec(), &Manifest { vocab_size: 300, ..manifest() }),
        Err(Mismatch::Vocabulary { data: 300, model: 256 })
    );
    let mut spec = spec();
    spec.inner.batch_samples = 200;
    assert_eq!(check(&spec, &manifest()), Err(Mismatch::TooSmall { batch: 200 }));
}
