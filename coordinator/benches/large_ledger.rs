//! What a ledger of many leases costs: makes one through the real schema, and measures what a start, `stats` and `verify`
//! take of it, each in a process of its own (Linux, which tells what a process took).
//!
//! ```text
//! cargo bench --profile dev -p nightjar-coordinator --bench large_ledger -- --leases 1000000 --folder /tmp/large
//! cargo bench --profile dev -p nightjar-coordinator --bench large_ledger -- --leases 1000000 --postgres
//! ```
//!
//! Of twenty leases sixteen are merged into one version, one is returned, one expires, one is screened out, and one measures a
//! loss. There are a device for 500 leases and twelve epochs, and the newest leases are open. No blob is made.

#[path = "../tests/serve/database.rs"]
mod database;

use clap::Parser;
use nightjar_coordinator::{
    engine::Engine,
    replay::Rows,
    server::{history::History, run_identity},
    store::{DatabaseUrl, Ledger, LedgerPlace, OpenLedger, PostgresLedger, Shards, SqliteLedger, look::Depth},
};
use nightjar_shared::{
    ids::{BlobHash, DeviceId, Version},
    run_spec::RunSpec,
    shard::{Manifest, ShardInfo},
    time::{Mono, Wall},
};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};
use std::{error::Error, fs, path::PathBuf, process::Command, time::Instant};

/// Samples of a lease; of a shard; tokens of a sample.
const LEASE: u64 = 32;
const SHARD: u64 = 1000 * LEASE;
const CONTEXT: u32 = 128;
/// Leases of a version, and how many of them are merged.
const OF_VERSION: u64 = 20;
const MERGED: u64 = 16;
const EPOCHS: u64 = 12;
/// Leases that one statement makes.
const AT_ONCE: u64 = 200_000;
/// When the run began, in milliseconds since the Unix epoch, and how often a lease is issued.
const BEGAN_MS: u64 = 1_700_000_000_000;
const EVERY_MS: u64 = 5;

/// Measure what a ledger of many leases costs
#[derive(Parser)]
struct Options {
    /// How many leases
    #[arg(long, value_name = "N")]
    leases: Option<u64>,
    /// Where the ledger is made; it stays there, and is measured again by the next call
    #[arg(long, value_name = "DIR", default_value = "/tmp/large_ledger")]
    folder: PathBuf,
    /// In a PostgreSQL server that is started for it, and ends with it
    #[arg(long)]
    postgres: bool,
    /// What to measure in this process: the bench calls itself
    #[arg(long, value_name = "WHAT", hide = true)]
    measure: Option<String>,
    /// The server's address
    #[arg(long, value_name = "URL", hide = true)]
    url: Option<DatabaseUrl>,
    /// Cargo says that it is a bench
    #[arg(long, hide = true)]
    bench: bool,
}

type Done<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Done {
    let options = Options::parse();
    let Some(leases) = options.leases else {
        println!(
            "say how many leases: cargo bench --profile dev -p nightjar-coordinator --bench large_ledger -- --leases 1000000"
        );
        return Ok(());
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match &options.measure {
            Some(what) => measure(&options, what, leases).await,
            None => measure_all(&options, leases).await,
        }
    })
}

/// A run whose epochs have so many leases that there are about [`EPOCHS`].
fn run(leases: u64) -> (RunSpec, Manifest) {
    let mut spec = RunSpec::new("large", u64::MAX >> 1);
    (spec.inner.batch_samples, spec.model.max_position_embeddings) = (4, CONTEXT);
    let samples = (leases * MERGED / OF_VERSION / EPOCHS * LEASE).max(SHARD);
    let shard = |n: u64| ShardInfo {
        hash: BlobHash::of(&n.to_le_bytes()),
        bytes: 1,
        samples: SHARD.min(samples - n * SHARD) as u32,
        text_bytes: 1,
    };
    let manifest = Manifest {
        format: 1,
        context: CONTEXT,
        vocab_size: 256,
        tokenizer: Some(BlobHash([1; 32])),
        end_of_text: None,
        train: (0..samples.div_ceil(SHARD)).map(shard).collect(),
        heldout: vec![shard(0)],
    };
    (spec, manifest)
}

