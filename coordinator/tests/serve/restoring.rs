//! A run in a real database and a real bucket: copied while it is served, and put back into others, or into a folder.

use crate::{
    backup::{Place, goes_on_from_an_old_backup},
    bed::Bed,
    blobs::url,
    command_line::{program, refused},
    database::Database,
    device::{Device, trained},
    object_store::{KEYS, ObjectStore},
};
use nightjar_coordinator::backup::Contents;
use nightjar_shared::wire::{LeaseRequest, Role, coordinator_message as answer, device_message as ask};
use std::{fs, path::Path, process::Output};

/// Another database of the same server.
fn another(database: &Database, name: &str) -> String {
    database.psql(&format!("CREATE DATABASE {name}"));
    database.url().replace("/postgres?", &format!("/{name}?"))
}

fn at<'a>(ledger: &'a str, blobs: &'a str) -> Place<'a> {
    Place { flags: vec!["--ledger", ledger, "--blobs", blobs], keys: &KEYS }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_put_back_into_another_database_and_another_bucket() {
    let (Some(database), Some(store)) = (Database::start(), ObjectStore::start()) else { return };
    let (here, there) = ((database.url(), store.url("one")), (another(&database, "two"), store.url("two")));
    let bed = Bed::new().with_blobs(url(&there.1));
    goes_on_from_an_old_backup(&bed, &at(&here.0, &here.1), &at(&there.0, &there.1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_put_back_from_a_database_and_a_bucket_into_a_folder() {
    let (Some(database), Some(store)) = (Database::start(), ObjectStore::start()) else { return };
    goes_on_from_an_old_backup(&Bed::new(), &at(&database.url(), &store.url("one")), &Place::default()).await;
}

fn run(bed: &Bed, command: &[&str], fail_point: &str) -> Output {
    let mut program = program();
    program.args(command).arg("--state").arg(bed.state()).envs(KEYS).env("NIGHTJAR_FAIL_POINT", fail_point);
    program.output().unwrap()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Trains so many leases on a run that is served in this process.
async fn train(bed: &Bed, leases: u64, seed: u64) {
    let server = bed.serve().await;
    let mut link = Device::new(bed).join(server.address, bed.invite(Role::Volunteer)).await;
    for round in 0..leases {
        let lease = link.lease(LeaseRequest::default()).await;
        let (delta, offer) = trained(&bed.spec.model, &lease, 100 * seed + round);
        link.upload(lease.id, &delta).await.unwrap();
        assert!(matches!(link.ask(ask::Body::DeltaOffer(offer)).await, answer::Body::Done(done) if done.merged));
    }
    server.stop().await;
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restoration_goes_on_after_kills_and_mixes_with_nothing_that_is_there() {
    let (Some(database), Some(store)) = (Database::start(), ObjectStore::start()) else { return };
    let (ledger, blobs) = (database.url(), store.url("one"));
    let bed = Bed::new().with_ledger(&ledger).with_blobs(url(&blobs));
    train(&bed, 3, 1).await;
    let to = bed.path("backup");
    let taking = ["backup", "--to", text(&to)];
    // Cut short among the rows: what was there before counts, and the same command goes on.
    let killed = run(&bed, &taking, "carry.page@2");
    assert!(!killed.status.success() && Contents::read(&to).unwrap().is_none(), "{killed:?}");
    assert!(said(&run(&bed, &taking, "")).contains("3 merged deltas"));
    train(&bed, 1, 2).await;
    let again = said(&run(&bed, &taking, ""));
    let contents = Contents::read(&to).unwrap().unwrap();
    let new = |told: &str| told.contains(&format!("{} blobs, {} new", contents.blobs, contents.blobs));
    assert!(contents.deltas == 4 && !new(&again), "only what is new is brought: {again}");

    fs::rename(bed.state(), bed.path("before")).unwrap();
    let (other_ledger, other_blobs) = (another(&database, "two"), store.url("two"));
    let restoring = |ledger: &str, blobs: &str, fail_point: &str| {
        run(&bed, &["restore", "--from", text(&to), "--ledger", ledger, "--blobs", blobs], fail_point)
    };
    let before = database.psql("SELECT generation, commits FROM run");
    refused(&restoring(&ledger, &other_blobs, ""), "holds a run");
    refused(&restoring(&other_ledger, &blobs, ""), "holds a run");
    assert_eq!(database.psql("SELECT generation, commits FROM run"), before);
    for fail_point in ["carry.blob@3", "carry.page@2"] {
        let killed = restoring(&other_ledger, &other_blobs, fail_point);
        assert!(!killed.status.success(), "{killed:?}");
        // Nobody takes half of it for a run, or for the place of a new one.
        let (run_file, data) = (bed.run_file(), bed.data());
        let serve = [
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--http",
            "127.0.0.1:0",
            "--run",
            text(&run_file),
            "--data",
            text(&data),
        ];
        let served = run(&bed, &serve, "");
        let told = String::from_utf8_lossy(&served.stderr).into_owned();
        assert!(!served.status.success() && told.contains("run the same `restore` again"), "{told}");
    }
    assert!(said(&restoring(&other_ledger, &other_blobs, "")).contains("4 merged deltas"));
    refused(&restoring(&other_ledger, &other_blobs, ""), "is not empty");
    let bed = bed.without_ledger().with_blobs(url(&other_blobs));
    train(&bed, 2, 3).await;
    assert!(said(&run(&bed, &["verify", "--data", text(&bed.data())], "")).contains("6 deltas"));
}
