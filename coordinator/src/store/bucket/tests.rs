//! What every place of blobs promises, as tests that run on each: a folder, a store in memory, a real S3 server. Then
//! what only a store on the network can meet.

#[path = "../../../tests/serve/object_store.rs"]
pub mod object_store_server;

use super::*;
use crate::store::{BlobError, Blobs, Measure};
use nightjar_shared::rng;
use object_store::{ObjectStoreExt, PutPayload, memory::InMemory, path::Path};
use object_store_server::{KEYS, ObjectStore as Server};
use std::fs;

fn local() -> (tempfile::TempDir, Arc<FolderDisk>) {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(FolderDisk::open(folder.path()).unwrap());
    (folder, disk)
}

fn url(server: &Server, prefix: &str) -> BucketUrl {
    BucketUrl::parse(&server.url(prefix), KEYS.map(|(n, v)| (n.to_owned(), v.to_owned())).into_iter()).unwrap()
}

fn bytes(seed: u64, length: usize) -> Vec<u8> {
    (0..length as u64).map(|i| rng::draw(seed, 0, i) as u8).collect()
}

/// What a place of blobs promises. `spoil` changes a stored blob's bytes behind its back.
fn keeps_its_promises(blobs: &Blobs, spoil: impl Fn(BlobHash, &[u8])) {
    // An upload goes on where it stopped, and is there once it is whole and right.
    let upload = bytes(1, 100_000);
    let hash = BlobHash::of(&upload);
    blobs.append(hash, 0, &upload[..40_000]).unwrap();
    assert_eq!((blobs.incoming(hash).unwrap(), blobs.length(hash).unwrap()), (40_000, None));
    assert!(matches!(blobs.append(hash, 50_000, b"x"), Err(BlobError::Gap { have: 40_000, .. })));
    assert!(matches!(blobs.read(hash), Err(BlobError::NotFound(_))), "not before it is whole");
    assert!(matches!(blobs.read_range(hash, 0, 10), Err(BlobError::NotFound(_))));
    assert!(!blobs.is_sound(hash, 100_000).unwrap());
    blobs.append(hash, 40_000, &upload[40_000..]).unwrap();
    blobs.finish(hash, 100_000).unwrap();
    assert_eq!((blobs.incoming(hash).unwrap(), blobs.length(hash).unwrap()), (0, Some(100_000)));
    assert_eq!(blobs.read(hash).unwrap(), upload);
    assert_eq!(blobs.read_range(hash, 99_000, 5_000).unwrap(), upload[99_000..]);
    assert_eq!(blobs.read_range(hash, 100_000, 10).unwrap(), b"");
    assert!(blobs.is_sound(hash, 100_000).unwrap() && !blobs.is_sound(hash, 99_999).unwrap());
    assert!(blobs.stored_at(hash).unwrap().is_some());
    let other = BlobHash::of(b"other");
    blobs.append(other, 0, b"othre").unwrap();
    assert!(matches!(blobs.finish(other, 5), Err(BlobError::Corrupt(_))));
    assert_eq!((blobs.incoming(other).unwrap(), blobs.length(other).unwrap()), (0, None));

    // One of several pieces, stored twice.
    let keyframe = bytes(2, 2 * requests::PIECE_BYTES + 12_345);
    let large = blobs.put(&keyframe).unwrap();
    assert_eq!(blobs.put(&keyframe).unwrap(), large);
    assert!(blobs.read(large).unwrap() == keyframe);
    let at = requests::PIECE_BYTES as u64 - 5;
    assert_eq!(blobs.read_range(large, at, 10).unwrap(), keyframe[at as usize..][..10]);
    blobs.append(large, 0, &keyframe).unwrap();
    blobs.finish(large, keyframe.len() as u64).unwrap();
    assert!(blobs.is_sound(large, keyframe.len() as u64).unwrap());
    let mut all = blobs.list().unwrap();
    all.sort();
    let mut both = vec![hash, large];
    both.sort();
    assert_eq!((all, blobs.list_incoming().unwrap()), (both, vec![]));

    // Damage is noticed, and mended by storing the blob again.
    spoil(hash, b"spoilt");
    assert!(matches!(blobs.read(hash), Err(BlobError::Corrupt(_))));
    assert!(!blobs.is_sound(hash, 100_000).unwrap());
    blobs.put(&upload).unwrap();
    assert_eq!(blobs.read(hash).unwrap(), upload);
    blobs.remove(hash).unwrap();
    blobs.remove(hash).unwrap();
    assert_eq!((blobs.length(hash).unwrap(), blobs.list().unwrap()), (None, vec![large]));
    let spec = crate::world::spec();
    let nothing = nightjar_shared::blob::BlobRef { hash, bytes: 100_000 };
    assert_eq!(blobs.measure(&spec, nothing).unwrap(), Measure::Missing { have: 0 });

    for version in [0, 16, 32, 48] {
        blobs.put_checkpoint(version, &[version as u8]).unwrap();
    }
    assert_eq!(blobs.checkpoints().unwrap(), [48, 32]);
    assert_eq!((blobs.checkpoint(32).unwrap(), blobs.checkpoint(16).unwrap()), (Some(vec![32]), None));
    assert_eq!(blobs.trouble(), None);
}

#[test]
fn a_folder_keeps_its_promises() {
    let (folder, disk) = local();
    let path = |hash: BlobHash| folder.path().join(format!("blobs/{hash}"));
    keeps_its_promises(&Blobs::new(disk), |hash, bytes| fs::write(path(hash), bytes).unwrap());
}

