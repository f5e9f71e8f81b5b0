//! A run that is copied while it is served, lost, and put back.

use crate::{
    bed::Bed,
    command_line::{Process, of_run, program, refused, serve_command},
    device::{Device, Link, trained},
};
use nightjar_coordinator::backup::Contents;
use nightjar_shared::{
    ids::BlobHash,
    wire::{
        HeldWeights, Lease, LeaseRequest, RefusalAction, RefusalCode, Role, coordinator_message as answer,
        device_message as ask,
    },
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

/// One lease from grant to acknowledgement.
async fn one_lease(bed: &Bed, link: &mut Link, seed: u64) -> Lease {
    let lease = link.lease(LeaseRequest::default()).await;
    let (delta, offer) = trained(&bed.spec.model, &lease, seed);
    link.upload(lease.id, &delta).await.unwrap();
    let done = link.ask(ask::Body::DeltaOffer(offer)).await;
    assert!(matches!(&done, answer::Body::Done(done) if done.merged), "{done:?}");
    lease
}

fn backup(bed: &Bed, to: &Path) -> Output {
    program().args(["backup", "--state"]).arg(bed.state()).arg("--to").arg(to).output().unwrap()
}

fn restore(from: &Path, bed: &Bed) -> Output {
    restore_to(from, bed, &Place::default())
}

fn restore_to(from: &Path, bed: &Bed, place: &Place<'_>) -> Output {
    let mut command = program();
    command.args(["restore", "--from"]).arg(from).arg("--state").arg(bed.state()).args(&place.flags);
    command.envs(place.keys.iter().copied()).output().unwrap()
}

/// Where a run has its ledger and its blobs: in its state folder, or where these say.
#[derive(Default)]
pub struct Place<'a> {
    /// For the commands that begin it there; later ones know it from the state folder.
    pub flags: Vec<&'a str>,
    /// What opens it.
    pub keys: &'a [(&'a str, &'a str)],
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_put_back_from_an_old_backup_goes_on_and_counts_nothing_twice() {
    let bed = Bed::new();
    goes_on_from_an_old_backup(&bed, &Place::default(), &Place::default()).await;

    // The backup knows versions that this run has otherwise now: it is not put in its place.
    let (to, other, busy) = (bed.path("backup"), bed.path("other"), Device::new(&bed));
    said(&backup(&bed, &other));
    fs::remove_dir_all(bed.state()).unwrap();
    said(&restore(&to, &bed));
    let server = bed.serve().await;
    let mut link = busy.join(server.address, bed.invite(Role::Volunteer)).await;
    one_lease(&bed, &mut link, 900).await;
    server.stop().await;
    refused(&backup(&bed, &other), "went on from an older copy");
    said(&backup(&bed, &to));
}

/// The run is backed up while two devices work, and goes on; then all that it has is gone, and it is put back there.
pub async fn goes_on_from_an_old_backup(bed: &Bed, here: &Place<'_>, there: &Place<'_>) {
    let of_run = |place: &Place<'_>, args: &[&str]| {
        let mut command = program();
        command.args(args).arg("--data").arg(bed.data()).arg("--state").arg(bed.state());
        said(&command.envs(place.keys.iter().copied()).output().unwrap())
    };
    let mut serve = serve_command(bed);
    let serve = serve.args(&here.flags).envs(here.keys.iter().copied());
    let process = Process::of(serve.stdout(Stdio::piped()).spawn().unwrap());
    let (busy, slow, late) = (Device::new(bed), Device::new(bed), Device::new(bed));
    let mut busy_link = busy.join(process.address, bed.invite(Role::Volunteer)).await;
    let mut slow_link = slow.join(process.address, bed.invite(Role::Volunteer)).await;
    let slow_lease = slow_link.lease(LeaseRequest::default()).await;
    let to = bed.path("backup");
    for seed in 0..3 {
        one_lease(bed, &mut busy_link, seed).await;
    }
    let mut seed = 3;
    let taken = std::thread::scope(|scope| {
        let mut command = program();
        command.args(["backup", "--state"]).arg(bed.state()).arg("--to").arg(&to).envs(here.keys.iter().copied());
        let taking = scope.spawn(move || command.output().unwrap());
        tokio::task::block_in_place(|| {
            while !taking.is_finished() || seed < 5 {
                tokio::runtime::Handle::current().block_on(one_lease(bed, &mut busy_link, seed));
                seed += 1;
            }
        });
        taking.join().unwrap()
    });
    assert!(said(&taken).contains("backed up \"bed\""), "{taken:?}");
    let contents = Contents::read(&to).unwrap().unwrap();
    assert!((3..=seed).contains(&contents.deltas), "{contents:?}");

    // What the backup does not have: merged deltas, a version, a device with its lease, the end of an older lease.
    let mut newest = one_lease(bed, &mut busy_link, seed).await;
    while newest.base_version <= contents.deltas {
        seed += 1;
        newest = one_lease(bed, &mut busy_link, seed).await;
    }
    let (slow_delta, slow_offer) = trained(&bed.spec.model, &slow_lease, 100);
    slow_link.upload(slow_lease.id, &slow_delta).await.unwrap();
    let done = slow_link.ask(ask::Body::DeltaOffer(slow_offer.clone())).await;
    assert!(matches!(done, answer::Body::Done(done) if done.merged));
    let mut late_link = late.join(process.address, bed.invite(Role::Volunteer)).await;
    let late_lease = late_link.lease(LeaseRequest::default()).await;
    drop(process);
    fs::remove_dir_all(bed.state()).unwrap();

    let told = said(&restore_to(&to, bed, there));
    assert!(told.contains(&format!("{} merged deltas", contents.deltas)), "{told}");
    assert!(of_run(there, &["verify"]).lines().all(|line| line.starts_with("ok")));
    let stats = || serde_json::from_str::<serde_json::Value>(&of_run(there, &["stats", "--json"])).unwrap();
    assert_eq!(stats()["merged"], contents.deltas);
    let (server, told) = bed.serve_telling().await;
    assert!(told.lock().unwrap().contains("restored from a backup"), "{}", told.lock().unwrap());
    assert!(server.status().await["generation"].as_u64() > Some(newest.generation));

    // Who was enrolled before comes back without an invite; what it holds leads nowhere, so it starts from a keyframe.
    let mut busy_link = busy.join(server.address, vec![]).await;
    let held = HeldWeights { version: newest.base_version, digest: newest.base_digest.clone() };
    let lease = busy_link.lease(LeaseRequest { held: Some(held), ..LeaseRequest::default() }).await;
    // Each delta makes a version, the last one after the start perhaps.
    assert!(lease.keyframe.is_some() && lease.base_version <= contents.deltas, "{lease:?}");
    for _ in 0..200 {
        if told.lock().unwrap().contains("older copy") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    assert!(told.lock().unwrap().contains(&format!("holds version {}", newest.base_version)));

    // Who came later is enrolled anew, by its invite, and drops a lease that nobody knows.
    let mut late_link = late.link(server.address).await;
    let refusal = late_link.hello(vec![], Role::Volunteer).await;
    assert!(matches!(&refusal, answer::Body::Refusal(r) if r.code() == RefusalCode::Invite), "{refusal:?}");
    let welcome = late_link.hello(bed.invite(Role::Volunteer), Role::Volunteer).await;
    assert!(matches!(welcome, answer::Body::Welcome(_)));
    let (_, late_offer) = trained(&bed.spec.model, &late_lease, 200);
    match late_link.ask(ask::Body::DeltaOffer(late_offer)).await {
        answer::Body::Refusal(r) => {
            assert_eq!((r.code(), r.action()), (RefusalCode::LeaseGone, RefusalAction::DropLease))
        }
        other => panic!("{other:?}"),
    }

    // A lease that was open then, and was merged in what is lost, is merged again: once, as far as the ledger goes.
    let mut slow_link = slow.join(server.address, vec![]).await;
    slow_link.upload(slow_lease.id, &slow_delta).await.unwrap();
    for _ in 0..2 {
        let done = slow_link.ask(ask::Body::DeltaOffer(slow_offer.clone())).await;
        assert!(matches!(&done, answer::Body::Done(done) if done.merged), "{done:?}");
    }
    let mut after = contents.deltas + 1;
    for seed in 300..303 {
        one_lease(bed, &mut busy_link, seed).await;
        one_lease(bed, &mut late_link, seed + 100).await;
        after += 2;
    }
    server.stop().await;
    let verified = of_run(there, &["verify"]);
    assert!(verified.lines().all(|line| line.starts_with("ok")), "{verified}");
    let stats = stats();
    assert_eq!((&stats["merged"], &stats["duplicates"]), (&after.into(), &0.into()), "{stats}");
}

async fn run(bed: &Bed, seeds: std::ops::Range<u64>) {
    let server = bed.serve().await;
    let mut link = Device::new(bed).join(server.address, bed.invite(Role::Volunteer)).await;
    for seed in seeds {
        one_lease(bed, &mut link, seed).await;
    }
    server.until(|status| status["version"].as_u64() == status["merged"].as_u64()).await;
    server.stop().await;
}

fn blobs_of(folder: &Path) -> Vec<PathBuf> {
    let mut names: Vec<_> = fs::read_dir(folder.join("blobs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names
}

/// Puts other bytes in a file's place, as long as it; the file itself may be shared.
fn damage(file: &Path) {
    let bytes: Vec<u8> = fs::read(file).unwrap().iter().map(|byte| byte ^ 1).collect();
    fs::remove_file(file).unwrap();
    fs::write(file, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_backup_brings_only_what_is_new_and_mends_what_is_not_right() {
    let bed = Bed::new();
    run(&bed, 0..3).await;
    let to = bed.path("backup");
    let first = said(&backup(&bed, &to));
    let blobs = blobs_of(&to).len();
    assert!(first.contains(&format!("{blobs} blobs, {blobs} new")), "{first}");
    assert!(said(&backup(&bed, &to)).contains(&format!("{blobs} blobs, 0 new")));
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let contents = Contents::read(&to).unwrap().unwrap();
        let key = to.join("files").join(contents.files["coordinator.pk8"].hash.to_string());
        assert_eq!(fs::metadata(key).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&blobs_of(&to)[0]).unwrap().nlink(), 2, "shared with the run");
    }

    // Cut short, with a damaged blob, one that is missing, and one that nobody needs any more.
    let all = blobs_of(&to);
    damage(&all[0]);
    fs::remove_file(&all[1]).unwrap();
    fs::write(all[2].with_extension("part"), "half").unwrap();
    fs::write(to.join("blobs").join(BlobHash::of(b"old").to_string()), "old").unwrap();
    fs::write(to.join("blobs/notes"), "somebody's").unwrap();
    run(&bed, 10..11).await;
    let again = said(&backup(&bed, &to));
    assert!(again.contains("1 that the run has no more"), "{again}");
    assert!(to.join("blobs/notes").exists() && !all[2].with_extension("part").exists());
    let now = blobs_of(&to).len() - 1;
    assert!(again.contains(&format!("{now} blobs, {} new", now - blobs + 2)), "{again}");
    // Believed to be whole, the damage stays.
    damage(&all[0]);
    let quick =
        program().args(["backup", "--quick", "--state"]).arg(bed.state()).arg("--to").arg(&to).output().unwrap();
    assert!(said(&quick).contains("0 new"));
    fs::rename(bed.state(), bed.path("lost")).unwrap();
    let restored = restore(&to, &bed);
    let told = String::from_utf8_lossy(&restored.stderr).into_owned();
    assert!(
        restored.status.code() == Some(1) && told.contains(all[0].file_name().unwrap().to_str().unwrap()),
        "{told}"
    );
    assert!(!of_run(&bed, &["verify"]).status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_over() {
    let (bed, mut other) = (Bed::new(), Bed::new());
    run(&bed, 0..2).await;
    other.spec.name = "another".into();
    run(&other, 0..1).await;
    let to = bed.path("backup");
    said(&backup(&bed, &to));
    refused(&backup(&other, &to), "of the run \"bed\"");
    refused(&backup(&bed, &bed.data()), "no backup's");
    let theirs = bed.path("theirs");
    fs::create_dir(&theirs).unwrap();
    fs::write(theirs.join("thesis.tex"), "dear").unwrap();
    refused(&backup(&bed, &theirs), "thesis.tex");
    refused(&restore(&to, &bed), "is not empty");
    refused(&restore(&theirs, &bed), "thesis.tex");
    refused(&restore(&bed.path("nowhere"), &bed), "no whole backup");

    // A restoration that was cut short goes on; a folder that has become somebody's run does not.
    fs::rename(bed.state(), bed.path("before")).unwrap();
    said(&restore(&to, &bed));
    let mark = bed.state().join("made-by-nightjar.txt");
    let whole = fs::read_to_string(&mark).unwrap();
    fs::remove_file(bed.state().join("ledger.sqlite")).unwrap();
    fs::remove_file(&blobs_of(&bed.state())[0]).unwrap();
    refused(&restore(&to, &bed), "is not empty");
    fs::write(&mark, whole.replace("finished yes", "finished no")).unwrap();
    said(&restore(&to, &bed));
    assert!(said(&of_run(&bed, &["verify"])).lines().all(|line| line.starts_with("ok")));

    // Without its ledger, or with another, a backup is none.
    let contents = Contents::read(&to).unwrap().unwrap();
    let ledger = to.join("files").join(contents.files["ledger.sqlite"].hash.to_string());
    damage(&ledger);
    fs::remove_dir_all(bed.state()).unwrap();
    let restored = restore(&to, &bed);
    assert_eq!(restored.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&restored.stderr).contains("ledger.sqlite"), "{restored:?}");
    assert!(!bed.state().exists());
}

/// What the run itself has lost is named, and the rest is kept all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_damaged_run_is_better_than_none() {
    let bed = Bed::new();
    run(&bed, 0..3).await;
    let name = {
        let facts = nightjar_coordinator::store::copy::held(&bed.state().join("ledger.sqlite")).await.unwrap();
        *facts.blobs.first().unwrap()
    };
    damage(&bed.state().join("blobs").join(name.to_string()));
    let to = bed.path("backup");
    let taken = backup(&bed, &to);
    let told = String::from_utf8_lossy(&taken.stderr).into_owned();
    assert!(taken.status.code() == Some(1) && told.contains(&name.to_string()), "{told}");
    assert_eq!(Contents::read(&to).unwrap().unwrap().lost, [name]);
    fs::remove_dir_all(bed.state()).unwrap();
    said(&restore(&to, &bed));
}