fn place(options: &Options) -> LedgerPlace {
    match &options.url {
        Some(url) => LedgerPlace::Database(url.clone()),
        None => LedgerPlace::File(options.folder.join("ledger.sqlite")),
    }
}

async fn measure_all(options: &Options, leases: u64) -> Done {
    let mut server = if options.postgres { database::Database::start() } else { None };
    let url = server.as_ref().map(database::Database::url);
    fs::create_dir_all(&options.folder)?;
    let (spec, manifest) = run(leases);
    let identity = run_identity(&spec, &manifest);
    fs::write(options.folder.join("manifest.json"), serde_json::to_string(&manifest)?)?;
    let begun = Instant::now();
    let path = options.folder.join("ledger.sqlite");
    let bytes: u64 = match &mut server {
        Some(server) => {
            let address: DatabaseUrl = server.url().parse()?;
            PostgresLedger::create_or_open(&address, &identity, 1).await?.close().await;
            for statement in statements(leases, &Words::postgres()) {
                server.psql(&statement);
            }
            server.psql("VACUUM ANALYZE");
            // Nothing is in its memory when it is measured.
            server.psql("CHECKPOINT");
            server.kill();
            server.go_on();
            server.psql("SELECT pg_database_size(current_database())").parse()?
        }
        None => {
            if !path.exists() {
                SqliteLedger::create_or_open(&path, &identity, 1).await?.close().await;
                let mut database = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await?;
                let quick = "PRAGMA foreign_keys = OFF; PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF;
                             PRAGMA cache_size = -200000";
                sqlx::raw_sql(quick).execute(&mut database).await?;
                for statement in statements(leases, &Words::sqlite()) {
                    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut database).await?;
                }
                sqlx::raw_sql("PRAGMA journal_mode = WAL").execute(&mut database).await?;
                database.close().await?;
            }
            fs::metadata(&path)?.len()
        }
    };
    println!(
        "{leases} leases, {} devices, {} shards, {} bytes a lease; made in {:.0} s",
        devices(leases),
        manifest.train.len(),
        bytes / leases,
        begun.elapsed().as_secs_f64()
    );
    // The first start adds up what was written behind the ledger's back, as after an upgrade.
    for what in ["first start", "start", "stats", "verify"] {
        let mut child = if what == "stats" && url.is_none() {
            let mut stats = Command::new(env!("CARGO_BIN_EXE_nightjar-coordinator"));
            stats.arg("stats").arg("--state").arg(&options.folder).arg("--data").arg(&options.folder);
            stats
        } else {
            let mut own = Command::new(std::env::current_exe()?);
            own.args(["--leases", &leases.to_string(), "--measure", what, "--folder"]).arg(&options.folder);
            if let Some(url) = &url {
                own.args(["--url", url]);
            }
            own
        };
        let (before, begun) = (children_s()?, Instant::now());
        let done = child.output()?;
        let (wall_s, cpu_s) = (begun.elapsed().as_secs_f64(), children_s()? - before);
        let printed = String::from_utf8_lossy(&done.stdout);
        let told: Vec<&str> = printed.lines().filter(|line| line.starts_with('#')).collect();
        println!("{what:<12} {wall_s:>6.1} s, {cpu_s:>6.1} CPU s  {}", told.join(" "));
        if !done.status.success() {
            return Err(String::from_utf8_lossy(&done.stderr).into_owned().into());
        }
    }
    Ok(())
}

/// CPU time of all children that have ended, in seconds: two fields of /proc/self/stat, in hundredths.
fn children_s() -> Done<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks = fields.skip(13).take(2).map(|field| field.parse::<f64>()).sum::<Result<f64, _>>()?;
    Ok(ticks / 100.0)
}

/// This process's largest memory, as the system saw it.
fn peak() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("unknown").trim().to_owned()
}

