//! Whose folder it is, and what goes from it.

use super::*;
use nightjar_shared::disk::Disk;

fn mark_of(folder: &Path) -> Option<Mark> {
    Mark::read(folder).unwrap()
}

/// What a folder holds, with all bytes.
fn contents(folder: &Path) -> Vec<(String, Option<Vec<u8>>)> {
    let of = |(name, _): (String, EntryKind)| {
        let bytes = fs::read(folder.join(&name)).ok();
        (name, bytes)
    };
    mark::entries(folder).unwrap().into_iter().map(of).collect()
}

/// A refusal that names what is in the way, and changes nothing.
fn refused(folder: &Path, words: &[&str]) {
    let before = contents(folder);
    let told = StateFolder::take(folder).err().expect("it is refused").to_string();
    for word in words {
        assert!(told.contains(word), "{word}: {told}");
    }
    assert_eq!(contents(folder), before, "{told}");
}

/// As a run leaves it.
fn run(folder: &Path) -> StateFolder {
    let (state, _lock, found) = StateFolder::take(folder).unwrap();
    assert_eq!(found, Found::New);
    state.begin().unwrap();
    state.disk.write(identity::FILE, b"key").unwrap();
    state.disk.write(LEDGER, b"ledger").unwrap();
    state.finish().unwrap();
    state
}

#[test]
fn one_coordinator_has_the_folder() {
    let root = tempfile::tempdir().unwrap();
    assert!(matches!(StateFolder::open(&root.path().join("none")), Err(StateError::Missing(_))));
    let folder = root.path().join("new");
    let (state, lock, found) = StateFolder::take(&folder).unwrap();
    assert_eq!(found, Found::New);
    assert!(matches!(state.lock(), Err(StateError::Locked(_))));
    drop(lock);
    assert_eq!(StateFolder::take(&folder).unwrap().2, Found::New, "a first start that got no further");
}

#[test]
fn a_first_start_that_was_cut_short_is_begun_again() {
    let root = tempfile::tempdir().unwrap();
    let (state, lock, _) = StateFolder::take(root.path()).unwrap();
    state.begin().unwrap();
    state.disk.write(identity::FILE, b"key").unwrap();
    drop(lock);
    assert_eq!(StateFolder::take(root.path()).unwrap().2, Found::New);
    state.blobs().put(b"a delta").unwrap();
    refused(root.path(), &["no ledger", "1 blobs", "the run's key"]);
}

#[test]
fn what_is_not_a_coordinators_is_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("thesis.tex"), "dear").unwrap();
    refused(root.path(), &["thesis.tex", "--state"]);
    let dataset = tempfile::tempdir().unwrap();
    fs::create_dir(dataset.path().join("blobs")).unwrap();
    fs::write(dataset.path().join("manifest.json"), "{}").unwrap();
    refused(dataset.path(), &["manifest.json"]);
    mark::leave(dataset.path(), &Mark::whole(Kind::Dataset)).unwrap();
    refused(dataset.path(), &["a prepared dataset"]);
    let file = root.path().join("thesis.tex");
    assert!(matches!(StateFolder::take(&file), Err(StateError::NotAFolder(_))));
}

#[test]
fn a_folder_of_an_older_version_is_taken_only_without_anything_else() {
    let root = tempfile::tempdir().unwrap();
    drop(run(root.path()));
    fs::remove_file(root.path().join(mark::MARK_FILE)).unwrap();
    let (state, lock, found) = StateFolder::take(root.path()).unwrap();
    assert_eq!(found, Found::Run);
    drop(lock);
    fs::write(root.path().join("notes.txt"), "x").unwrap();
    refused(root.path(), &["notes.txt"]);
    state.finish().unwrap();
    assert_eq!(mark_of(root.path()), Some(Mark::whole(Kind::State)));
    assert_eq!(StateFolder::take(root.path()).unwrap().2, Found::Run, "beside a marked state others may keep things");
    assert_eq!(fs::read(root.path().join("notes.txt")).unwrap(), b"x");
}

