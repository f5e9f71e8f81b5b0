//! Rows that cannot be: each names itself and is set aside.

use super::*;

/// A ledger of an earlier build, into which a device had 2⁶⁴ − 1 ms of training written, and worse.
#[tokio::test]
async fn a_bad_row_names_itself_and_the_rest_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let sqlite = open(&folder, 1).await;
    let (world, shards) = eventful();
    for records in &world.commits {
        sqlite.commit(records).await.unwrap();
    }
    let whole = sqlite.facts().await.unwrap();
    let before = sqlite.snapshot(&shards).await.unwrap();
    for damage in [
        "UPDATE deltas SET train_ms = -1 WHERE seq = 3",
        "UPDATE deltas SET loss_last = 9e999 WHERE seq = 4",
        "UPDATE devices SET tokens_per_s = -9e999",
        "UPDATE evaluations SET tokens = -5 WHERE lease = (SELECT min(lease) FROM evaluations)",
        "UPDATE deltas SET weight = 9e999 WHERE seq = 5",
    ] {
        sqlx::query(sqlx::AssertSqlSafe(damage)).execute(&sqlite.dialect.pool).await.unwrap();
    }
    let facts = sqlite.facts().await.unwrap();
    let told: Vec<String> = facts.set_aside.iter().map(ToString::to_string).collect();
    assert!(told.contains(&"row 3 of deltas: train_ms is negative".to_owned()), "{told:?}");
    assert!(told.contains(&"row 5 of deltas: weight is not a finite number".to_owned()), "{told:?}");
    assert!(told.iter().any(|t| t.ends_with("of evaluations: tokens is negative")), "{told:?}");
    assert_eq!(
        facts.lineage.deltas[2],
        crate::engine::record::DeltaRecord { train_ms: 0, ..whole.lineage.deltas[2].clone() },
        "harmless"
    );
    assert_eq!(facts.lineage.deltas.len(), whole.lineage.deltas.len() - 1, "one whose weight is unknown is left out");
    assert_eq!((facts.lineage.versions, facts.leases), (whole.lineage.versions, whole.leases));
    let after = sqlite.snapshot(&shards).await.unwrap();
    assert_eq!((after.last_seq, after.tokens, after.open_leases), (before.last_seq, before.tokens, before.open_leases));
    assert!(after.devices.iter().all(|d| d.record.tokens_per_s == 0.0));
}

/// Each of these ended the start: by a panic, or by what the database says of a sum.
#[tokio::test]
async fn rows_that_give_samples_twice_or_too_many_are_set_aside() {
    let (world, shards) = eventful();
    let merged = world.ledger.facts().leases.iter().filter(|l| l.closed.is_some_and(|c| c.samples_used > 0)).count();
    assert!(merged > 4);
    let one = "WHERE id = (SELECT max(id) FROM leases WHERE kind = 'train' AND outcome = 'merged')";
    let open = "WHERE outcome IS NULL";
    for (set, of, is_told) in [
        ("leases SET shard = 999", one, false),
        ("leases SET shard = 999", open, true),
        ("leases SET first_sample = first_sample + 1", one, false),
        ("leases SET first_sample = first_sample + 1", open, true),
        ("leases SET first_sample = 4294967295", one, false),
        ("leases SET first_sample = 0, shard = 0", "", false),
        ("leases SET samples = 0", open, true),
        ("leases SET samples = 9223372036854775807", open, true),
        ("leases SET samples_used = 4000000000", one, false),
        ("leases SET samples_used = 4000000000", open, false),
        ("leases SET samples_used = 9223372036854775807", "", false),
        ("leases SET samples_used = -9223372036854775807", one, false),
        ("leases SET epoch = 9223372036854775807", one, false),
        ("leases SET epoch = 4294967295", one, false),
        ("leases SET epoch = 4294967295", open, true),
        ("leases SET base_version = -1", open, true),
        ("deltas SET tokens = 4611686018427387904", "WHERE seq > 1", false),
        ("counters SET bytes_up = 9223372036854775807", "", false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let sqlite = open_ledger(&folder, &world).await;
        let damage = format!("UPDATE {set} {of}");
        sqlx::query(sqlx::AssertSqlSafe(damage.clone())).execute(&sqlite.dialect.pool).await.unwrap();
        let unfit = sqlite.end_unfit_leases(&shards, Wall { unix_ms: 9 }).await.unwrap();
        assert_eq!(!unfit.is_empty(), is_told, "{damage}: {unfit:?}");
        let facts = sqlite.facts().await.unwrap();
        assert!(facts.lineage.deltas.iter().map(|d| d.tokens).sum::<u64>() < 1 << 40);
        let snapshot = sqlite.snapshot(&shards).await.unwrap();
        assert!(snapshot.tokens <= world.ledger.snapshot(&shards).tokens, "{damage}");
        let (spec, manifest) = (world.spec.clone(), world.manifest.clone());
        let generation = sqlite.generation();
        Engine::restore(spec, manifest, RunId([1; 32]), generation, snapshot, Mono::default());
        sqlite.add_counters(Counters { bytes_up: 1, bytes_down: 1 }).await.unwrap();
        sqlite.counters().await.unwrap();
        // And again, as the next start does.
        assert!(sqlite.end_unfit_leases(&shards, Wall { unix_ms: 9 }).await.unwrap().is_empty(), "{damage}");
    }
}

/// Nothing is cleared away by what a ledger does not name, as long as one of its names cannot be read.
#[tokio::test]
async fn a_name_that_cannot_be_read_is_told() {
    let (world, _) = eventful();
    for damage in ["UPDATE deltas SET blob = x'00' WHERE seq = 3", "INSERT INTO squashes VALUES (4, 0, x'00', 1)"] {
        let folder = tempfile::tempdir().unwrap();
        let sqlite = open_ledger(&folder, &world).await;
        let unnamed = || sqlite.unnamed([BlobHash([0xee; 32])].into(), Wall { unix_ms: 1 << 50 });
        assert_eq!(unnamed().await.unwrap().blobs.len(), 1);
        sqlx::query(sqlx::AssertSqlSafe(damage)).execute(&sqlite.dialect.pool).await.unwrap();
        assert!(matches!(unnamed().await, Err(LedgerError::Row(_))), "{damage}");
    }
}
