//! What is SQLite's own: the file, its locks, its rows. What every ledger promises is in `store/suite.rs`.

mod bad_rows;
mod sums;

use super::*;
use crate::{
    engine::{
        Engine,
        record::{DeviceRecord, Record},
    },
    store::{Counters, Facts, Ledger, suite::eventful},
    world::World,
};
use nightjar_shared::{
    ids::{BlobHash, DeviceId, RunId},
    time::{Mono, Wall},
};

fn identity() -> RunIdentity {
    RunIdentity { run_id: RunId([1; 32]), spec_json: "{}".into(), manifest_hash: BlobHash([2; 32]) }
}

async fn open(folder: &tempfile::TempDir, unix_s: u64) -> SqliteLedger {
    SqliteLedger::create_or_open(&folder.path().join("ledger.sqlite"), &identity(), unix_s).await.unwrap()
}

#[tokio::test]
async fn what_may_change_in_a_run_is_taken_over_and_its_name_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    let of = |more: &str, id: u8| RunIdentity {
        run_id: RunId([id; 32]),
        spec_json: format!("{{\"name\": \"x\", \"token_budget\": 1000{more}}}"),
        ..identity()
    };
    let first = SqliteLedger::create_or_open(&path, &of("", 1), 1).await.unwrap();
    assert_eq!(first.changes(), [""; 0]);
    first.close().await;
    // Its name would be another, made of what is there now.
    let described = of(", \"description\": \"d\"", 2);
    for changes in [1, 0] {
        let again = SqliteLedger::create_or_open(&path, &described, 1).await.unwrap();
        assert_eq!(again.changes().len(), changes);
        assert_eq!(again.identity(), &RunIdentity { run_id: RunId([1; 32]), ..described.clone() });
        again.close().await;
    }
    let read = SqliteLedger::open_to_read(&path).await.unwrap();
    assert_eq!(read.identity().spec_json, described.spec_json);
    read.close().await;
    let reseeded = SqliteLedger::create_or_open(&path, &of(", \"seed\": 2", 3), 1).await;
    let Err(LedgerError::OtherSpec(why)) = reseeded else { panic!("another seed was taken") };
    assert!(why.contains("seed is 2, was 1"), "{why}");
    // A refusal changes nothing.
    assert_eq!(SqliteLedger::open_to_read(&path).await.unwrap().identity().spec_json, described.spec_json);
}

#[tokio::test]
async fn another_runs_ledger_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    open(&folder, 1).await.close().await;
    let other_spec = RunIdentity { spec_json: "{ }".into(), ..identity() };
    assert!(matches!(SqliteLedger::create_or_open(&path, &other_spec, 1).await, Err(LedgerError::OtherSpec(_))));
    let other_data = RunIdentity { manifest_hash: BlobHash([3; 32]), ..identity() };
    assert!(matches!(SqliteLedger::create_or_open(&path, &other_data, 1).await, Err(LedgerError::OtherData)));
    assert_eq!(SqliteLedger::open_to_read(&path).await.unwrap().identity(), &identity());
    let nowhere = folder.path().join("nowhere.sqlite");
    assert!(matches!(SqliteLedger::open_to_read(&nowhere).await, Err(LedgerError::NotFound(_))));
    assert!(!nowhere.exists(), "looking for it does not create it");
    std::fs::write(&nowhere, vec![7; 8192]).unwrap();
    assert!(matches!(SqliteLedger::create_or_open(&nowhere, &identity(), 1).await, Err(LedgerError::Damaged(_))));
}

#[tokio::test]
async fn the_coordinators_key_is_taken_once_and_then_known() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    let sqlite = open(&folder, 1).await;
    for _ in 0..2 {
        sqlite.adopt_key(DeviceId([7; 32])).await.unwrap();
    }
    let other = sqlite.adopt_key(DeviceId([8; 32])).await;
    assert!(matches!(&other, Err(LedgerError::OtherKey(known)) if known == "07070707"), "{other:?}");
    let newer = open(&folder, 1).await;
    assert!(matches!(sqlite.adopt_key(DeviceId([8; 32])).await, Err(LedgerError::OtherKey(_))));
    newer.close().await;
    sqlite.close().await;
    let looked = look::look(&path).await.unwrap();
    assert_eq!(looked, look::Look { has_run: true, key: Some([7; 32]), versions: 0 });
}

#[tokio::test]
async fn a_file_is_looked_at_before_it_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    assert!(matches!(look::look(&path).await, Err(LedgerError::NotFound(_))));
    let nothing = look::Look { has_run: false, key: None, versions: 0 };
    std::fs::write(&path, "").unwrap();
    assert_eq!(look::look(&path).await.unwrap(), nothing);
    look::check(&path, look::Depth::Quick).await.unwrap();

    // As an older version left it, and as another program's.
    let pool = connect(&path).await.unwrap();
    sqlx::raw_sql(include_str!("migrations/0001_first.sql")).execute(&pool).await.unwrap();
    pool.close().await;
    assert_eq!(look::look(&path).await.unwrap(), nothing);
    let pool = connect(&path).await.unwrap();
    sqlx::raw_sql("INSERT INTO run VALUES (1, x'00', '{}', x'00', 1)").execute(&pool).await.unwrap();
    pool.close().await;
    assert_eq!(look::look(&path).await.unwrap(), look::Look { has_run: true, ..nothing });
    let others = folder.path().join("others.sqlite");
    let pool = connect(&others).await.unwrap();
    sqlx::raw_sql("CREATE TABLE run (kilometres INTEGER)").execute(&pool).await.unwrap();
    pool.close().await;
    let before = std::fs::read_dir(folder.path()).unwrap().count();
    assert!(matches!(look::look(&others).await, Err(LedgerError::Foreign(_))));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), before, "looking leaves nothing behind");
}

