//! A run is carried as it is, goes on after a kill, and is refused where it would mix with another.

use super::*;
use crate::store::BucketUrl;
use crate::store::{
    Blobs, Bucket, Ledger, LedgerPlace, RunIdentity, SqliteLedger,
    bucket::tests::object_store_server::{KEYS, ObjectStore},
    postgres::tests::database::Database,
    suite::eventful,
};
use nightjar_shared::{
    disk::FolderDisk,
    ids::{BlobHash, DeviceId, RunId},
};
use std::{fs, path::Path, sync::Arc};

fn identity(run: u8) -> RunIdentity {
    RunIdentity { run_id: RunId([run; 32]), spec_json: "{}".into(), manifest_hash: BlobHash([2; 32]) }
}

/// A ledger of an eventful run, in a file.
async fn eventful_file(path: &Path, run: u8) -> LedgerPlace {
    let ledger = SqliteLedger::create_or_open(path, &identity(run), 1).await.unwrap();
    ledger.adopt_key(DeviceId([7; 32])).await.unwrap();
    let (world, _) = eventful();
    for records in &world.commits {
        ledger.commit(records).await.unwrap();
    }
    ledger.add_counters(crate::store::Counters { bytes_up: 5, bytes_down: 6 }).await.unwrap();
    ledger.close().await;
    LedgerPlace::File(path.to_owned())
}

async fn told(place: &LedgerPlace) -> String {
    let open = place.open_to_read().await.unwrap();
    let (facts, counters) = (open.ledger.facts().await.unwrap(), open.ledger.counters().await.unwrap());
    let told = format!("{facts:?} {counters:?} {:?} {:?}", open.identity, place.look().await.unwrap());
    open.ledger.close().await;
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_goes_to_a_database_and_back_as_it_is() {
    let Some(server) = Database::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = eventful_file(&folder.path().join("ledger.sqlite"), 1).await;
    let database = LedgerPlace::Database(server.url().parse().unwrap());
    let progress = Progress::default();
    let generation = carry_ledger(&file, &database, &progress).await.unwrap();
    assert_eq!(progress.done.load(Ordering::Relaxed), progress.all.load(Ordering::Relaxed));
    assert_eq!(told(&database).await, told(&file).await);

    // Broken off: what is there is not copied again; what is not right is found.
    server.psql("DELETE FROM run; DELETE FROM evaluations; DELETE FROM lost_deltas; DELETE FROM squashes; DELETE FROM deltas WHERE seq > 3");
    let again = Progress::default();
    carry_ledger(&file, &database, &again).await.unwrap();
    assert!(again.done.load(Ordering::Relaxed) < progress.done.load(Ordering::Relaxed));
    assert_eq!(told(&database).await, told(&file).await);
    server.psql("UPDATE deltas SET tokens = tokens + 1 WHERE seq = 2");
    let differs = carry_ledger(&file, &database, &Progress::default()).await.unwrap_err();
    assert!(matches!(&differs, CarryError::Differs { table, .. } if table == "deltas"), "{differs}");
    server.psql("UPDATE deltas SET tokens = tokens - 1 WHERE seq = 2");

    // The one that was left takes no coordinator any more, and says where the run is.
    mark_moved(&file, &database, generation).await.unwrap();
    mark_moved(&file, &database, generation).await.unwrap();
    let refused = file.take_over(&identity(1), DeviceId([7; 32]), 9).await.err().unwrap();
    assert!(matches!(&refused, LedgerError::Moved(place) if *place == database.to_string()), "{refused}");
    let open = database.take_over(&identity(1), DeviceId([7; 32]), 9).await.unwrap();
    open.ledger.close().await;
    let other_time = carry_ledger(&file, &database, &Progress::default()).await.unwrap_err();
    assert!(matches!(other_time, CarryError::OtherTime(_)), "{other_time}");
    assert!(matches!(mark_moved(&database, &file, generation).await.unwrap_err(), CarryError::Served));

    let back = LedgerPlace::File(folder.path().join("back.sqlite"));
    carry_ledger(&database, &back, &Progress::default()).await.unwrap();
    assert_eq!(told(&back).await, told(&database).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_are_not_mixed() {
    let folder = tempfile::tempdir().unwrap();
    let one = eventful_file(&folder.path().join("one.sqlite"), 1).await;
    let other = eventful_file(&folder.path().join("other.sqlite"), 2).await;
    let before = told(&other).await;
    let taken = carry_ledger(&one, &other, &Progress::default()).await.unwrap_err();
    assert!(matches!(taken, CarryError::Taken(_)), "{taken}");
    assert_eq!(told(&other).await, before);
}

fn folder_of_blobs() -> (tempfile::TempDir, Blobs) {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(FolderDisk::open(folder.path()).unwrap());
    (folder, Blobs::new(disk))
}

#[test]
fn blobs_go_to_a_bucket_and_back_and_what_is_damaged_is_named() {
    let Some(server) = ObjectStore::start() else { return };
    let keys = KEYS.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let url = BucketUrl::parse(&server.url("moved"), keys.into_iter()).unwrap();
    let (folder, here) = folder_of_blobs();
    let hashes: Vec<BlobHash> = (0..40u8).map(|i| here.put(&vec![i; 1000 * usize::from(i) + 1]).unwrap()).collect();
    here.put_checkpoint(16, b"a checkpoint").unwrap();
    let there = Blobs::in_bucket(Bucket::to_read(&url, Arc::new(FolderDisk::open(folder.path()).unwrap())).unwrap());
    let damaged = folder.path().join(format!("blobs/{}", hashes[3]));
    fs::write(&damaged, b"otherwise").unwrap();
    let all = CarriedBlobs { blobs: 39, were_there: 0, checkpoints: 1, damaged: vec![hashes[3]] };
    assert_eq!(carry_blobs(&here, &there, &Progress::default()).unwrap(), all);
    // Once more, as after a kill: one is missing there, and one is not right.
    there.remove(hashes[5]).unwrap();
    there.remove(hashes[6]).unwrap();
    let progress = Progress::default();
    let again = carry_blobs(&here, &there, &progress).unwrap();
    assert_eq!(again, CarriedBlobs { were_there: 37, ..all });
    let (_back_folder, back) = folder_of_blobs();
    let returned = carry_blobs(&there, &back, &Progress::default()).unwrap();
    assert_eq!((returned.blobs, returned.checkpoints), (39, 1));
    for hash in hashes.iter().filter(|hash| **hash != hashes[3]) {
        assert!(back.read(*hash).unwrap() == here.read(*hash).unwrap());
    }
    assert_eq!(back.checkpoint(16).unwrap(), here.checkpoint(16).unwrap());
    assert_eq!(here.list().unwrap().len(), 40, "what it came from is as it was");
}
