//! Who of several processes leads, by a real PostgreSQL.

use crate::database::Database;
use nightjar_coordinator::store::{
    DatabaseUrl, LedgerError, LedgerPlace, RunIdentity,
    postgres::leadership::{Leadership, Standing},
};
use nightjar_shared::ids::{BlobHash, DeviceId, RunId};
use std::{net::SocketAddr, time::Duration};
use tokio::{sync::watch, time::sleep};

fn at(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn of(database: &Database) -> Leadership {
    Leadership::of(database.url().parse().unwrap())
}

/// Asks until it is so, however late.
async fn until(leadership: &mut Leadership, standing: Standing) {
    for _ in 0..600 {
        if leadership.stand().await.is_ok_and(|stands| stands == standing) {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("it never was so: {:?}", leadership.stand().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_leads_and_is_followed_when_it_goes() {
    let Some(database) = Database::start() else { return };
    let (mut first, mut second) = (of(&database), of(&database));
    assert_eq!(first.stand().await.unwrap(), Standing::Leads);
    assert_eq!(first.stand().await.unwrap(), Standing::Leads, "it leads still");
    assert_eq!(second.stand().await.unwrap(), Standing::Follows(None), "it answers no doors yet");
    let (announce, address) = watch::channel(None);
    let leading = tokio::spawn(async move { first.keep(address).await });
    announce.send_replace(Some(at(7001)));
    until(&mut second, Standing::Follows(Some(at(7001)))).await;
    leading.abort();
    until(&mut second, Standing::Leads).await;
}

/// Who was fenced while it held the lock has a coordinator beside it that asks for none. Who lost the lock in between
/// was followed in order, even if it leads again.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_leads_again_has_not_led_all_the_while() {
    let Some(database) = Database::start() else { return };
    let (mut first, mut second) = (of(&database), of(&database));
    assert_eq!(first.stand().await.unwrap(), Standing::Leads);
    let begun = first.lock();
    assert!(first.has_led_since(&begun).await);
    database.psql("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'");
    until(&mut second, Standing::Leads).await;
    assert!(!first.has_led_since(&begun).await);
    drop(second);
    until(&mut first, Standing::Leads).await;
    let newest = first.lock();
    assert!(!first.has_led_since(&begun).await && first.has_led_since(&newest).await);
}

/// A process may lose the lock on its way to the ledger. It does not fence whoever has it now.
#[tokio::test(flavor = "multi_thread")]
async fn only_who_has_the_lock_takes_the_ledger_over() {
    let Some(database) = Database::start() else { return };
    let url: DatabaseUrl = database.url().parse().unwrap();
    let (mut first, mut second) = (of(&database), of(&database));
    let run = RunIdentity { run_id: RunId([1; 32]), spec_json: "{}".into(), manifest_hash: BlobHash([2; 32]) };
    let take = async |lock| {
        let place = LedgerPlace::Database(url.under(lock));
        Ok::<_, LedgerError>(place.take_over(&run, DeviceId([3; 32]), 1).await?.ledger.generation())
    };
    assert_eq!(first.stand().await.unwrap(), Standing::Leads);
    let (lost, begun) = (first.lock(), take(first.lock()).await.unwrap());
    first.let_go();
    until(&mut second, Standing::Leads).await;
    let taken = take(second.lock()).await.unwrap();
    assert!(taken > begun);
    assert!(matches!(take(lost).await.unwrap_err(), LedgerError::Fenced(generation) if generation == taken));
}

/// A process that hangs holds its session, and its lock, for as long as it pleases; unless somebody ends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_silent_is_followed_and_hears_of_it() {
    let Some(database) = Database::start() else { return };
    let (mut hangs, mut second) = (of(&database), of(&database));
    assert_eq!(hangs.stand().await.unwrap(), Standing::Leads);
    until(&mut second, Standing::Leads).await;
    let (announce, address) = watch::channel(Some(at(7002)));
    let leading = tokio::spawn(async move { second.keep(address).await });
    // It wakes up, and goes on as if it led.
    hangs.keep(watch::channel(Some(at(7001))).1).await;
    until(&mut hangs, Standing::Follows(Some(at(7002)))).await;
    assert!(!leading.is_finished());
    drop(announce);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_away_finds_a_leader_again() {
    let Some(mut database) = Database::start() else { return };
    let (mut first, mut second) = (of(&database), of(&database));
    assert_eq!(first.stand().await.unwrap(), Standing::Leads);
    let (_announce, address) = watch::channel(Some(at(7001)));
    let leading = tokio::spawn(async move { first.keep(address).await });
    until(&mut second, Standing::Follows(Some(at(7001)))).await;
    tokio::task::block_in_place(|| {
        database.kill();
        database.go_on();
    });
    // Nobody else wants to lead: it takes the lock again.
    sleep(Duration::from_secs(3)).await;
    until(&mut second, Standing::Follows(Some(at(7001)))).await;
    assert!(!leading.is_finished());
}
