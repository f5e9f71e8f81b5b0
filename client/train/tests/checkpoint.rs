//! Checkpoints: what was saved comes back, and a damaged file falls back to the one before it.

use nightjar_shared::disk::FolderDisk;
use nightjar_train::*;
use std::fs;

const SIZES: StateSizes = StateSizes { parameters: 5, second_moments: 3 };

fn checkpoint(step: u64) -> Checkpoint {
    let some = |x: f32, values: usize| (0..values).map(|i| x + i as f32 + step as f32).collect();
    let vector = |x: f32| some(x, SIZES.parameters);
    Checkpoint {
        progress: LeaseProgress {
            lease_id: 7,
            base_version: 3,
            steps: step,
            train_s: 0.5,
            loss_sum: 3.25,
            ..Default::default()
        },
        weights: vector(0.25),
        moments: Moments { m: vector(100.0), v: some(200.0, SIZES.second_moments), t: step },
        // Every second one was saved in the middle of a step.
        begun: (step % 2 == 1).then(|| Begun { samples: 3, nats: 1.5, gradient: vector(300.0) }),
    }
}

#[test]
fn the_newest_comes_back_also_in_a_new_process() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FolderDisk::open(folder.path()).unwrap();
    for step in 0..5 {
        let mut store = CheckpointStore::open(&disk, "state", SIZES).unwrap();
        store.save(checkpoint(step)).unwrap();
        assert_eq!(store.load().unwrap(), Some(checkpoint(step)));
    }
    assert_eq!(CheckpointStore::open(&disk, "state", SIZES).unwrap().load().unwrap(), Some(checkpoint(4)));
    CheckpointStore::open(&disk, "state", SIZES).unwrap().clear().unwrap();
    assert_eq!(CheckpointStore::open(&disk, "state", SIZES).unwrap().load().unwrap(), None);
}

#[test]
fn a_torn_or_changed_file_falls_back_to_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FolderDisk::open(folder.path()).unwrap();
    let mut store = CheckpointStore::open(&disk, "state", SIZES).unwrap();
    store.save(checkpoint(1)).unwrap();
    store.save(checkpoint(2)).unwrap();
    let newest = folder.path().join("state.1");
    let (whole, older) = (fs::read(&newest).unwrap(), fs::read(folder.path().join("state.0")).unwrap());
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        for damaged in [&changed[..], &whole[..at]] {
            fs::write(&newest, damaged).unwrap();
            assert_eq!(store.load().unwrap(), Some(checkpoint(1)), "damaged at byte {at}");
        }
    }
    // Going on after the damage overwrites the damaged file, not the good one.
    let mut store = CheckpointStore::open(&disk, "state", SIZES).unwrap();
    store.save(checkpoint(3)).unwrap();
    assert_eq!(fs::read(folder.path().join("state.0")).unwrap(), older);
    fs::remove_file(&newest).unwrap();
    assert_eq!(store.load().unwrap(), Some(checkpoint(1)));
}

#[test]
fn another_models_or_optimizers_checkpoint_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FolderDisk::open(folder.path()).unwrap();
    CheckpointStore::open(&disk, "state", SIZES).unwrap().save(checkpoint(1)).unwrap();
    for other in [StateSizes { parameters: 6, ..SIZES }, StateSizes { second_moments: 5, ..SIZES }] {
        assert_eq!(CheckpointStore::open(&disk, "state", other).unwrap().load().unwrap(), None);
        let refused = CheckpointStore::open(&disk, "other", other).unwrap().save(checkpoint(1));
        assert!(matches!(refused, Err(CheckpointError::Lengths { weights: 5, v: 3, .. })));
    }
}
