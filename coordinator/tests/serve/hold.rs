//! What holds a coordinator up without ending it: a disk that is full, a ledger that another program has locked.

use crate::{
    bed::Bed,
    device::{Device, Link, trained},
};
use nightjar_coordinator::server::disk_reserve::{Bytes, Space};
use nightjar_shared::wire::{
    DeltaOffer, LeaseRequest, Refusal, RefusalAction, RefusalCode, Role, coordinator_message as answer,
    device_message as ask,
};
use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// As much room as the test says.
pub struct Told(pub Arc<AtomicU64>);

impl Space for Told {
    fn bytes(&self) -> io::Result<Bytes> {
        Ok(Bytes { free: self.0.load(Ordering::Relaxed), total: 1 << 30 })
    }
}

async fn asks_for_work(link: &mut Link) -> Result<nightjar_shared::wire::Lease, Refusal> {
    match link.ask(ask::Body::LeaseRequest(LeaseRequest::default())).await {
        answer::Body::Lease(lease) => Ok(lease),
        answer::Body::Refusal(refusal) => Err(refusal),
        other => panic!("{other:?}"),
    }
}

async fn is_merged(link: &mut Link, offer: DeltaOffer) -> bool {
    matches!(link.ask(ask::Body::DeltaOffer(offer)).await, answer::Body::Done(done) if done.merged)
}

/// Asks until there is work.
async fn works_again(link: &mut Link) {
    for _ in 0..400 {
        if asks_for_work(link).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it never went on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_means_no_new_work_and_what_was_trained_is_taken_if_it_fits() {
    let bed = Bed::new();
    let free = Arc::new(AtomicU64::new(1 << 29));
    let server = bed.serve_on(Box::new(Told(free.clone()))).await;
    let (device, other) = (Device::new(&bed), Device::new(&bed));
    let mut link = device.join(server.address, bed.invite(Role::Volunteer)).await;
    let lease = link.lease(LeaseRequest::default()).await;
    let mut second = other.join(server.address, bed.invite(Role::Volunteer)).await;
    assert_eq!(server.status().await["disk"]["full"], false);
    assert!(bed.state().join("reserve").exists());
    let late = second.lease(LeaseRequest::default()).await;

    // Room for a delta, but for no version.
    free.store(80 << 10, Ordering::Relaxed);
    let status = server.status().await;
    assert_eq!(status["disk"]["full"], true, "{status}");
    assert!(status["trouble"].as_str().unwrap().contains("disk is full"), "{status}");
    let refusal = asks_for_work(&mut second).await.unwrap_err();
    assert_eq!((refusal.code(), refusal.action()), (RefusalCode::Busy, RefusalAction::Retry));
    assert!(refusal.sentence.contains("disk is full") && refusal.retry_ms > 0, "{refusal:?}");
    match Device::new(&bed).link(server.address).await.hello(bed.invite(Role::Volunteer), Role::Volunteer).await {
        answer::Body::Refusal(refusal) => assert_eq!(refusal.action(), RefusalAction::Retry),
        other => panic!("{other:?}"),
    }
    let (delta, offer) = trained(&bed.spec.model, &lease, 1);
    link.upload(lease.id, &delta).await.unwrap();
    assert!(is_merged(&mut link, offer).await);

    // Not even that.
    free.store(0, Ordering::Relaxed);
    let (delta, offer) = trained(&bed.spec.model, &late, 2);
    let refusal = second.upload(late.id, &delta).await.unwrap_err();
    assert_eq!((refusal.code(), refusal.action()), (RefusalCode::Busy, RefusalAction::Retry));

    // It goes on by itself.
    free.store(1 << 29, Ordering::Relaxed);
    second.upload(late.id, &delta).await.unwrap();
    assert!(is_merged(&mut second, offer).await);
    works_again(&mut link).await;
    let status = server.status().await;
    assert_eq!((&status["disk"]["full"], &status["trouble"]), (&false.into(), &serde_json::Value::Null));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_another_program_has_locked_is_waited_for() {
    let bed = Bed::new();
    let server = bed.serve().await;
    let (device, other) = (Device::new(&bed), Device::new(&bed));
    let mut link = device.join(server.address, bed.invite(Role::Volunteer)).await;
    let mut second = other.join(server.address, bed.invite(Role::Volunteer)).await;
    server.until(|status| !status["version"].is_null()).await;
    let ledger = SqliteConnectOptions::new().filename(bed.state().join("ledger.sqlite"));
    let mut locker = ledger.connect().await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut locker).await.unwrap();

    let asked = tokio::spawn(async move {
        let answered = asks_for_work(&mut link).await;
        (link, answered)
    });
    // Meanwhile the others are told to come again, and the page says what is waited for.
    let mut told = String::new();
    for _ in 0..400 {
        told = server.status().await["trouble"].to_string();
        if told.contains("locked") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(told.contains("locked"), "{told}");
    let refusal = asks_for_work(&mut second).await.unwrap_err();
    assert_eq!((refusal.code(), refusal.action()), (RefusalCode::Busy, RefusalAction::Retry));

    sqlx::query("ROLLBACK").execute(&mut locker).await.unwrap();
    locker.close().await.unwrap();
    let (mut link, answered) = asked.await.unwrap();
    let lease = answered.unwrap();
    works_again(&mut second).await;
    let (delta, offer) = trained(&bed.spec.model, &lease, 1);
    link.upload(lease.id, &delta).await.unwrap();
    assert!(is_merged(&mut link, offer).await);
    assert_eq!(server.status().await["trouble"], serde_json::Value::Null);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_can_be_stopped_while_it_waits_and_starts_while_the_ledger_is_locked() {
    let bed = Bed::new();
    let server = bed.serve().await;
    let device = Device::new(&bed);
    let mut link = device.join(server.address, bed.invite(Role::Volunteer)).await;
    let ledger = SqliteConnectOptions::new().filename(bed.state().join("ledger.sqlite"));
    let mut locker = ledger.connect().await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut locker).await.unwrap();
    let asked = tokio::spawn(async move { link.try_ask(ask::Body::LeaseRequest(LeaseRequest::default())).await });
    while !server.status().await["trouble"].to_string().contains("locked") {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server.stop().await;
    assert!(
        !matches!(asked.await.unwrap(), Some(answer::Body::Lease(_))),
        "nothing was written, so nothing was promised"
    );

    let opening = tokio::spawn(async move {
        let server = bed.serve().await;
        (bed, server)
    });
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!opening.is_finished());
    sqlx::query("ROLLBACK").execute(&mut locker).await.unwrap();
    let (bed, server) = opening.await.unwrap();
    let mut link = device.join(server.address, bed.invite(Role::Volunteer)).await;
    link.lease(LeaseRequest::default()).await;
    server.stop().await;
}
