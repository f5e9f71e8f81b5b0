//! A run whose ledger is in a real PostgreSQL, which is killed under it.

use crate::{
    bed::Bed,
    command_line::{of_run, serve_command},
    database::Database,
    device::{Device, trained},
};
use nightjar_coordinator::{
    server::{ServeError, Server, state::StateError},
    store::LedgerError,
};
use nightjar_shared::wire::{LeaseRequest, Role, coordinator_message as answer, device_message as ask};
use std::fs;

#[tokio::test(flavor = "multi_thread")]
async fn its_database_is_killed_and_nothing_is_lost_or_written_twice() {
    let Some(mut database) = Database::start() else { return };
    let bed = Bed::new().with_ledger(&database.url());
    let server = bed.serve().await;
    let device = Device::new(&bed);
    let mut link = device.join(server.address, bed.invite(Role::Volunteer)).await;
    for round in 1..=3 {
        let lease = link.lease(LeaseRequest::default()).await;
        let (delta, offered) = trained(&bed.spec.model, &lease, round);
        link.upload(lease.id, &delta).await.unwrap();
        database.kill();
        // Its answer follows its commit, so it waits; the operator is told for what, and starts the database.
        let offering = link.ask(ask::Body::DeltaOffer(offered.clone()));
        let starting = async {
            server.until(|s| s["trouble"].as_str().is_some_and(|told| told.contains("postgres://owl@"))).await;
            tokio::task::block_in_place(|| database.go_on());
        };
        let (answer, ()) = tokio::join!(offering, starting);
        assert!(matches!(&answer, answer::Body::Done(done) if done.merged), "{answer:?}");
        assert_eq!(database.psql("SELECT count(*), count(DISTINCT lease) FROM deltas"), format!("{round}|{round}"));
    }
    let before = server.status().await;
    server.stop().await;
    assert!(!bed.state().join("ledger.sqlite").exists());

    // The folder knows where its ledger is.
    let bed = bed.without_ledger();
    let server = bed.serve().await;
    let after = server.status().await;
    assert_eq!((&after["merged"], &after["tokens"]), (&before["merged"], &before["tokens"]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_and_its_database_belong_together() {
    let Some(database) = Database::start() else { return };
    let bed = Bed::new().with_ledger(&database.url());
    bed.serve().await.stop().await;
    let noted = fs::read_to_string(bed.state().join("ledger.url")).unwrap();
    assert_eq!(noted.trim(), database.url());

    let other = Bed::new().with_ledger(&database.url());
    let refused = Server::open(other.setup()).await.err().unwrap();
    assert!(matches!(refused, ServeError::Ledger(LedgerError::Taken(_))), "{refused}");

    let on_a_file = Bed::new();
    on_a_file.serve().await.stop().await;
    let moved = on_a_file.with_ledger(&database.url());
    let refused = Server::open(moved.setup()).await.err().unwrap();
    assert!(matches!(refused, ServeError::State(StateError::OtherPlace { .. })), "{refused}");
    assert!(!moved.state().join("ledger.url").exists(), "nothing was changed");

    // Without its database the folder is no new run.
    drop(database);
    let place = nightjar_coordinator::server::state::StateFolder::open(&bed.state()).unwrap().ledger(None).unwrap();
    assert!(place.database().is_some());
    let away = place.look().await.unwrap_err();
    assert!(matches!(away, LedgerError::Away { .. }), "{away}");
}

#[test]
fn a_password_in_an_address_is_not_shown_to_whoever_reads_over_the_shoulder() {
    let bed = Bed::new();
    for address in ["mysql://owl:hoot@host/run", "postgres://owl:hoot@host:x/run"] {
        let refused = serve_command(&bed).args(["--ledger", address]).output().unwrap();
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && told.contains("postgres://USER@HOST"), "{told}");
        assert!(!told.contains("hoot"), "{told}");
        let looked = of_run(&bed, &["stats", "--ledger", address]);
        assert!(!looked.status.success() && !String::from_utf8_lossy(&looked.stderr).contains("hoot"));
    }
    assert!(!bed.state().exists(), "nothing was begun");
}
