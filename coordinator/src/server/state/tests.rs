//! Whose folder it is, and what goes from it.

use super::*;
use nightjar_shared::disk::Disk;

fn mark_of(folder: &Path) -> Option<Mark> {
    Mark::read(folder).unwrap()
}

/// Those in the folder.
fn blobs_of(state: &StateFolder) -> Blobs {
    Blobs::new(state.disk.clone())
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
    blobs_of(&state).put(b"a delta").unwrap();
    refused(root.path(), &["no ledger", "1 blob", "the run's key"]);
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
    for (missing, words) in [(LEDGER, ["no ledger", "1 blob"]), (identity::FILE, ["not the run's key", "no device"])] {
        for marked in [true, false] {
            let root = tempfile::tempdir().unwrap();
            let state = run(root.path());
            blobs_of(&state).put(b"a delta").unwrap();
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
    assert!(state.check_ledger(&look(true, 0), &blobs_of(&state)).is_ok(), "a first start that was cut short");
    assert!(matches!(state.check_ledger(&look(false, 0), &blobs_of(&state)), Err(StateError::EmptyLedger { .. })));
    blobs_of(&state).put(b"a delta").unwrap();
    let told = state.check_ledger(&look(true, 0), &blobs_of(&state)).unwrap_err().to_string();
    assert!(told.contains("is empty") && told.contains("1 blob"), "{told}");
    assert!(state.check_ledger(&look(true, 1), &blobs_of(&state)).is_ok());
}

#[cfg(unix)]
#[test]
fn a_link_takes_no_place_of_ours() {
    let (root, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    drop(run(root.path()));
    fs::write(theirs.path().join("thesis"), "dear").unwrap();
    for name in ["blobs", "checkpoints"] {
        std::os::unix::fs::symlink(theirs.path(), root.path().join(name)).unwrap();
        refused(root.path(), &[name, "is a link", "mount"]);
        fs::remove_file(root.path().join(name)).unwrap();
    }
    fs::rename(root.path().join(LEDGER), theirs.path().join(LEDGER)).unwrap();
    std::os::unix::fs::symlink(theirs.path().join(LEDGER), root.path().join(LEDGER)).unwrap();
    refused(root.path(), &[LEDGER, "is a link"]);
    let elsewhere = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(theirs.path().join("thesis"), elsewhere.path().join("lock")).unwrap();
    refused(elsewhere.path(), &["lock"]);
    assert_eq!(fs::read(theirs.path().join("thesis")).unwrap(), b"dear");
}

/// Stores bytes as if it had been in this second.
fn put_at(state: &StateFolder, bytes: &[u8], second: u64) -> BlobHash {
    let hash = blobs_of(state).put(bytes).unwrap();
    let file = File::options().write(true).open(state.disk.path(&format!("blobs/{hash}"))).unwrap();
    file.set_modified(UNIX_EPOCH + std::time::Duration::from_secs(second)).unwrap();
    hash
}

/// A ledger whose newest version is this one, whose last entry is of this second, and which names one blob.
#[derive(Clone)]
struct Told {
    newest: u64,
    last_entry_s: u64,
    named: BlobHash,
}

fn cleared(state: &StateFolder, ledger: &Told) -> Cleared {
    let blobs = blobs_of(state).list().unwrap().into_iter().filter(|hash| *hash != ledger.named).collect();
    let unnamed = Unnamed { blobs, last_entry: Wall { unix_ms: 1000 * ledger.last_entry_s } };
    let known = Known { newest: Version(ledger.newest), open_leases: 0, unnamed };
    clear_away(known, &blobs_of(state), &crate::world::spec().model).unwrap()
}

/// The update from a version to the next.
fn update_from(version: u64) -> Vec<u8> {
    let model = crate::world::spec().model;
    let mut weights = keyframe::decode(&model, &first_keyframe()).unwrap();
    weights.version = Version(version);
    let mut feedback = vec![0.0; model.parameters()];
    update::publish(&model, nightjar_shared::delta::CodecId::Blocks8, &mut weights, &mut feedback)
}

fn first_keyframe() -> Vec<u8> {
    let spec = crate::world::spec();
    let start = spec.model.draw_all(1);
    let mut merger = crate::engine::merge::Merger::start(spec, &start);
    merger.publish(Version(0), true).unwrap().keyframe.unwrap()
}

#[test]
fn what_nothing_names_goes_once_it_cannot_be_wanted() {
    let root = tempfile::tempdir().unwrap();
    let state = run(root.path());
    let blobs = blobs_of(&state);
    let named = put_at(&state, b"named", 5);
    put_at(&state, b"screened out", 5);
    // Of versions that were, and of one that is named otherwise.
    put_at(&state, &update_from(0), 5);
    put_at(&state, &first_keyframe(), 5);
    blobs.append(BlobHash::of(b"whole"), 0, b"who").unwrap();
    let ledger = Told { newest: 1, last_entry_s: 10, named };
    assert_eq!(cleared(&state, &ledger), Cleared { removed: 4, note: None });
    assert_eq!((blobs.list().unwrap(), blobs.list_incoming().unwrap()), (vec![named], vec![]));
    assert_eq!(cleared(&state, &ledger), Cleared::default());
}

#[test]
fn an_older_ledger_takes_nothing_away() {
    let root = tempfile::tempdir().unwrap();
    let state = run(root.path());
    let named = put_at(&state, b"named", 5);
    // A backup of version 17, and the folder is at 18: the delta of version 18 is an acknowledged one.
    put_at(&state, b"delta 18", 11);
    let update = put_at(&state, &update_from(17), 11);
    let all = blobs_of(&state).list().unwrap();
    let ledger = Told { newest: 17, last_entry_s: 10, named };
    for _ in 0..2 {
        let Cleared { removed, note } = cleared(&state, &ledger);
        let note = note.unwrap();
        assert_eq!(removed, 0);
        for word in ["version 18", "version 17", "2 blobs", "put the newest ledger back"] {
            assert!(note.contains(word), "{word}: {note}");
        }
    }
    // Also where the clock of the ledger goes on, as while the older one is served.
    let later = Told { last_entry_s: 12, ..ledger.clone() };
    assert!(cleared(&state, &later).note.is_some());
    assert_eq!(blobs_of(&state).list().unwrap(), all);
    // Without a version of its own a delta that came after the ledger's end stays for one more start.
    blobs_of(&state).remove(update).unwrap();
    let Cleared { removed, note } = cleared(&state, &ledger);
    assert!(removed == 0 && note.is_some_and(|note| note.contains("a blob was stored after")));
    assert_eq!(cleared(&state, &later), Cleared { removed: 1, note: None });
}

#[tokio::test]
async fn a_ledger_without_a_version_takes_nothing_away() {
    let root = tempfile::tempdir().unwrap();
    let blobs = blobs_of(&run(root.path()));
    let (stray, now) = (blobs.put(b"stray").unwrap(), Wall { unix_ms: 1 });
    let ledger = crate::store::MemoryLedger::new();
    assert!(Known::of(&ledger, &blobs, None, 0, now).await.unwrap().is_none());
    let known = Known::of(&ledger, &blobs, Some(Version(0)), 0, now).await.unwrap().unwrap();
    assert_eq!(known.unnamed.blobs, [stray].into());
}

/// What a device uploads is stored unlooked-at.
#[test]
fn no_upload_stops_the_clearing() {
    let root = tempfile::tempdir().unwrap();
    let state = run(root.path());
    let named = put_at(&state, b"named", 5);
    let head = |version: u64| {
        [b"NJU1".as_slice(), &[4, 0, 0, 0], &(version - 1).to_le_bytes(), &version.to_le_bytes()].concat()
    };
    put_at(&state, &head(1 << 60), 9);
    put_at(&state, &head(18), 9);
    // One that decodes, and is of no version that could be next.
    put_at(&state, &update_from(1 << 60), 9);
    put_at(&state, &update_from(18), 9);
    let ledger = Told { newest: 17, last_entry_s: 10, named };
    assert_eq!(cleared(&state, &ledger), Cleared { removed: 4, note: None });
}