#[test]
fn a_store_in_memory_keeps_its_promises() {
    for has_cache in [false, true] {
        let (_folder, disk) = local();
        let store = Arc::new(InMemory::new());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let blobs = Blobs::in_bucket(Bucket::over(store.clone(), disk, has_cache));
        keeps_its_promises(&blobs, |hash, bytes| {
            let path = Path::from(format!("some/prefix/blobs/{hash}"));
            runtime.block_on(store.put(&path, PutPayload::from(bytes.to_vec()))).unwrap();
            blobs.bucket().unwrap().forget(hash);
        });
    }
}

#[test]
fn an_s3_server_keeps_its_promises() {
    let Some(server) = Server::start() else { return };
    for (at, has_cache) in [false, true].into_iter().enumerate() {
        let url = url(&server, &format!("runs/{at}"));
        let (_folder, disk) = local();
        let bucket = if has_cache { Bucket::to_serve(&url, disk) } else { Bucket::to_read(&url, disk) };
        let (bucket, (_other, disk)) = (bucket.unwrap(), local());
        let behind = Bucket::to_read(&url, disk).unwrap();
        let blobs = Blobs::in_bucket(bucket);
        keeps_its_promises(&blobs, |hash, bytes| {
            behind.write(&format!("blobs/{hash}"), bytes).unwrap();
            blobs.bucket().unwrap().forget(hash);
        });
    }
}

#[test]
fn a_bucket_is_one_runs() {
    let store = Arc::new(InMemory::new());
    let (_folder, disk) = local();
    let bucket = Bucket::over(store, disk, false);
    bucket.write("blobs/x", b"somebody's").unwrap();
    let foreign = bucket.claim(RunId([1; 32]), DeviceId([2; 32])).unwrap_err();
    assert!(matches!(&foreign, ClaimError::Foreign { object, .. } if object == "blobs/x"), "{foreign}");
    bucket.remove("blobs/x").unwrap();
    for _ in 0..2 {
        bucket.claim(RunId([1; 32]), DeviceId([2; 32])).unwrap();
    }
    for (run, key) in [(1, 3), (3, 2)] {
        let taken = bucket.claim(RunId([run; 32]), DeviceId([key; 32])).unwrap_err();
        assert!(matches!(&taken, ClaimError::Taken { owner, .. } if owner.contains("run 0101")), "{taken}");
    }
}

#[test]
fn what_refuses_says_what_to_do_and_shows_no_key() {
    let Some(server) = Server::start() else { return };
    let refused = |url: &str, keys: &[(&str, &str)]| {
        let keys = keys.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let (_folder, disk) = local();
        let blobs = Blobs::in_bucket(Bucket::to_serve(&BucketUrl::parse(url, keys).unwrap(), disk).unwrap());
        let error = blobs.probe().unwrap_err();
        assert!(matches!(&error, BlobError::Store(StoreError::Refused { .. })), "{error}");
        assert!(error.may_pass() && !error.is_loss());
        let hash = BlobHash::of(b"any");
        assert!(blobs.length(hash).unwrap_err().is_of_store(), "it says nothing of a blob");
        error.to_string()
    };
    let [key, secret] = KEYS;
    let no_bucket = server.url("x").replace("s3://nightjar", "s3://another");
    assert!(refused(&no_bucket, &KEYS).contains("no bucket"));
    let wrong = refused(&server.url("x"), &[key, (secret.0, "not-the-secret")]);
    assert!(wrong.contains("AWS_SECRET_ACCESS_KEY") && !wrong.contains("not-the-secret"), "{wrong}");
    let unknown = refused(&server.url("x"), &[(key.0, "nobody"), secret]);
    assert!(unknown.contains("AWS_ACCESS_KEY_ID") && !unknown.contains(secret.1), "{unknown}");
}

#[test]
fn a_store_that_is_away_is_known_at_once_and_comes_back_by_itself() {
    let Some(mut server) = Server::start() else { return };
    let (folder, disk) = local();
    let blobs = Blobs::in_bucket(Bucket::to_serve(&url(&server, "run"), disk).unwrap());
    let (stored, uploaded) = (blobs.put(b"an update").unwrap(), BlobHash::of(b"a delta"));
    let uncached = blobs.put(b"another").unwrap();
    blobs.bucket().unwrap().forget(uncached);
    blobs.append(uploaded, 0, b"a delta").unwrap();
    server.kill();
    let away = blobs.finish(uploaded, 7).unwrap_err();
    assert!(matches!(&away, BlobError::Store(StoreError::Away { .. })) && away.may_pass() && !away.is_loss(), "{away}");
    assert!(away.to_string().contains("nobody answers"), "{away}");
    assert_eq!(blobs.incoming(uploaded).unwrap(), 7, "what has come is kept");
    assert_eq!(blobs.read_range(stored, 3, 6).unwrap(), b"update", "what is kept here is sent all the same");
    assert!(blobs.read_range(uncached, 0, 1).unwrap_err().is_of_store());
    assert_eq!(blobs.trouble().map(BlobError::from).unwrap().to_string(), away.to_string());
    server.go_on();
    while blobs.probe().is_err() {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(blobs.trouble(), None);
    blobs.finish(uploaded, 7).unwrap();
    assert_eq!(blobs.read(uploaded).unwrap(), b"a delta");
    assert_eq!(blobs.read(uncached).unwrap(), b"another");
    assert!(folder.path().join(CACHE_FOLDER).join(uploaded.to_string()).exists(), "it is about to be merged");
}
