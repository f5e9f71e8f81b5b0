//! The sums that a start goes by: damage to them is noticed, and an older version's ledger gets them.

use super::*;
use crate::store::{Shards, sql::batch::Batch};

async fn caught_up(folder: &tempfile::TempDir, shards: &Shards) -> SqliteLedger {
    let sqlite = open(folder, 1).await;
    sqlite.catch_up(shards, &|_, _| ()).await.unwrap();
    sqlite
}

#[tokio::test]
async fn sums_that_are_not_what_was_written_are_made_anew() {
    let (world, shards) = eventful();
    let model = world.ledger.snapshot(&shards);
    for damage in [
        "UPDATE device_sums SET tokens = tokens + 1",
        "UPDATE device_sums SET last_generation = 77 WHERE device = (SELECT max(device) FROM device_sums)",
        "DELETE FROM device_sums WHERE device = (SELECT min(device) FROM device_sums)",
        "UPDATE epoch_sums SET merged = x'00'",
        "UPDATE epoch_sums SET samples = samples + 2 WHERE epoch = (SELECT max(epoch) FROM epoch_sums)",
        "DELETE FROM epoch_sums WHERE epoch = 0",
        "INSERT INTO epoch_sums VALUES (99, 0, x'')",
        "UPDATE sums SET tokens = 0",
        "UPDATE sums SET through_seq = through_seq + 1",
        "UPDATE sums SET digest = x'00'",
        "DELETE FROM sums",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let sqlite = open_ledger(&folder, &world).await;
        let damaged = sqlx::query(sqlx::AssertSqlSafe(damage)).execute(&sqlite.dialect.pool).await.unwrap();
        assert!(damaged.rows_affected() > 0, "{damage}");
        assert!(sqlite.check_sums().await.unwrap().is_err(), "{damage}");
        sqlite.close().await;
        let sqlite = caught_up(&folder, &shards).await;
        assert_eq!(sqlite.check_sums().await.unwrap().err(), None, "{damage}");
        assert_eq!(sqlite.snapshot(&shards).await.unwrap(), model, "{damage}");
    }
}

#[tokio::test]
async fn rows_that_the_sums_do_not_know_are_told_by_verify() {
    let (world, shards) = eventful();
    for damage in [
        "UPDATE deltas SET tokens = tokens + 1 WHERE seq = 2",
        "UPDATE deltas SET device = (SELECT max(id) FROM devices) WHERE seq = 2",
        "UPDATE leases SET samples_used = samples_used - 2 WHERE id = (SELECT lease FROM deltas WHERE seq = 2)",
        "UPDATE version_sums SET tokens = tokens + 1 WHERE version = 2",
        "DELETE FROM version_sums WHERE version = 2",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let sqlite = open_ledger(&folder, &world).await;
        sqlite.catch_up(&shards, &|_, _| ()).await.unwrap();
        assert_eq!(sqlite.check_sums().await.unwrap().err(), None);
        sqlx::query(sqlx::AssertSqlSafe(damage)).execute(&sqlite.dialect.pool).await.unwrap();
        assert!(sqlite.check_sums().await.unwrap().is_err(), "{damage}");
    }
}

/// Before there were sums.
#[tokio::test]
async fn a_ledger_of_an_earlier_version_is_added_up_at_its_first_start() {
    let (world, shards) = eventful();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    let pool = connect(&path).await.unwrap();
    // Without sums; but today's rows have public names, and what versions were given.
    let older = migrations().iter().filter(|step| step.version < 5 || step.version > 7).cloned().collect();
    Migrator::with_migrations(older).run(&pool).await.unwrap();
    let mut tx = pool.begin().await.unwrap();
    sql::take_over(&mut tx, &identity(), 1).await.unwrap();
    for records in &world.commits {
        Batch::of(records).unwrap().write(&mut tx).await.unwrap();
    }
    tx.commit().await.unwrap();
    pool.close().await;

    let reader = SqliteLedger::open_to_read(&path).await.unwrap();
    assert_eq!(reader.facts().await.unwrap(), world.ledger.facts(), "it is looked at as it is");
    assert!(reader.check_sums().await.unwrap().is_ok());
    reader.close().await;
    let sqlite = caught_up(&folder, &shards).await;
    assert_eq!(sqlite.snapshot(&shards).await.unwrap(), world.ledger.snapshot(&shards));
    assert_eq!(sqlite.check_sums().await.unwrap().err(), None);
    assert_eq!(sqlite.curves().await.unwrap(), Ledger::curves(&world.ledger).await.unwrap());
}

/// A commit writes its records whatever became of the sums.
#[tokio::test]
async fn damaged_sums_hold_up_no_commit() {
    let (world, shards) = eventful();
    for damage in ["UPDATE epoch_sums SET merged = x'00'", "UPDATE sums SET digest = x'00'"] {
        let folder = tempfile::tempdir().unwrap();
        let sqlite = open(&folder, 1).await;
        let (first, rest) = world.commits.split_at(world.commits.len() / 2);
        for records in first {
            sqlite.commit(records).await.unwrap();
        }
        sqlx::query(sqlx::AssertSqlSafe(damage)).execute(&sqlite.dialect.pool).await.unwrap();
        for records in rest {
            sqlite.commit(records).await.unwrap();
        }
        assert_eq!(sqlite.facts().await.unwrap(), world.ledger.facts());
        sqlite.close().await;
        assert_eq!(caught_up(&folder, &shards).await.snapshot(&shards).await.unwrap(), world.ledger.snapshot(&shards));
    }
}
