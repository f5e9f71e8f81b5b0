//! The coordinator's process: the engine, ledger, blobs and press that ship. It is killed between any two effects; what
//! the ledger committed and the disk synced is all that it starts from again.

use crate::{disk::SimDisk, scene::Scene};
use nightjar_coordinator::{
    engine::{
        Engine, epoch_samples,
        event::{Action, Event, ReplyTo},
    },
    replay,
    store::{Blobs, Measure, MemoryLedger, Press},
};
use nightjar_shared::{
    ids::BlobHash,
    rng,
    run_spec::RunSpec,
    time::{Mono, Wall},
    wire::{UploadFrom, coordinator_message as answer},
};
use std::{collections::BTreeMap, collections::VecDeque, sync::Arc};

/// An answer on its way to a device.
pub type Reply = (ReplyTo, answer::Body);

/// The process was killed before or after this effect.
#[derive(Debug, PartialEq, Eq)]
pub struct Killed;

/// Whether a process is killed at a place between two effects.
pub type Killer<'k> = &'k mut dyn FnMut(&'static str) -> bool;

/// What survives a kill.
pub struct Estate {
    /// Committed facts.
    pub ledger: MemoryLedger,
    /// Blobs, uploads and checkpoints.
    pub disk: Arc<SimDisk>,
    /// The dataset, which nothing changes.
    pub shards: BTreeMap<BlobHash, Vec<u8>>,
}

impl Estate {
    /// Of a run that has not begun.
    pub fn new(scene: &Scene) -> Self {
        Estate { ledger: MemoryLedger::new(), disk: Arc::new(SimDisk::default()), shards: scene.shards().collect() }
    }

    /// The blob folder.
    pub fn blobs(&self) -> Blobs {
        Blobs::new(self.disk.clone())
    }

    /// Any blob that a device may fetch.
    pub fn blob(&self, hash: BlobHash) -> Option<Vec<u8>> {
        self.shards.get(&hash).cloned().or_else(|| self.blobs().read(hash).ok())
    }
}

/// A running coordinator.
pub struct Coordinator {
    /// The engine that ships.
    pub engine: Engine,
    press: Press,
    spec: RunSpec,
    generation: nightjar_shared::ids::Generation,
}

impl Coordinator {
    /// Starts: raises the generation, merges again what no checkpoint has, restores the engine.
    pub fn start(scene: &Scene, estate: &Estate, now: Mono, kill: Killer<'_>) -> Result<Self, Killed> {
        let (spec, manifest) = (scene.spec(), scene.manifest());
        let generation = estate.ledger.raise(wall(now).unix_ms / 1000);
        let start = || spec.model.draw_all(spec.seed);
        let merger =
            replay::recover(&spec, &estate.ledger.facts(), &estate.blobs(), start).expect("a start finds all that it needs");
        let press = Press::new(merger, estate.blobs());
        let snapshot = estate.ledger.snapshot(epoch_samples(&manifest, spec.inner.batch_samples));
        let (engine, actions) = Engine::restore(spec.clone(), manifest, scene.run_id(), generation, snapshot, now);
        let mut coordinator = Coordinator { engine, press, spec, generation };
        coordinator.perform(actions, estate, now, kill, &mut vec![])?;
        Ok(coordinator)
    }

    /// Hands an event to the engine and performs all that follows, in order. What was answered before a kill is among
    /// the replies: it is out.
    pub fn handle(
        &mut self,
        event: Event,
        estate: &Estate,
        now: Mono,
        kill: Killer<'_>,
        replies: &mut Vec<Reply>,
    ) -> Result<(), Killed> {
        let actions = self.engine.handle(event, now, wall(now));
        self.perform(actions, estate, now, kill, replies)
    }

    fn perform(
        &mut self,
        actions: Vec<Action>,
        estate: &Estate,
        now: Mono,
        kill: Killer<'_>,
        replies: &mut Vec<Reply>,
    ) -> Result<(), Killed> {
        let mut queue = VecDeque::from(actions);
        while let Some(action) = queue.pop_front() {
            if kill(fail_point(&action)) {
                return Err(Killed);
            }
            let follows = match action {
                Action::Commit(records) => {
                    estate.ledger.commit(self.generation, &records).expect("no other coordinator, no full disk");
                    None
                }
                Action::Reply { to, body } => {
                    replies.push((to, body));
                    None
                }
                Action::MeasureDelta { to, device, offer } => {
                    match estate.blobs().measure(&self.spec, &offer).expect("the simulated disk never fails") {
                        Measure::Missing { have } => {
                            replies.push((to, answer::Body::Upload(UploadFrom { offset: have })));
                            None
                        }
                        Measure::Done(measured) => Some(Event::DeltaMeasured { reply_to: to, device, offer, measured }),
                    }
                }
                Action::Merge(order) => {
                    self.press.merge(&order).expect("a delta in the ledger can be merged");
                    None
                }
                Action::Publish { version, keyframe, .. } => {
                    let published = self.press.publish(version, keyframe).expect("the simulated disk never fails");
                    if kill("coordinator.published") {
                        return Err(Killed);
                    }
                    Some(Event::Published(published))
                }
            };
            // What an event leads to comes before what was waiting, as on a call stack.
            for action in follows.into_iter().flat_map(|e| self.engine.handle(e, now, wall(now))).rev() {
                queue.push_front(action);
            }
        }
        Ok(())
    }
}

/// The calendar, as the coordinator's computer shows it: it starts somewhere and sometimes jumps back.
pub fn wall(now: Mono) -> Wall {
    let jump = if rng::draw(7, rng::stream::SIM, now.ms / 60_000).is_multiple_of(5) { 90_000 } else { 0 };
    Wall { unix_ms: 1_800_000_000_000 + now.ms - jump }
}

fn fail_point(action: &Action) -> &'static str {
    match action {
        Action::Commit(_) => "coordinator.commit",
        Action::Reply { .. } => "coordinator.reply",
        Action::MeasureDelta { .. } => "coordinator.measure",
        Action::Merge(_) => "coordinator.merge",
        Action::Publish { .. } => "coordinator.publish",
    }
}
