//! What a lab loses or mixes up: what the coordinator says of it, what it leaves alone, and how a run goes on.

use crate::{
    bed::Bed,
    command_line::{of_run, program, refused, serve_command},
    device::{Device, message, open, trained},
};
use nightjar_coordinator::{
    identity::{FILE, Identity},
    server::disk_reserve::{Bytes, Space},
    store::{Ledger, SqliteLedger},
};
use nightjar_shared::{
    disk::FolderDisk,
    ids::{BlobHash, Version},
    wire::{
        Blob, BlobGet, BlobHead, DeltaOffer, LeaseRequest, LeaseReturn, RefusalAction, RefusalCode, Role,
        coordinator_message as answer, device_message as ask, stream_open,
    },
};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// A run of so many deltas, each a version of its own; gives their names.
pub async fn run(bed: &Bed, deltas: u64) -> Vec<BlobHash> {
    let server = bed.serve().await;
    let device = Device::new(bed);
    let mut link = device.join(server.address, bed.invite(Role::Volunteer)).await;
    // A new run's first version may not stand yet.
    let before = server.status().await["version"].as_u64().unwrap_or(0);
    let mut names = vec![];
    for seed in 0..deltas {
        let lease = link.lease(LeaseRequest::default()).await;
        let (delta, offer) = trained(&bed.spec.model, &lease, 10 * before + seed);
        link.upload(lease.id, &delta).await.unwrap();
        names.push(BlobHash::of(&delta));
        assert!(matches!(link.ask(ask::Body::DeltaOffer(offer)).await, answer::Body::Done(done) if done.merged));
    }
    for _ in 0..200 {
        if server.status().await["version"].as_u64() == Some(before + deltas) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert_eq!(server.status().await["version"].as_u64(), Some(before + deltas));
    server.stop().await;
    names
}

fn blob(bed: &Bed, hash: BlobHash) -> PathBuf {
    bed.state().join("blobs").join(hash.to_string())
}

fn flip(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
}

/// Names and bytes of all files below a folder.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut found, mut folders) = (vec![], vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false => found.push((entry.path(), fs::read(entry.path()).unwrap())),
            }
        }
    }
    found.sort();
    found
}