async fn measure(options: &Options, what: &str, leases: u64) -> Done {
    let (spec, manifest) = run(leases);
    match what {
        "verify" => {
            let OpenLedger { ledger, .. } = place(options).open_to_read().await?;
            let mut rows = Rows::new(&spec, &manifest);
            ledger.go_through(&mut |piece| rows.take(&piece)).await?;
            for check in rows.checks() {
                println!("{} {}: {}", check.passed, check.name, check.detail);
                assert!(check.passed, "{}: {}", check.name, check.detail);
            }
            ledger.check_sums().await??;
        }
        "stats" => {
            let OpenLedger { ledger, .. } = place(options).open_to_read().await?;
            let mut counted = 0;
            ledger.go_through(&mut |piece| counted += piece.leases.len()).await?;
            assert_eq!(counted as u64, leases);
        }
        _ => start(options, spec, manifest).await?,
    }
    println!("# {}", peak());
    Ok(())
}

/// As the server opens a ledger, step by step.
async fn start(options: &Options, spec: RunSpec, manifest: Manifest) -> Done {
    let (place, mut begun) = (place(options), Instant::now());
    let mut step = |name: &str| {
        println!("# {name} {:.0} ms,", begun.elapsed().as_secs_f64() * 1e3);
        begun = Instant::now();
    };
    place.check(Depth::Quick).await?;
    place.look().await?;
    step("look");
    let identity = run_identity(&spec, &manifest);
    let OpenLedger { ledger, identity, .. } = place.take_over(&identity, DeviceId([1; 32]), 1).await?;
    step("take over");
    let shards = Shards::of(&manifest, spec.inner.batch_samples);
    ledger.catch_up(&shards, &|_, _| ()).await?;
    step("sums");
    assert!(ledger.end_unfit_leases(&shards, Wall::default()).await?.is_empty());
    step("open leases");
    let snapshot = ledger.snapshot(&shards).await?;
    ledger.counters().await?;
    step("snapshot");
    let newest = snapshot.versions.last().map_or(0, |v| v.version.0);
    let lineage = ledger.lineage(Version(newest - newest % 64)).await?;
    step("lineage");
    let history = History::taken_up(&lineage, &ledger.curves().await?);
    step("curves");
    let names = snapshot.merged_blobs.iter().rev().take(20_000).copied().collect();
    let unnamed = ledger.unnamed(names, Wall { unix_ms: i64::MAX as u64 }).await?;
    assert!(unnamed.blobs.is_empty());
    step("20,000 names");
    let (devices, generation) = (snapshot.devices.len(), ledger.generation());
    let (engine, _) = Engine::restore(spec, manifest, identity.run_id, generation, snapshot, Mono::default());
    step("engine");
    println!("{devices} devices, {} points, {:?}", history.versions.len(), engine.status().version);
    ledger.close().await;
    Ok(())
}

/// What the dialects say otherwise: 32 bytes of a device's number, and of a blob's.
struct Words {
    device: &'static str,
    blob: &'static str,
}

impl Words {
    fn sqlite() -> Self {
        Words { device: "CAST(printf('%032d', N) AS BLOB)", blob: "randomblob(32)" }
    }

    fn postgres() -> Self {
        Words {
            device: "convert_to(lpad(CAST(N AS TEXT), 32, '0'), 'UTF8')",
            blob: "decode(md5(random()::text) || md5(random()::text), 'hex')",
        }
    }

    fn device(&self, number: &str) -> String {
        self.device.replace('N', number)
    }
}

fn devices(leases: u64) -> u64 {
    (leases / 500).max(2)
}

