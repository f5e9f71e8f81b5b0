//! A run that forgets by its rule, from outside: what is removed, what stays, and what a kill between two removals
//! leaves.

use crate::{
    bed::Bed,
    command_line::{of_run, program, refused, serve_command},
    device::{Device, message, open, trained},
    loss::run,
};
use nightjar_coordinator::store::{Keeping, Kept, Ledger, SqliteLedger};
use nightjar_shared::{
    fail,
    ids::BlobHash,
    run_spec::KeepSpec,
    wire::{
        Blob, BlobGet, BlobHead, HeldWeights, Lease, LeaseRequest, LeaseReturn, Role, coordinator_message as answer,
        device_message as ask, stream_open,
    },
};
use std::{
    fs,
    process::{Command, Output, Stdio},
    time::Duration,
};

/// A keyframe and a checkpoint at every other version.
fn bed(keep: KeepSpec) -> Bed {
    let mut bed = Bed::new();
    (bed.spec.publish.keyframe_every, bed.spec.keep) = (2, keep);
    fs::write(bed.run_file(), bed.run_toml()).unwrap();
    bed
}

/// As little as can be.
fn least() -> KeepSpec {
    KeepSpec { versions: Some(1), deltas: Some(0), ..KeepSpec::default() }
}

fn gc(bed: &Bed) -> Command {
    let mut command = program();
    command.args(["gc", "--state"]).arg(bed.state());
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn verified(bed: &Bed) -> String {
    let output = of_run(bed, &["verify"]);
    assert!(output.status.success(), "{output:?}");
    said(&output)
}

fn blobs(bed: &Bed) -> usize {
    fs::read_dir(bed.state().join("blobs")).unwrap().count()
}

async fn kept(bed: &Bed) -> Kept {
    let ledger = SqliteLedger::open_to_read(&bed.state().join("ledger.sqlite")).await.unwrap();
    let kept = ledger.kept().await.unwrap();
    Ledger::close(&ledger).await;
    kept
}

/// The blobs that a lease leads over.
fn way(lease: &Lease) -> Vec<Blob> {
    lease.keyframe.iter().chain(lease.updates.iter().flat_map(|u| &u.update)).cloned().collect()
}

async fn is_sent(connection: &web_transport_quinn::Session, blob: &Blob) -> bool {
    let get = BlobGet { hash: blob.hash.clone(), offset: 0 };
    let (_send, mut receive) = open(connection, stream_open::Kind::Get(get)).await;
    let head: BlobHead = message(&mut receive).await;
    head.refusal.is_none() && {
        let bytes = receive.read_to_end(1 << 20).await.unwrap();
        Some(BlobHash::of(&bytes)) == blob.name()
    }
}

/// Whatever a kill comes between, the next start works, what is kept is proved, and the rest goes in the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_any_two_removals_is_made_up_for() {
    let mut bed = bed(KeepSpec::default());
    run(&bed, 9).await;
    let all = blobs(&bed);
    bed.spec.keep = least();
    fs::write(bed.run_file(), bed.run_toml()).unwrap();
    // The server takes the rule over, notes what is given up, and dies.
    let died = |command: &mut Command, point: &str| {
        let command = command.env(fail::VARIABLE, point).stdout(Stdio::null()).stderr(Stdio::null());
        let status = command.status().unwrap();
        assert!(status.code().is_none_or(|code| code > 2), "{point} was not passed: {status}");
    };
    died(&mut serve_command(&bed), "keep.noted");
    let noted = kept(&bed).await;
    assert!(noted.after_seq > 0 && noted.first_version.0 > 0, "{noted:?}");
    assert_eq!((noted.removed_deltas, noted.removed_versions.0, blobs(&bed)), (0, 0, all));
    verified(&bed);
    for point in ["keep.blob@3", "keep.deltas", "keep.blob@2", "keep.versions"] {
        died(&mut gc(&bed), point);
        let now = kept(&bed).await;
        assert_eq!((now.after_seq, now.first_version), (noted.after_seq, noted.first_version));
        let proved = verified(&bed);
        assert!(proved.contains("given up by the rule [keep]"), "{proved}");
    }
    let done = gc(&bed).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let now = kept(&bed).await;
    assert_eq!((now.removed_deltas, now.removed_versions), (now.after_seq, now.first_version));
    assert!(blobs(&bed) < all / 2, "{} of {all} blobs", blobs(&bed));
    // And it goes on, with a checkpoint that it does not need.
    run(&bed, 4).await;
    verified(&bed);
    let checkpoints = bed.state().join("checkpoints");
    let newest = fs::read_dir(&checkpoints).unwrap().map(|entry| entry.unwrap().path()).max().unwrap();
    let idle = checkpoints.join("1.njc");
    fs::copy(newest, &idle).unwrap();
    died(&mut gc(&bed), "keep.checkpoint");
    assert!(gc(&bed).output().unwrap().status.success() && !idle.exists());
    run(&bed, 2).await;
    verified(&bed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_served_forgets_by_itself_and_refuses_the_command() {
    let bed = bed(least());
    run(&bed, 4).await;
    let server = bed.serve().await;
    refused(&gc(&bed).output().unwrap(), "another coordinator is running");
    let looked = gc(&bed).arg("--dry-run").output().unwrap();
    assert!(looked.status.success() && said(&looked).contains("the newest 1 versions"), "{looked:?}");
    let (slow, fast) = (Device::new(&bed), Device::new(&bed));
    let mut slow = slow.join(server.address, bed.invite(Role::Volunteer)).await;
    let lease = slow.lease(LeaseRequest::default()).await;
    let mut fast = fast.join(server.address, bed.invite(Role::Volunteer)).await;
    let mut seed = 100;
    let mut train = async |times: u64| {
        for _ in 0..times {
            seed += 1;
            let lease = fast.lease(LeaseRequest::default()).await;
            let (delta, offer) = trained(&bed.spec.model, &lease, seed);
            fast.upload(lease.id, &delta).await.unwrap();
            let answered = fast.ask(ask::Body::DeltaOffer(offer)).await;
            assert!(matches!(answered, answer::Body::Done(done) if done.merged));
        }
    };
    train(12).await;
    for blob in way(&lease) {
        assert!(is_sent(&slow.connection, &blob).await, "a device on its way misses {:?}", blob.name());
    }
    let back = LeaseReturn { lease_id: lease.id, generation: lease.generation, why: String::new() };
    slow.ask(ask::Body::LeaseReturn(back)).await;
    let begun = tokio::time::Instant::now();
    while is_sent(&slow.connection, &way(&lease)[0]).await {
        train(2).await;
        assert!(begun.elapsed() < Duration::from_secs(60), "it never goes");
    }
    // Whoever holds old weights is led to the newest version, over blobs that are there.
    let old = HeldWeights { version: lease.base_version, digest: lease.base_digest.clone() };
    let lease = slow.lease(LeaseRequest { held: Some(old), ..LeaseRequest::default() }).await;
    for blob in way(&lease) {
        assert!(is_sent(&slow.connection, &blob).await);
    }
    server.stop().await;
    let proved = verified(&bed);
    assert!(proved.contains("the chain stands for them"), "{proved}");
    let figures = of_run(&bed, &["stats", "--json"]);
    let figures: serde_json::Value = serde_json::from_slice(&figures.stdout).unwrap();
    assert!(figures["kept"]["deltas"].as_u64().unwrap() < figures["merged"].as_u64().unwrap(), "{figures}");
    let gone = of_run(&bed, &["export", bed.path("model").to_str().unwrap(), "--version", "3"]);
    assert!(String::from_utf8_lossy(&gone.stderr).contains("removed by the rule [keep]"), "{gone:?}");
    assert!(of_run(&bed, &["export", bed.path("model").to_str().unwrap(), "--version", "0"]).status.success());
}