#[test]
fn half_a_state_is_told_and_not_touched() {
    for (missing, words) in [(LEDGER, ["no ledger", "1 blobs"]), (identity::FILE, ["not the run's key", "no device"])] {
        for marked in [true, false] {
            let root = tempfile::tempdir().unwrap();
            let state = run(root.path());
            state.blobs().put(b"a delta").unwrap();
            fs::remove_file(root.path().join(missing)).unwrap();
            if !marked {
                fs::remove_file(root.path().join(mark::MARK_FILE)).unwrap();
            }
            refused(root.path(), &words);
        }
    }
    let root = tempfile::tempdir().unwrap();
    let state = run(root.path());
    [LEDGER, identity::FILE].iter().for_each(|name| fs::remove_file(root.path().join(name)).unwrap());
    refused(root.path(), &["no ledger"]);
    drop(state);
}

#[test]
fn an_empty_ledger_beside_blobs_is_told() {
    let root = tempfile::tempdir().unwrap();
    let state = run(root.path());
    let look = |has_run, versions| Look { has_run, key: None, versions };
    assert!(state.check_ledger(&look(true, 0)).is_ok(), "a first start that was cut short");
    assert!(matches!(state.check_ledger(&look(false, 0)), Err(StateError::EmptyLedger { .. })));
    state.blobs().put(b"a delta").unwrap();
    let told = state.check_ledger(&look(true, 0)).unwrap_err().to_string();
    assert!(told.contains("is empty") && told.contains("1 blobs"), "{told}");
    assert!(state.check_ledger(&look(true, 1)).is_ok());
}

#[cfg(unix)]
#[test]
fn a_link_takes_no_place_of_ours() {
    let (root, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    drop(run(root.path()));
    fs::write(theirs.path().join("thesis"), "dear").unwrap();
    std::os::unix::fs::symlink(theirs.path(), root.path().join("blobs")).unwrap();
    refused(root.path(), &["blobs"]);
    let elsewhere = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(theirs.path().join("thesis"), elsewhere.path().join("lock")).unwrap();
    refused(elsewhere.path(), &["lock"]);
    assert_eq!(fs::read(theirs.path().join("thesis")).unwrap(), b"dear");
}

fn version(number: u64, named: BlobHash) -> crate::engine::record::VersionRecord {
    crate::engine::record::VersionRecord {
        version: Version(number),
        update: None,
        keyframe: Some((named, 5)),
        digest: [0; 32],
        through_seq: 0,
        published_at: Default::default(),
        squashes: vec![],
    }
}

/// The head of a keyframe of a version.
fn keyframe_head(version: u64) -> Vec<u8> {
    [b"NJK1\0\0\0\0".as_slice(), &version.to_le_bytes(), &[0; 8]].concat()
}

#[test]
fn what_nothing_names_goes_once_it_cannot_be_wanted() {
    let root = tempfile::tempdir().unwrap();
    let blobs = run(root.path()).blobs();
    let named = blobs.put(b"named").unwrap();
    blobs.put(b"screened out").unwrap();
    blobs.put(&keyframe_head(1)).unwrap();
    blobs.append(BlobHash::of(b"whole"), 0, b"who").unwrap();
    assert_eq!(clear_away(&Facts::default(), &blobs).unwrap(), 0, "a ledger that knows nothing");
    let facts = Facts { versions: vec![version(0, named)], ..Facts::default() };
    let of_later = blobs.put(&keyframe_head(2)).unwrap();
    assert_eq!(clear_away(&facts, &blobs).unwrap(), 0, "a ledger that is older than the blobs");
    blobs.remove(of_later).unwrap();
    assert_eq!(clear_away(&facts, &blobs).unwrap(), 3);
    assert_eq!((blobs.list().unwrap(), blobs.list_incoming().unwrap()), (vec![named], vec![]));
    assert_eq!(clear_away(&facts, &blobs).unwrap(), 0);
}
