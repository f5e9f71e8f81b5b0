//! A run that forgets by its rule: what is kept is merged again bit for bit, for what is gone the chain stands, and whoever
//! changes an old row is noticed.

use super::*;
use crate::{
    engine::event::Event,
    replay::{ReplayError, Resumed, resume, since, verify, weights_by_any_way},
    store::{
        Facts, Ledger,
        keeping::{
            Kept, chain,
            pass::{self, Due},
        },
    },
    world::{World, device, manifest, spec},
};
use nightjar_shared::{
    disk::FolderDisk,
    ids::{DeviceId, Version},
    run_spec::KeepSpec,
    time::Wall,
    wire::{HeldWeights, Lease, LeaseRequest, LeaseReturn, coordinator_message::Body, device_message as ask},
};
use std::sync::Arc;

type Change<'a> = &'a dyn Fn(&mut Facts);

struct Run {
    folder: tempfile::TempDir,
    world: World,
    owl: DeviceId,
    rule: KeepSpec,
}

/// A rule of so many versions and deltas.
fn rule(versions: u64, deltas: u64) -> KeepSpec {
    KeepSpec { versions: Some(versions), deltas: Some(deltas), ..KeepSpec::default() }
}

impl Run {
    /// A run of two deltas a version, a keyframe and a checkpoint every fourth.
    fn new(rule: KeepSpec) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let disk = Arc::new(FolderDisk::open(folder.path()).unwrap());
        let mut world = World::with_weights(spec(), manifest(), disk);
        let (publisher, blobs) = world.weights.take().unwrap();
        world.weights = Some((publisher.keeping_checkpoints(), blobs));
        let owl = world.volunteer(1);
        Run { folder, world, owl, rule }
    }

    fn ledger(&self) -> &dyn Ledger {
        &self.world.ledger
    }

    fn blobs(&self) -> &Blobs {
        &self.world.weights.as_ref().unwrap().1
    }

    async fn due(&self) -> Due {
        chain::extend(self.ledger(), self.blobs()).await.unwrap();
        pass::due(self.ledger(), self.blobs(), &self.rule, Wall { unix_ms: u64::MAX >> 1 }).await.unwrap()
    }

    /// As the server does it after each keyframe.
    async fn forget(&mut self) {
        let due = self.due().await;
        self.give_up(&due).await;
        pass::remove_checkpoints(self.blobs(), due.checkpoints).await.unwrap();
    }

    async fn give_up(&mut self, due: &Due) {
        self.lead_away(due.first_version);
        pass::give_up(self.ledger(), due).await.unwrap();
        self.remove().await;
    }

    fn lead_away(&mut self, before: Version) {
        let now = self.world.now;
        assert!(self.world.engine.handle(Event::GivenUp(before), now, Wall::default()).is_empty());
    }

    async fn remove(&self) {
        while pass::remove_page(self.ledger(), self.blobs(), &self.rule, |_| ()).await.unwrap() {}
    }

    fn give_back(&mut self, device: DeviceId, lease: &Lease) {
        let (lease_id, generation) = (lease.id, lease.generation);
        let back = ask::Body::LeaseReturn(LeaseReturn { lease_id, generation, why: String::new() });
        assert!(matches!(self.world.ask(device, back), Body::Done(_)));
    }

    /// Trains so many deltas, and forgets after each.
    async fn train(&mut self, deltas: u64) {
        for _ in 0..deltas {
            let lease = self.world.lease(self.owl);
            assert!(self.world.train(self.owl, &lease, 8.0).merged);
            self.forget().await;
        }
    }

    fn kept(&self) -> Kept {
        self.world.ledger.facts().lineage.kept
    }

    fn failed(&self, facts: &Facts) -> Vec<String> {
        let report = verify(&self.world.spec, &self.world.manifest, facts, self.blobs());
        report.checks.into_iter().filter(|c| !c.passed).map(|c| format!("{}: {}", c.name, c.detail)).collect()
    }

    fn resumed(&self) -> Resumed {
        let facts = self.world.ledger.facts();
        resume(&self.world.spec, &facts.lineage, self.blobs(), || panic!("there is a version")).unwrap()
    }
}

/// The blobs that a lease leads over.
fn way(lease: &Lease) -> Vec<BlobHash> {
    let all = lease.keyframe.iter().chain(lease.updates.iter().flat_map(|u| &u.update));
    all.map(|blob| blob.name().unwrap()).collect()
}