fn refused_and_untouched(bed: &Bed, words: &str) {
    let before = contents(&bed.state());
    refused(&serve_command(bed).output().unwrap(), words);
    assert!(contents(&bed.state()) == before, "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_state_is_told_and_left_as_it_is() {
    let bed = Bed::new();
    run(&bed, 2).await;
    let (ledger, aside) = (bed.state().join("ledger.sqlite"), bed.path("aside"));
    fs::rename(&ledger, &aside).unwrap();
    refused_and_untouched(&bed, "no ledger");
    fs::write(&ledger, "").unwrap();
    refused_and_untouched(&bed, "is empty, but there is the run's key");
    // Another coordinator's ledger of the same run.
    let other = Bed::new();
    run(&other, 1).await;
    fs::copy(other.state().join("ledger.sqlite"), &ledger).unwrap();
    refused_and_untouched(&bed, "the key in this state folder is not the one");
    fs::remove_file(&ledger).unwrap();
    fs::rename(&aside, &ledger).unwrap();

    let key = bed.state().join(FILE);
    fs::rename(&key, &aside).unwrap();
    refused_and_untouched(&bed, "not the run's key");
    let disk = FolderDisk::open(bed.state()).unwrap();
    Identity::open_or_draw(&disk).unwrap().store(&disk).unwrap();
    refused_and_untouched(&bed, "the key in this state folder is not the one");
    let invite = program().args(["invite", "--address", "h:1", "--state"]).arg(bed.state()).output().unwrap();
    refused(&invite, "the key in this state folder is not the one");
    fs::rename(&aside, &key).unwrap();
    run(&bed, 1).await;
    assert!(of_run(&bed, &["verify"]).status.success());
}

#[test]
fn a_folder_of_somebody_elses_is_no_state() {
    let bed = Bed::new();
    let before = contents(&bed.data());
    let mut command = program();
    command.args(["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--run"]).arg(bed.run_file());
    refused(&command.arg("--data").arg(bed.data()).arg("--state").arg(bed.data()).output().unwrap(), "manifest.json");
    assert!(contents(&bed.data()) == before);
    fs::create_dir(bed.state()).unwrap();
    fs::write(bed.state().join("thesis.tex"), "dear").unwrap();
    refused_and_untouched(&bed, "thesis.tex");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_delta_is_told_and_the_run_goes_on() {
    for is_damaged in [true, false] {
        let bed = Bed::new();
        let names = run(&bed, 3).await;
        let lost = blob(&bed, names[1]);
        if is_damaged {
            flip(&lost)
        } else {
            fs::remove_file(&lost).unwrap()
        }
        run(&bed, 2).await;
        // What was noted holds for the next start, too, whatever becomes of the checkpoint.
        fs::remove_dir_all(bed.state().join("checkpoints")).unwrap();
        run(&bed, 1).await;
        let ledger = SqliteLedger::open_to_read(&bed.state().join("ledger.sqlite")).await.unwrap();
        assert_eq!(ledger.facts().await.unwrap().lineage.restarts, [Version(3)], "merging began anew once");
        ledger.close().await;
        let verified = of_run(&bed, &["verify"]);
        let said = String::from_utf8_lossy(&verified.stdout).into_owned();
        assert_eq!(verified.status.code(), Some(1), "{said}");
        assert!(said.contains(&names[1].to_string()) && said.contains("delta 2"), "{said}");
        let exported = of_run(&bed, &["export", bed.path("model").to_str().unwrap()]);
        assert!(exported.status.success(), "{exported:?}");
    }
}

/// Room that a test says the disk has.
struct Told(Arc<AtomicU64>);

impl Space for Told {
    fn bytes(&self) -> io::Result<Bytes> {
        Ok(Bytes { free: self.0.load(Ordering::Relaxed), total: 1 << 30 })
    }
}

/// It is acknowledged and waits for the publisher, and then it is lost: the run is taken up without it, by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_delta_that_is_lost_while_the_run_is_served_does_not_end_it() {
    let bed = Bed::new();
    let free = Arc::new(AtomicU64::new(1 << 29));
    let server = bed.serve_on(Box::new(Told(free.clone()))).await;
    let devices = [Device::new(&bed), Device::new(&bed)];
    let mut links = vec![];
    for device in &devices {
        let mut link = device.join(server.address, bed.invite(Role::Volunteer)).await;
        let lease = link.lease(LeaseRequest::default()).await;
        links.push((link, lease));
    }
    // The publisher waits with a version for room, and behind it waits the second delta.
    free.store((64 << 10) + 2000, Ordering::Relaxed);
    let before = server.until(|status| status["disk"]["full"] == true).await;
    let mut lost = None;
    for (seed, (link, lease)) in links.iter_mut().enumerate() {
        let (delta, offer) = trained(&bed.spec.model, lease, seed as u64);
        link.upload(lease.id, &delta).await.unwrap();
        assert!(matches!(link.ask(ask::Body::DeltaOffer(offer)).await, answer::Body::Done(done) if done.merged));
        lost = Some(BlobHash::of(&delta));
    }
    fs::remove_file(blob(&bed, lost.unwrap())).unwrap();
    free.store(1 << 29, Ordering::Relaxed);
    server.until(|status| status["trouble"].is_null() && status["generation"] != before["generation"]).await;
    let mut link = devices[0].join(server.address, vec![]).await;
    let lease = link.lease(LeaseRequest::default()).await;
    let (delta, offer) = trained(&bed.spec.model, &lease, 9);
    link.upload(lease.id, &delta).await.unwrap();
    assert!(matches!(link.ask(ask::Body::DeltaOffer(offer)).await, answer::Body::Done(done) if done.merged));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_shard_is_passed_over_until_it_is_put_back() {
    let bed = Bed::new();
    let server = bed.serve().await;
    let device = Device::new(&bed);
    let mut link = device.join(server.address, bed.invite(Role::Volunteer)).await;
    let lease = link.lease(LeaseRequest::default()).await;
    let name = lease.shard.as_ref().and_then(|shard| shard.name()).unwrap();
    let file = bed.data().join("blobs").join(name.to_string());
    let whole = fs::read(&file).unwrap();
    flip(&file);
    let get = BlobGet { hash: name.0.to_vec(), offset: 0 };
    let (_send, mut receive) = open(&link.connection, stream_open::Kind::Get(get)).await;
    let head: BlobHead = message(&mut receive).await;
    let refusal = head.refusal.unwrap();
    assert_eq!((refusal.code(), refusal.action()), (RefusalCode::NotFound, RefusalAction::DropLease));
    let status = server.until(|status| status["trouble"].as_str().is_some_and(|t| t.contains(&name.to_string()))).await;
    assert!(status["trouble"].as_str().unwrap().contains("nothing of it is leased"), "{status}");
    for _ in 0..3 {
        let back = LeaseReturn { lease_id: lease.id, generation: lease.generation, why: String::new() };
        link.ask(ask::Body::LeaseReturn(back)).await;
        let other = link.lease(LeaseRequest::default()).await;
        assert_ne!(other.shard.and_then(|shard| shard.name()), Some(name));
    }
    fs::write(&file, whole).unwrap();
    server.until(|status| status["trouble"].is_null()).await;
    server.stop().await;
}

/// What a version was published as is not read, or removed, as anybody's delta.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_of_the_coordinators_own_is_nobodys_delta() {
    let bed = Bed::new();
    run(&bed, 1).await;
    let server = bed.serve().await;
    let device = Device::new(&bed);
    let mut link = device.join(server.address, bed.invite(Role::Volunteer)).await;
    let lease = link.lease(LeaseRequest::default()).await;
    let (_, honest) = trained(&bed.spec.model, &lease, 1);
    let keyframe = lease.keyframe.clone().unwrap();
    flip(&blob(&bed, keyframe.name().unwrap()));
    let offered = honest.delta.as_ref().unwrap().bytes;
    let offer = DeltaOffer { delta: Some(Blob { bytes: offered, ..keyframe.clone() }), ..honest };
    let answer = link.ask(ask::Body::DeltaOffer(offer)).await;
    assert!(matches!(&answer, answer::Body::Done(done) if !done.merged && done.note.contains("own")), "{answer:?}");
    assert!(blob(&bed, keyframe.name().unwrap()).exists());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_keyframe_is_made_anew_when_it_is_asked_for() {
    let bed = Bed::new();
    run(&bed, 1).await;
    let device = Device::new(&bed);
    let server = bed.serve().await;
    let mut link = device.join(server.address, bed.invite(Role::Volunteer)).await;
    let lease = link.lease(LeaseRequest::default()).await;
    let (keyframe, update) = (lease.keyframe.unwrap(), lease.updates[0].update.clone().unwrap());
    for wanted in [keyframe, update] {
        let name = wanted.name().unwrap();
        flip(&blob(&bed, name));
        let mut bytes = vec![];
        for _ in 0..200 {
            let get = BlobGet { hash: wanted.hash.clone(), offset: 0 };
            let (_send, mut receive) = open(&link.connection, stream_open::Kind::Get(get)).await;
            let head: BlobHead = message(&mut receive).await;
            match head.refusal {
                None => bytes = receive.read_to_end(1 << 20).await.unwrap(),
                Some(refusal) => assert_eq!(refusal.action(), RefusalAction::Retry, "{refusal:?}"),
            }
            if BlobHash::of(&bytes) == name {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(BlobHash::of(&bytes), name);
    }
    server.stop().await;
    assert!(of_run(&bed, &["verify"]).status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_ledger_is_noticed_by_start_and_verification() {
    let bed = Bed::new();
    run(&bed, 2).await;
    let ledger = bed.state().join("ledger.sqlite");
    let mut bytes = fs::read(&ledger).unwrap();
    assert!(bytes.len() > 5 * 4096);
    bytes[5 * 4096..6 * 4096].fill(0xa5);
    fs::write(&ledger, bytes).unwrap();
    refused_and_untouched(&bed, "damaged");
    let verified = of_run(&bed, &["verify"]);
    let said = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert_eq!(verified.status.code(), Some(1), "{said}");
    assert!(said.starts_with("FAILED the ledger is whole"), "{said}");
}
