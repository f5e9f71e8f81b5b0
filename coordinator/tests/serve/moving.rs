//! A run that is carried to a database and a bucket, is killed on the way, and goes on there; and back.

use crate::{
    bed::Bed,
    command_line::program,
    database::Database,
    device::{Device, trained},
    object_store::{KEYS, ObjectStore},
};
use nightjar_shared::wire::{LeaseRequest, Role, coordinator_message as answer, device_message as ask};
use std::{fs, path::Path, process::Output};

/// Trains so many leases on a run that is served.
async fn train(bed: &Bed, leases: u64, seed: u64) {
    let server = bed.serve().await;
    let before = server.until(|s| s["version"].is_u64()).await["version"].as_u64().unwrap();
    let mut link = Device::new(bed).join(server.address, bed.invite(Role::Volunteer)).await;
    for round in 0..leases {
        let lease = link.lease(LeaseRequest::default()).await;
        let (delta, offer) = trained(&bed.spec.model, &lease, 100 * seed + round);
        link.upload(lease.id, &delta).await.unwrap();
        assert!(matches!(link.ask(ask::Body::DeltaOffer(offer)).await, answer::Body::Done(done) if done.merged));
        server.until(|s| s["version"].as_u64() == Some(before + round + 1)).await;
    }
    server.stop().await;
}

fn run(bed: &Bed, command: &[&str], fail_point: &str) -> Output {
    let mut program = program();
    program.args(command).arg("--state").arg(bed.state()).envs(KEYS).env("NIGHTJAR_FAIL_POINT", fail_point);
    program.output().unwrap()
}

fn verified(bed: &Bed, deltas: u64) {
    let data = bed.data().display().to_string();
    let verified = run(bed, &["verify", "--data", &data], "");
    let said = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(verified.status.success(), "{said}{}", String::from_utf8_lossy(&verified.stderr));
    assert!(said.contains(&format!("{deltas} deltas in {} versions", deltas + 1)), "{said}");
}

fn copied(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => copied(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_carried_on_after_kills_and_goes_on_where_it_was_carried() {
    let (Some(database), Some(store)) = (Database::start(), ObjectStore::start()) else { return };
    let bed = Bed::new();
    train(&bed, 3, 1).await;
    verified(&bed, 3);

    let (ledger, blobs) = (database.url(), store.url("moved"));
    let there = ["move", "--to", &ledger, "--to", &blobs];
    let serving = bed.serve().await;
    let refused = run(&bed, &there, "");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("another coordinator is running"), "{refused:?}");
    serving.stop().await;

    // Killed among the blobs, and among the rows: the run is where it was, and the same command goes on.
    for fail_point in ["carry.blob@3", "carry.page@2"] {
        let killed = run(&bed, &there, fail_point);
        assert!(!killed.status.success(), "{killed:?}");
        assert!(!bed.state().join("ledger.url").exists() && !bed.state().join("blobs.url").exists());
        verified(&bed, 3);
    }
    let killed = run(&bed, &there, "move.marked");
    assert!(!killed.status.success() && bed.state().join("blobs.url").exists(), "{killed:?}");
    let moved = run(&bed, &there, "");
    let said = String::from_utf8_lossy(&moved.stdout).into_owned();
    assert!(moved.status.success(), "{said}{}", String::from_utf8_lossy(&moved.stderr));
    assert!(said.contains("rows, all read back") && !said.contains("blobs     "), "those are there already: {said}");
    for (note, place) in [("ledger.url", &ledger), ("blobs.url", &blobs)] {
        assert_eq!(fs::read_to_string(bed.state().join(note)).unwrap().trim(), place);
    }

    // Without its notes the folder is what the run has left: nobody serves that.
    let left = bed.path("left");
    copied(&bed.state(), &left);
    fs::remove_file(left.join("ledger.url")).unwrap();
    fs::remove_file(left.join("blobs.url")).unwrap();
    let mut mistake = program();
    mistake.args(["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--run"]).arg(bed.run_file());
    let mistake = mistake.arg("--data").arg(bed.data()).arg("--state").arg(&left).output().unwrap();
    let told = String::from_utf8_lossy(&mistake.stderr).into_owned();
    assert!(!mistake.status.success() && told.contains("this run was moved to postgres://owl@"), "{told}");

    fs::remove_dir_all(bed.state().join("blobs")).unwrap();
    verified(&bed, 3);
    let bed = bed.with_blobs(crate::blobs::url(&blobs));
    train(&bed, 2, 2).await;
    verified(&bed, 5);

    // And back. The file that the run has left is not overwritten.
    let back = ["move", "--to", "file", "--to", "folder"];
    let refused = run(&bed, &back, "");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("as it was at another time"), "{refused:?}");
    fs::rename(bed.state().join("ledger.sqlite"), bed.path("old.sqlite")).unwrap();
    for rest in ["ledger.sqlite-wal", "ledger.sqlite-shm"] {
        let _ = fs::remove_file(bed.state().join(rest));
    }
    let returned = run(&bed, &back, "");
    assert!(returned.status.success(), "{}", String::from_utf8_lossy(&returned.stderr));
    let bed = bed.without_blobs();
    verified(&bed, 5);
    train(&bed, 1, 3).await;
    verified(&bed, 6);
}