#[tokio::test]
async fn a_run_that_forgets_is_proved_from_what_it_keeps() {
    let mut run = Run::new(KeepSpec { milestones: Some(8), ..rule(6, 12) });
    run.train(81).await;
    let facts = run.world.ledger.facts();
    assert_eq!(run.failed(&facts), [""; 0]);
    let (kept, newest) = (run.kept(), facts.lineage.versions.last().unwrap().version);
    assert_eq!(newest, Version(40));
    assert!(kept.first_version >= Version(28) && kept.after_seq >= 50, "{kept:?}");
    assert_eq!((kept.removed_versions, kept.removed_deltas), (kept.first_version, kept.after_seq));
    let (stored, rows) = (run.blobs().list().unwrap().len(), facts.lineage.deltas.len() + facts.lineage.versions.len());
    assert!(stored < rows / 2, "{stored} blobs of {rows} rows");
    assert!(run.blobs().checkpoints().unwrap().len() < 7);
    assert_eq!(facts.links.last().unwrap().tokens, facts.lineage.deltas[..80].iter().map(|d| d.tokens).sum::<u64>());

    let resumed = run.resumed();
    assert_eq!((resumed.merger.last_seq(), resumed.losses), (81, vec![]));
    assert_eq!(resumed.merger.weights(), run.world.weights.as_ref().unwrap().0.weights());
    // What is kept can be exported, and of the rest milestones and the beginning.
    let has = |v: u64| weights_by_any_way(&run.world.spec, &facts.lineage, run.blobs(), Version(v));
    for v in [0, 8, 16, kept.first_version.0, kept.first_version.0 + 3, 40] {
        assert_eq!(has(v).unwrap().0.digest(), facts.lineage.versions[v as usize].digest, "version {v}");
    }
    let told = has(9).unwrap_err();
    assert!(matches!(&told, ReplayError::Forgotten { version: Version(9), .. }), "{told}");
}

#[tokio::test]
async fn whatever_is_changed_behind_the_chain_is_noticed() {
    let mut run = Run::new(rule(4, 0));
    run.train(40).await;
    let sound = run.world.ledger.facts();
    assert_eq!(run.failed(&sound), [""; 0]);
    assert!(sound.lineage.kept.after_seq > 20 && sound.links.len() == 6);
    let changes: [(&str, Change); 8] = [
        ("a delta's loss", &|f| f.lineage.deltas[1].loss_last += 0.1),
        ("a delta's weight", &|f| f.lineage.deltas[2].weight = 0.5),
        ("a delta's device", &|f| f.lineage.deltas[2].device = device(9)),
        ("when it was merged", &|f| f.lineage.deltas[2].merged_at.unix_ms += 1),
        ("a version's weights", &|f| f.lineage.versions[3].digest[0] ^= 1),
        ("a squash", &|f| f.lineage.versions[4].squashes.clear()),
        ("an old restart", &|f| f.lineage.restarts.push(Version(2))),
        ("a lost delta", &|f| f.lineage.lost_deltas.push(2)),
    ];
    for (what, change) in changes {
        let mut facts = sound.clone();
        change(&mut facts);
        let failed = run.failed(&facts);
        assert!(failed.iter().any(|f| f.contains("chain") && f.contains("are not those")), "{what}: {failed:?}");
    }
    let links: [(&str, Change); 4] = [
        ("its tokens", &|f| f.links[2].tokens += 1),
        ("its checkpoint", &|f| f.links[0].checkpoint.0[0] ^= 1),
        ("itself", &|f| f.links[1].hash[0] ^= 1),
        ("it is gone", &|f| {
            f.links.remove(1);
        }),
    ];
    for (what, change) in links {
        let mut facts = sound.clone();
        change(&mut facts);
        assert!(run.failed(&facts).iter().any(|f| f.contains("chain")), "{what}");
    }
    // Whoever makes the whole chain again makes other bytes of a checkpoint that is there, or another last link.
    let oldest = *run.blobs().checkpoints().unwrap().last().unwrap();
    let file = run.folder.path().join(format!("checkpoints/{oldest}.njc"));
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[60] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let failed = run.failed(&sound);
    assert!(failed.iter().any(|f| f.contains("other bytes than the chain names")), "{failed:?}");
}