#[tokio::test]
async fn damaged_pages_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    let sqlite = open(&folder, 1).await;
    for records in &eventful().0.commits {
        sqlite.commit(records).await.unwrap();
    }
    // Of pages that are free nothing is read.
    sqlx::query("VACUUM").execute(&sqlite.dialect.pool).await.unwrap();
    sqlite.close().await;
    let whole = std::fs::read(&path).unwrap();
    for depth in [look::Depth::Quick, look::Depth::Full] {
        look::check(&path, depth).await.unwrap();
        for page in 1..whole.len() / 4096 {
            let mut bytes = whole.clone();
            bytes[page * 4096..(page + 1) * 4096].fill(0xa5);
            std::fs::write(&path, bytes).unwrap();
            let found = look::check(&path, depth).await;
            assert!(matches!(found, Err(LedgerError::Broken(_) | LedgerError::Damaged(_))), "page {page}: {found:?}");
        }
        std::fs::write(&path, &whole).unwrap();
    }
}

/// Of a large file a start checks what it reads as a whole, and no more.
#[tokio::test]
async fn damage_that_a_start_would_read_is_found_in_a_large_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    let sqlite = open_ledger(&folder, &eventful().0).await;
    let pages = |tables: &'static str| {
        let root = format!("SELECT rootpage FROM sqlite_master WHERE tbl_name IN ({tables}) AND rootpage > 0");
        sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(root)).fetch_all(&sqlite.dialect.pool)
    };
    let small = pages("'devices', 'device_sums', 'epoch_sums', 'sums', 'run', 'counters'").await.unwrap();
    let large = pages("'leases', 'deltas', 'versions'").await.unwrap();
    sqlite.close().await;
    let whole = std::fs::read(&path).unwrap();
    let checked = || look::check_of(&path, look::Depth::Quick, 0);
    checked().await.unwrap();
    for (pages, is_found) in [(small, true), (large, false)] {
        assert!(pages.len() > 4);
        for page in pages {
            let mut bytes = whole.clone();
            bytes[(page as usize - 1) * 4096..page as usize * 4096].fill(0xa5);
            std::fs::write(&path, bytes).unwrap();
            let found = checked().await;
            assert_eq!(found.is_err(), is_found, "page {page}: {found:?}");
        }
    }
    std::fs::write(&path, &whole[..whole.len() - 4096]).unwrap();
    assert!(matches!(checked().await, Err(LedgerError::Broken(_))), "a page is missing at the end");
}

#[tokio::test]
async fn a_full_disk_and_a_locked_file_are_said_plainly() {
    let folder = tempfile::tempdir().unwrap();
    let (sqlite, other) = (open(&folder, 1).await, open(&folder, 1).await);
    let (world, _) = eventful();
    let all: Vec<Record> = world.commits.concat();
    sqlx::query("PRAGMA max_page_count = 1").fetch_all(&other.dialect.pool).await.unwrap();
    let wide = Record::Device(DeviceRecord { name: "x".repeat(1 << 20), ..world.ledger.facts().devices[0].clone() });
    let full = other.commit(&[all.clone(), vec![wide]].concat()).await;
    assert!(matches!(full, Err(LedgerError::DiskFull)), "{full:?}");
    assert_eq!(other.facts().await.unwrap(), Facts::default());
    other.commit(&world.commits[0]).await.expect("it goes on as soon as there is space");
    sqlx::query("PRAGMA busy_timeout = 0").fetch_all(&other.dialect.pool).await.unwrap();
    let writer = sqlite.dialect.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let locked = other.add_counters(Counters { bytes_up: 1, bytes_down: 1 }).await;
    assert!(matches!(locked, Err(LedgerError::Locked)), "{locked:?}");
    drop(writer);
}

async fn open_ledger(folder: &tempfile::TempDir, world: &World) -> SqliteLedger {
    let sqlite = open(folder, 1).await;
    for records in &world.commits {
        sqlite.commit(records).await.unwrap();
    }
    sqlite
}

#[cfg(unix)]
#[tokio::test]
async fn a_ledger_is_read_where_nothing_can_be_written() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (world, _) = eventful();
    let sqlite = open_ledger(&folder, &world).await;
    let facts = sqlite.facts().await.unwrap();
    sqlite.close().await;
    let path = folder.path().join("ledger.sqlite");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o444)).unwrap();
    let before = std::fs::read(&path).unwrap();
    let reader = SqliteLedger::open_to_read(&path).await.unwrap();
    assert_eq!(reader.facts().await.unwrap(), facts);
    assert!(!folder.path().join("ledger.sqlite-wal").exists() && !folder.path().join("ledger.sqlite-shm").exists());
    assert_eq!(std::fs::read(&path).unwrap(), before);
    // A folder in its place: no database opens it.
    let taken = folder.path().join("taken.sqlite");
    std::fs::create_dir(&taken).unwrap();
    let told = SqliteLedger::open_to_read(&taken).await.err().unwrap().to_string();
    assert!(told.contains("taken.sqlite") && !told.contains("(code"), "{told}");
}
