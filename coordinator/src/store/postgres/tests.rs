//! What is PostgreSQL's own: a server that goes away and comes back. What every ledger promises is in `store/suite.rs`.

#[path = "../../../tests/serve/database.rs"]
pub mod database;

use super::*;
use crate::{
    engine::record::DeviceRecord,
    store::{Counters, Ledger, suite::eventful},
    world::World,
};
use database::Database as Server;
use nightjar_shared::ids::{BlobHash, DeviceId, RunId};
use std::time::Instant;

fn identity() -> RunIdentity {
    RunIdentity { run_id: RunId([1; 32]), spec_json: "{}".into(), manifest_hash: BlobHash([2; 32]) }
}

async fn open(server: &Server, unix_s: u64) -> PostgresLedger {
    PostgresLedger::create_or_open(&server.url().parse().unwrap(), &identity(), unix_s).await.unwrap()
}

fn device(world: &World, name: &str) -> Vec<Record> {
    vec![Record::Device(DeviceRecord { name: name.into(), ..world.ledger.facts().devices[0].clone() })]
}

#[tokio::test]
async fn it_is_looked_at_before_it_is_opened() {
    let Some(server) = Server::start() else { return };
    let url: DatabaseUrl = server.url().parse().unwrap();
    let nothing = Look { has_run: false, key: None, versions: 0 };
    assert_eq!(PostgresLedger::look(&url).await.unwrap(), nothing);
    assert!(matches!(PostgresLedger::open_to_read(&url).await, Err(LedgerError::NoRun(_))));
    assert_eq!(server.psql("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'"), "0");
    let ledger = open(&server, 1).await;
    assert_eq!(PostgresLedger::look(&url).await.unwrap(), Look { has_run: true, ..nothing });
    for _ in 0..2 {
        ledger.adopt_key(DeviceId([7; 32])).await.unwrap();
    }
    let other = ledger.adopt_key(DeviceId([8; 32])).await;
    assert!(matches!(&other, Err(LedgerError::OtherKey(known)) if known == "07070707"), "{other:?}");
    assert_eq!(PostgresLedger::look(&url).await.unwrap().key, Some([7; 32]));
    let other_run = RunIdentity { manifest_hash: BlobHash([3; 32]), ..identity() };
    assert!(matches!(PostgresLedger::create_or_open(&url, &other_run, 1).await, Err(LedgerError::OtherData)));
    assert_eq!(PostgresLedger::open_to_read(&url).await.unwrap().identity(), &identity());
    server.psql("DROP TABLE lost_deltas");
    assert!(matches!(PostgresLedger::look(&url).await, Err(LedgerError::ForeignDatabase(_))));
}

#[tokio::test]
async fn a_bad_row_names_itself_and_the_rest_goes_on() {
    let Some(server) = Server::start() else { return };
    let ledger = open(&server, 1).await;
    let (world, shards) = eventful();
    for records in &world.commits {
        ledger.commit(records).await.unwrap();
    }
    let whole = ledger.snapshot(&shards).await.unwrap();
    server.psql("UPDATE deltas SET train_ms = -1 WHERE seq = 3; UPDATE deltas SET weight = 'Infinity' WHERE seq = 5");
    let facts = ledger.facts().await.unwrap();
    let told: Vec<String> = facts.set_aside.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["row 3 of deltas: train_ms is negative", "row 5 of deltas: weight is not a finite number"]);
    let after = ledger.snapshot(&shards).await.unwrap();
    assert_eq!((after.last_seq, after.tokens, after.versions), (whole.last_seq, whole.tokens, whole.versions));
}

#[tokio::test]
async fn a_server_that_goes_away_is_named_and_nothing_is_lost_when_it_is_back() {
    let Some(mut server) = Server::start() else { return };
    let (ledger, (world, shards)) = (open(&server, 1).await, eventful());
    let (first, rest) = world.commits.split_at(world.commits.len() / 2);
    for records in first {
        ledger.commit(records).await.unwrap();
    }
    let before = ledger.snapshot(&shards).await.unwrap();
    server.kill();
    let begun = Instant::now();
    let away = ledger.commit(&rest[0]).await.unwrap_err();
    assert!(matches!(away, LedgerError::Away { .. }) && away.may_pass(), "{away:?}");
    assert!(begun.elapsed() < 3 * ANSWER_MAX);
    server.go_on();
    assert_eq!(ledger.snapshot(&shards).await.unwrap(), before);
    for records in rest {
        ledger.commit(records).await.unwrap();
    }
    assert_eq!(ledger.facts().await.unwrap(), world.ledger.facts());
}

/// The server answers nothing any more once a commit is sent: it may stand or not. Trying again writes it once.
#[tokio::test]
async fn a_commit_whose_end_was_not_heard_is_written_once() {
    let Some(server) = Server::start() else { return };
    let ((world, _), ledger) = (eventful(), open(&server, 1).await);
    let (beginning, more) = (device(&world, "a name"), device(&world, "a newer name"));
    for stands in [true, false] {
        ledger.commit(&beginning).await.unwrap();
        let number = server.psql("SELECT commits FROM run").parse::<i64>().unwrap();
        // As the other end of a line that broke has it.
        let unheard = if stands { number } else { number + 1 };
        *ledger.dialect.last.lock().await =
            Last::Unheard { number: unheard, records: more.clone(), more: Counters::default() };
        let name = if stands { "written by the unheard one" } else { "before it" };
        server.psql(&format!("UPDATE devices SET name = '{name}'"));
        // What is counted meanwhile makes no difference.
        ledger.add_counters(Counters { bytes_up: 1, bytes_down: 1 }).await.unwrap();
        ledger.commit(&more).await.unwrap();
        let is_written = server.psql("SELECT name FROM devices LIMIT 1");
        assert_eq!(is_written, if stands { "written by the unheard one" } else { "a newer name" });
        // Asked for anew, it is another commit.
        ledger.commit(&more).await.unwrap();
        assert_eq!(server.psql("SELECT name FROM devices LIMIT 1"), "a newer name");
    }
}

#[tokio::test]
async fn each_statement_opens_with_its_name() {
    let Some(server) = Server::start() else { return };
    server.psql("ALTER SYSTEM SET log_statement = 'all'");
    server.psql("ALTER SYSTEM SET logging_collector = on");
    let (mut server, world) = (server, eventful().0);
    server.kill();
    server.go_on();
    let ledger = open(&server, 1).await;
    for records in &world.commits {
        ledger.commit(records).await.unwrap();
    }
    let log = server.psql("SELECT pg_read_file(pg_current_logfile())");
    let ours: Vec<&str> = log.lines().filter(|line| line.contains("INSERT INTO") && line.contains("execute")).collect();
    assert!(ours.len() > 20, "{log}");
    let nameless: Vec<&&str> = ours.iter().filter(|line| !line.contains("/* ") && !line.contains("_sqlx")).collect();
    assert!(nameless.is_empty(), "{nameless:?}");
}