#[tokio::test]
async fn a_device_on_its_way_finds_what_it_needs() {
    let mut run = Run::new(rule(1, 0));
    run.train(2).await;
    let other = run.world.volunteer(2);
    let lease = run.world.lease(other);
    let base = Version(lease.base_version);
    for _ in 0..10 {
        run.train(2).await;
        run.world.renew(other, &lease);
    }
    assert!(run.kept().first_version <= base, "the way to version {base} is kept");
    assert!(way(&lease).iter().all(|hash| run.blobs().length(*hash).unwrap().is_some()));
    run.give_back(other, &lease);
    run.train(2).await;
    assert!(run.kept().first_version > base);

    // On its way over versions that are given up now: their blobs stay as long as its lease is open.
    let lease = run.world.lease(other);
    let way = way(&lease);
    let due = Due { first_version: Version(lease.base_version).next(), ..run.due().await };
    run.give_up(&due).await;
    let is_there = |run: &Run| way.iter().filter(|hash| run.blobs().length(**hash).unwrap().is_some()).count();
    assert_eq!(is_there(&run), way.len());
    run.give_back(other, &lease);
    run.remove().await;
    assert_eq!(run.kept().removed_versions, due.first_version);
    assert!(is_there(&run) < way.len());
}

#[tokio::test]
async fn a_device_from_long_ago_begins_at_a_keyframe() {
    let mut run = Run::new(rule(1, 0));
    let digest = |run: &Run, v: usize| run.world.ledger.facts().lineage.versions[v].digest.to_vec();
    run.train(30).await;
    let held = HeldWeights { version: 1, digest: digest(&run, 1) };
    for restarted in [false, true] {
        if restarted {
            run.world.restart();
            run.lead_away(run.kept().first_version);
            run.world.volunteer(1);
        }
        let request = LeaseRequest { held: Some(held.clone()), ..LeaseRequest::default() };
        let Body::Lease(lease) = run.world.ask(run.owl, ask::Body::LeaseRequest(request)) else { panic!("no lease") };
        assert!(lease.keyframe.is_some());
        for hash in way(&lease) {
            assert!(run.blobs().read(hash).is_ok(), "it is sent for a removed blob");
        }
    }
}

#[tokio::test]
async fn nothing_goes_before_what_takes_its_place_is_sound() {
    let mut run = Run::new(KeepSpec::default());
    run.train(31).await;
    run.rule = rule(4, 0);
    // The checkpoints of versions 8 and 12 are the newest; the keyframe of 12 is none to begin at for who starts at 8.
    let facts = run.world.ledger.facts();
    assert_eq!(run.blobs().checkpoints().unwrap(), [12, 8]);
    let sound = run.due().await;
    assert_eq!((sound.first_version, sound.after_seq), (Version(8), 16));
    let [keyframe, checkpoint] = [
        run.folder.path().join(format!("blobs/{}", facts.lineage.versions[8].keyframe.unwrap().hash)),
        run.folder.path().join("checkpoints/8.njc"),
    ];
    for (file, first_version, after_seq) in [(keyframe, 0, 16), (checkpoint, 8, 0)] {
        let whole = std::fs::read(&file).unwrap();
        std::fs::write(&file, b"rotten").unwrap();
        let due = run.due().await;
        assert_eq!((due.first_version, due.after_seq), (Version(first_version), after_seq), "{}", file.display());
        std::fs::write(&file, whole).unwrap();
    }
    assert_eq!(run.due().await, sound);
}

#[tokio::test]
async fn without_any_checkpoint_a_run_that_forgets_goes_on_as_it_was_published() {
    let mut run = Run::new(rule(4, 0));
    run.train(31).await;
    assert!(since(run.blobs()).unwrap() > Version(0));
    for version in run.blobs().checkpoints().unwrap() {
        std::fs::write(run.folder.path().join(format!("checkpoints/{version}.njc")), b"rotten").unwrap();
    }
    let resumed = run.resumed();
    assert_eq!(resumed.merger.weights().digest(), run.world.ledger.facts().lineage.versions.last().unwrap().digest);
    assert_eq!((resumed.restart.unwrap().0, resumed.losses.len()), (Version(15), 1));
    assert!(resumed.losses[0].contains("removed by the rule [keep]"), "{:?}", resumed.losses);
}

#[tokio::test]
async fn a_link_is_made_of_every_page_of_rows() {
    let mut run = Run::new(KeepSpec::default());
    // Longer than the chain is behind at any other time.
    for _ in 0..24 {
        let lease = run.world.lease(run.owl);
        assert!(run.world.train(run.owl, &lease, 8.0).merged);
    }
    chain::extend(run.ledger(), run.blobs()).await.unwrap();
    let facts = run.world.ledger.facts();
    assert_eq!(facts.links.iter().map(|l| l.version.0).collect::<Vec<_>>(), [0, 4, 8, 12]);
    assert_eq!(run.failed(&facts), [""; 0]);
    assert_eq!(BlobHash::of(&run.blobs().checkpoint(8).unwrap().unwrap()), facts.links[2].checkpoint);
}
