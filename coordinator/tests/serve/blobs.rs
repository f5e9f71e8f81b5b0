//! A run whose blobs are in a real S3 store, which is killed under it.

use crate::{
    bed::Bed,
    command_line::{program, serve_command},
    device::{Device, Link, trained},
    object_store::{KEYS, ObjectStore},
};
use nightjar_coordinator::{
    server::{ServeError, Server, state::StateError},
    store::{BucketUrl, bucket::ClaimError},
};
use nightjar_shared::{
    model_spec::ModelSpec,
    wire::{Lease, LeaseRequest, RefusalAction, Role, coordinator_message as answer, device_message as ask},
};
use std::{fs, path::Path, time::Duration};
use tokio::time::sleep;

/// An address, with the keys that open it.
pub fn url(address: &str) -> BucketUrl {
    let keys = KEYS.map(|(name, value)| (name.to_owned(), value.to_owned()));
    BucketUrl::parse(address, keys.into_iter()).unwrap()
}

/// What `verify` says of the run, and that it holds.
fn verified(bed: &Bed) -> String {
    let mut verify = program();
    verify.args(["verify", "--state"]).arg(bed.state()).arg("--data").arg(bed.data()).envs(KEYS);
    let verified = verify.output().unwrap();
    let said = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(verified.status.success(), "{said}{}", String::from_utf8_lossy(&verified.stderr));
    said
}

fn files_in(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, |entries| entries.count())
}

/// A lease, however long it takes to get one.
async fn lease(link: &mut Link) -> Lease {
    loop {
        match link.ask(ask::Body::LeaseRequest(LeaseRequest::default())).await {
            answer::Body::Lease(lease) => return lease,
            answer::Body::Refusal(r) if r.action() == RefusalAction::Retry => sleep(Duration::from_millis(50)).await,
            other => panic!("{other:?}"),
        }
    }
}

/// Trains so many leases as a patient device does, and gives how many were acknowledged as merged.
async fn train(mut link: Link, model: ModelSpec, leases: u64, seed: u64) -> u64 {
    for round in 0..leases {
        let lease = lease(&mut link).await;
        let (delta, offer) = trained(&model, &lease, 1000 * seed + round);
        'offer: loop {
            match link.ask(ask::Body::DeltaOffer(offer.clone())).await {
                answer::Body::Done(done) if done.merged => break 'offer,
                answer::Body::Upload(_) => {
                    if let Err(refusal) = link.upload(lease.id, &delta).await {
                        assert_eq!(refusal.action(), RefusalAction::Retry, "{refusal:?}");
                        sleep(Duration::from_millis(100)).await;
                    }
                }
                answer::Body::Refusal(r) if r.action() == RefusalAction::Retry => {
                    sleep(Duration::from_millis(100)).await
                }
                other => panic!("{other:?}"),
            }
        }
    }
    leases
}

#[tokio::test(flavor = "multi_thread")]
async fn its_store_is_killed_under_load_and_all_goes_on_when_it_is_back() {
    let Some(mut store) = ObjectStore::start() else { return };
    let bed = Bed::new().with_blobs(url(&store.url("runs/1")));
    let server = bed.serve().await;
    let mut devices = tokio::task::JoinSet::new();
    for seed in 1..=4 {
        let link = Device::new(&bed).join(server.address, bed.invite(Role::Volunteer)).await;
        devices.spawn(train(link, bed.spec.model.clone(), 6, seed));
    }
    for outage in 1..=2 {
        server.until(|s| s["merged"].as_u64() >= Some(4 * outage)).await;
        store.kill();
        let away =
            server.until(|s| s["trouble"].as_str().is_some_and(|told| told.contains("s3://nightjar/runs/1"))).await;
        assert!(away["trouble"].as_str().is_some_and(|told| told.contains("goes on when the store is back")), "{away}");
        let mut newcomer = Device::new(&bed).join(server.address, bed.invite(Role::Volunteer)).await;
        match newcomer.ask(ask::Body::LeaseRequest(LeaseRequest::default())).await {
            answer::Body::Refusal(refusal) => assert_eq!(refusal.action(), RefusalAction::Retry),
            granted => panic!("there is no new work while nothing can be stored: {granted:?}"),
        }
        tokio::task::block_in_place(|| store.go_on());
        server.until(|s| s["trouble"].is_null()).await;
    }
    let mut acknowledged = 0;
    while let Some(merged) = devices.join_next().await {
        acknowledged += merged.unwrap();
    }
    assert_eq!(acknowledged, 24);
    server.until(|s| s["merged"].as_u64() == Some(acknowledged)).await;
    server.stop().await;

    assert_eq!((files_in(&bed.state().join("blobs")), files_in(&bed.state().join("checkpoints"))), (0, 0));
    let noted = fs::read_to_string(bed.state().join("blobs.url")).unwrap();
    assert_eq!(noted.trim(), store.url("runs/1"), "and no key");
    let said = verified(&bed);
    assert!(said.contains("24 deltas in "), "{said}");

    // The same run, taken up again from the store alone.
    fs::remove_dir_all(bed.state().join("cache")).unwrap();
    let server = bed.serve().await;
    let mut link = Device::new(&bed).join(server.address, bed.invite(Role::Volunteer)).await;
    let lease = link.lease(LeaseRequest::default()).await;
    for blob in lease.keyframe.iter().chain(lease.updates.iter().filter_map(|step| step.update.as_ref())) {
        link.fetch(blob).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_and_its_bucket_belong_together() {
    let Some(mut store) = ObjectStore::start() else { return };
    let address = store.url("run");
    let bed = Bed::new().with_blobs(url(&address));
    bed.serve().await.stop().await;

    let other = Bed::new().with_blobs(url(&address));
    let refused = Server::open(other.setup()).await.err().unwrap();
    assert!(matches!(refused, ServeError::Claim(ClaimError::Taken { .. })), "{refused}");

    let in_its_folder = Bed::new();
    in_its_folder.serve().await.stop().await;
    let elsewhere = in_its_folder.with_blobs(url(&address));
    let refused = Server::open(elsewhere.setup()).await.err().unwrap();
    assert!(matches!(refused, ServeError::State(StateError::BlobsHere { .. })), "{refused}");
    assert!(!elsewhere.state().join("blobs.url").exists(), "nothing was changed");

    // A start says why it cannot begin, and leaves no half of one.
    let wrong = BucketUrl::parse(
        &address,
        [(KEYS[0].0.to_owned(), "nobody".to_owned()), (KEYS[1].0.to_owned(), "x".to_owned())].into_iter(),
    );
    let new = Bed::new().with_blobs(wrong.unwrap());
    let refused = Server::open(new.setup()).await.err().unwrap();
    assert!(refused.to_string().contains("AWS_ACCESS_KEY_ID"), "{refused}");
    assert!(!new.state().join("ledger.sqlite").exists());
    store.kill();
}

#[test]
fn a_key_in_an_address_is_not_shown_to_whoever_reads_over_the_shoulder() {
    let bed = Bed::new();
    for address in ["s3://owl:hoot@night/run", "s3://night/run?secret=hoot", "https://hoot/run"] {
        let refused = serve_command(&bed).args(["--blobs", address]).output().unwrap();
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && told.contains("s3://BUCKET/PREFIX"), "{told}");
        assert!(!told.contains("hoot"), "{told}");
    }
    assert!(!bed.state().exists(), "nothing was begun");
}