/// The rows, in pieces. A lease's place among twenty says what becomes of it.
fn statements(leases: u64, words: &Words) -> impl Iterator<Item = String> + '_ {
    let (devices, versions) = (devices(leases), leases / OF_VERSION);
    let (of_epoch, of_shard) = (leases * MERGED / OF_VERSION / EPOCHS, SHARD / LEASE);
    let of_epoch = of_epoch.max(of_shard);
    let open_from = leases - devices / 2;
    let numbers = |from: u64, until: u64| {
        format!(
            "WITH RECURSIVE numbers(n) AS (SELECT CAST({from} AS BIGINT) UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < {until})"
        )
    };
    let enrolled = move || {
        let (n, id) = (numbers(0, devices), words.device("n"));
        format!(
            "{n} INSERT INTO devices SELECT {id}, 'device ' || n, 'flex', 1, {id}, {BEGAN_MS}, 1000.0, 0 FROM numbers"
        )
    };
    // Of lease `id`: its place among twenty, and how many merged ones came before it.
    let place = format!("((id - 1) % {OF_VERSION})");
    let nth = format!("((id - 1) / {OF_VERSION} * {MERGED} + CASE WHEN {place} < 4 THEN 0 ELSE {place} - 4 END)");
    let is_open = format!("(id > {open_from} AND {place} >= 4)");
    let pieces = (0..leases.div_ceil(AT_ONCE)).flat_map(move |piece| {
        let (from, until) = (piece * AT_ONCE + 1, ((piece + 1) * AT_ONCE).min(leases) + 1);
        let n = numbers(from, until);
        let device = words.device(&format!("(id % {devices})"));
        let blob = words.blob;
        let issued = format!(
            "{n} INSERT INTO leases SELECT id, 1, {device}, CASE WHEN {place} = 0 THEN 'evaluate' ELSE 'train' END,
                 (id - 1) / {OF_VERSION}, {nth} / {of_epoch}, {nth} % {of_epoch} / {of_shard},
                 {nth} % {of_epoch} % {of_shard} * {LEASE}, {LEASE}, 8, {BEGAN_MS} + id * {EVERY_MS},
                 CASE WHEN {is_open} THEN NULL WHEN {place} = 0 THEN 'evaluated' WHEN {place} = 1 THEN 'expired'
                      WHEN {place} = 2 THEN 'screened_out' WHEN {place} = 3 THEN 'returned' ELSE 'merged' END,
                 CASE WHEN {place} >= 4 AND NOT {is_open} THEN {LEASE} ELSE 0 END,
                 CASE WHEN {is_open} THEN NULL ELSE {BEGAN_MS} + id * {EVERY_MS} + 60000 END
             FROM (SELECT n AS id FROM numbers) AS ids"
        );
        let merged = format!(
            "{n} INSERT INTO deltas SELECT {nth} + 1, id, {device}, {blob}, 100000, 8, {LEASE} * {CONTEXT}, 0, 1.0, 1.0, 50000, 60000,
                 3.0, 2.9, {BEGAN_MS} + id * {EVERY_MS} + 60000
             FROM (SELECT n AS id FROM numbers) AS ids WHERE {place} >= 4 AND NOT {is_open} ORDER BY id"
        );
        let measured = format!(
            "{n} INSERT INTO evaluations SELECT id, (id - 1) / {OF_VERSION}, 100.0, 40, 40, {BEGAN_MS} + id * {EVERY_MS} + 60000
             FROM (SELECT n AS id FROM numbers) AS ids WHERE {place} = 0"
        );
        [issued, merged, measured]
    });
    let published = (0..versions.div_ceil(AT_ONCE)).flat_map(move |piece| {
        let (from, until) = (piece * AT_ONCE, ((piece + 1) * AT_ONCE).min(versions - devices / 2 / OF_VERSION));
        let (n, blob) = (numbers(from, until), words.blob);
        let published = format!(
            "{n} INSERT INTO versions SELECT n, {blob}, 1000000, CASE WHEN n % 64 = 0 THEN {blob} END,
                 CASE WHEN n % 64 = 0 THEN 8000000 END, {blob}, n * {MERGED}, {BEGAN_MS} + n * {OF_VERSION} * {EVERY_MS} + 70000
             FROM numbers"
        );
        [published, format!("{n} INSERT INTO squashes SELECT n, n - 4, {blob}, 500000 FROM numbers WHERE n >= 4")]
    });
    std::iter::once(enrolled()).chain(pieces).chain(published)
}
