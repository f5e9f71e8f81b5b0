//! What goes and what stays when the owner's bound is reached.

use super::*;
use nightjar_shared::{
    disk::FolderDisk,
    ids::{Generation, LeaseId, Version},
    lease::LeaseKind,
};

const KIB: u64 = 1 << 10;

struct Fixture {
    _folder: tempfile::TempDir,
    disk: FolderDisk,
    spec: RunSpec,
    journal: Journal,
    lease: Lease,
}

fn blob(name: &str, kib: u64) -> BlobRef {
    BlobRef { hash: BlobHash::of(name.as_bytes()), bytes: kib * KIB }
}

/// A device with a lease of 100 KiB of blobs, and two more shards of 50 KiB.
fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let disk = FolderDisk::open(folder.path()).unwrap();
    let spec = RunSpec { model: tiny(), ..serde_json::from_str(r#"{"name": "x", "token_budget": 9}"#).unwrap() };
    let lease = Lease {
        id: LeaseId(1),
        generation: Generation(1),
        kind: LeaseKind::Train,
        base_version: Version(1),
        base_digest: BlobHash::of(b"base"),
        keyframe: Some(blob("keyframe", 40)),
        updates: vec![],
        shard: blob("shard", 60),
        shard_samples: 9,
        first_sample: 0,
        samples: 9,
        steps: 1,
        progress_tokens: 0,
        progress_tokens_per_step: 1,
        codec: 1,
        ahead_steps: 0,
        ahead_of: None,
    };
    let journal =
        Journal { shards: vec![blob("shard", 60), blob("newer", 50), blob("older", 50)], ..Journal::default() };
    for shard in &journal.shards {
        disk.write(&shard.file(), &vec![0; shard.bytes as usize]).unwrap();
    }
    Fixture { _folder: folder, disk, spec, journal, lease }
}

fn tiny() -> nightjar_shared::model_spec::ModelSpec {
    let tiny = nightjar_shared::model_spec::ModelSpec::tiny();
    nightjar_shared::model_spec::ModelSpec {
        vocab_size: 16,
        hidden_size: 16,
        intermediate_size: 16,
        num_hidden_layers: 1,
        ..tiny
    }
}

impl Fixture {
    fn make_room(&self, bytes_max: u64) -> Space {
        make_room(&self.disk, &self.journal, &self.lease, &self.spec, bytes_max).unwrap()
    }

    /// What the lease and its training take at their worst.
    fn needed(&self) -> u64 {
        100 * KIB + state_bytes(&self.spec)
    }
}

#[test]
fn what_no_lease_needs_goes_oldest_first_and_no_more_than_must() {
    let fixture = fixture();
    let needed = fixture.needed();
    assert_eq!(fixture.make_room(needed + 100 * KIB), Space::Enough { evict: vec![] });
    assert_eq!(fixture.make_room(needed + 60 * KIB), Space::Enough { evict: vec![blob("older", 50).hash] });
    let both = vec![blob("older", 50).hash, blob("newer", 50).hash];
    assert_eq!(fixture.make_room(needed), Space::Enough { evict: both });
}

#[test]
fn caches_and_old_logs_go_before_any_shard() {
    let fixture = fixture();
    for file in ["cache/driver/a", "agent.log.old", "history/2026-01.json.damaged"] {
        fixture.disk.write(file, &vec![0; 20 * KIB as usize]).unwrap();
    }
    for day in 1..=20 {
        fixture.disk.write(&format!("history/2026-01-{day:02}.jsonl"), &vec![0; KIB as usize]).unwrap();
    }
    assert_eq!(used(&fixture.disk).unwrap(), (160 + 60 + 20) * KIB);
    assert_eq!(fixture.make_room(fixture.needed() + (100 + 20) * KIB), Space::Enough { evict: vec![] });
    for file in ["cache/driver/a", "agent.log.old", "history/2026-01.json.damaged"] {
        assert_eq!(fixture.disk.length(file).unwrap(), None, "{file}");
    }
    assert_eq!(history::days(&fixture.disk).unwrap().len(), 20, "no more went than had to");
    // Then days, but never the last week's.
    assert_eq!(fixture.make_room(fixture.needed() + 108 * KIB), Space::Enough { evict: vec![] });
    assert_eq!(history::days(&fixture.disk).unwrap().first().unwrap(), "history/2026-01-13.jsonl");
}

#[test]
fn a_lease_that_cannot_fit_says_what_is_missing_and_costs_nothing() {
    let fixture = fixture();
    let Space::Short(why) = fixture.make_room(fixture.needed() - 1) else { panic!("it fits") };
    assert!(why.contains("it lacks 1 MiB") && why.contains("prefs set quota_mib_max"), "{why}");
    assert!(fixture.disk.length(&blob("older", 50).file()).unwrap().is_some());
}

#[test]
fn without_a_lease_only_what_nobody_needs_goes() {
    let fixture = fixture();
    fixture.disk.write("cache/a", &vec![0; 20 * KIB as usize]).unwrap();
    fixture.disk.write("identity.pk8", &[0; 85]).unwrap();
    let evicted = tidy(&fixture.disk, &fixture.journal, 110 * KIB).unwrap();
    assert_eq!(used(&fixture.disk).unwrap(), 160 * KIB + 85);
    assert_eq!(evicted, [blob("older", 50).hash, blob("newer", 50).hash], "the owner has lowered their bound");
    let journal = Journal { lease: Some(fixture.lease.clone()), ..fixture.journal.clone() };
    assert!(
        !tidy(&fixture.disk, &journal, 0).unwrap().contains(&fixture.lease.shard.hash),
        "the lease at hand needs it"
    );
}

/// Whatever a worker or its driver makes, and however deep, is counted, and goes before anything of ours.
#[test]
fn what_a_worker_leaves_below_its_folders_counts_and_goes() {
    let mut fixture = fixture();
    let kib = |n: u64| vec![0; (n * KIB) as usize];
    fixture.disk.write("work/hidden/deep/film", &kib(30)).unwrap();
    fixture.disk.write("cache/driver/deep/a", &kib(20)).unwrap();
    assert_eq!(used(&fixture.disk).unwrap(), (160 + 30 + 20) * KIB);
    // The lease at hand may have left this a moment ago, or be about to.
    fixture.journal.lease = Some(fixture.lease.clone());
    for file in ["work/checkpoint.0", "work/checkpoint.1.new", "work/lease-1.delta", "work/lease-1.optimizer.new"] {
        fixture.disk.write(file, &kib(1)).unwrap();
    }
    for file in ["work/lease-2.delta", "work/film"] {
        fixture.disk.write(file, &kib(1)).unwrap();
    }
    assert!(tidy(&fixture.disk, &fixture.journal, u64::MAX).unwrap().is_empty());
    let left = fixture.disk.list("work").unwrap();
    assert_eq!(left, ["checkpoint.0", "checkpoint.1.new", "lease-1.delta", "lease-1.optimizer.new"]);
    assert!(!fixture.disk.path("work/hidden").exists());
    assert_eq!(used(&fixture.disk).unwrap(), (160 + 20 + 4) * KIB);
}

#[test]
fn a_cache_that_is_out_of_hand_is_made_anew() {
    let fixture = fixture();
    fixture.disk.write("cache/a", b"cached").unwrap();
    tidy(&fixture.disk, &fixture.journal, u64::MAX).unwrap();
    assert_eq!(fixture.disk.list("cache").unwrap(), ["a"]);
    fixture.disk.write(&format!("cache/{}x", "d/".repeat(40)), b"far down").unwrap();
    tidy(&fixture.disk, &fixture.journal, u64::MAX).unwrap();
    assert!(fixture.disk.walk("cache").unwrap().files.is_empty());
    assert!(!fixture.disk.path("cache/d").exists());
}

#[test]
fn a_worker_that_fills_the_disk_is_noticed() {
    let fixture = fixture();
    fixture.disk.write("work/checkpoint.0", &[0; 1000]).unwrap();
    assert_eq!(overgrown(&fixture.disk, &fixture.spec).unwrap(), None);
    // A file with a hole as large as a disk takes no room here.
    let file = std::fs::File::create(fixture.disk.path("work/lease-1.delta")).unwrap();
    file.set_len(1 << 40).unwrap();
    let found = |fixture: &Fixture| overgrown(&fixture.disk, &fixture.spec).unwrap();
    assert_eq!(found(&fixture), Some(Overgrown { folder: "work", bytes: (1 << 40) + 1000, entries: 2 }));
    fixture.disk.clear("work", &[]).unwrap();
    assert_eq!(found(&fixture), None);
    // Empty files are some, too.
    for n in 0..=WORK_ENTRIES_MAX {
        std::fs::File::create(fixture.disk.path(&format!("work/{n}"))).unwrap();
    }
    assert_eq!(found(&fixture).map(|found| found.folder), Some("work"));
    cut_back(&fixture.disk, &fixture.journal, "work").unwrap();
    assert_eq!(found(&fixture), None);
    // What drivers compile lies elsewhere, where the worker may write as well.
    std::fs::create_dir_all(fixture.disk.path("cache/gl")).unwrap();
    let file = std::fs::File::create(fixture.disk.path("cache/gl/x")).unwrap();
    file.set_len(CACHE_BYTES_MAX + 1).unwrap();
    assert_eq!(found(&fixture).map(|found| found.folder), Some("cache"));
    cut_back(&fixture.disk, &fixture.journal, "cache").unwrap();
    assert_eq!(found(&fixture), None);
}

/// What is set aside behind a file's end is no length, and the disk is as full.
#[cfg(target_os = "linux")]
#[test]
fn room_that_a_worker_sets_aside_is_counted() {
    let fixture = fixture();
    fixture.disk.write("work/checkpoint.0", &[0; 1000]).unwrap();
    let file = std::fs::File::options().write(true).open(fixture.disk.path("work/checkpoint.0")).unwrap();
    let set_aside = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, 8 << 20);
    if set_aside.is_ok() {
        assert!(fixture.disk.walk("work").unwrap().bytes() >= 8 << 20);
    }
    assert_eq!(fixture.disk.length("work/checkpoint.0").unwrap(), Some(1000), "its length is what it was");
}
