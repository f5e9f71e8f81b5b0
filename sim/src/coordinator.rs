//! The coordinator's process: the engine and publisher that ship. It is killed between any two effects; what the ledger
//! committed and the disk synced is all that it starts from again.

use crate::{setup::Setup, storage::Storage};
use nightjar_coordinator::{
    engine::{
        Engine,
        event::{Action, Event, ReplyTo},
        group::Group,
        record::{DeltaRecord, EvaluationRecord, Record, VersionRecord},
    },
    replay,
    store::{Measure, Publisher, Shards},
};
use nightjar_shared::{
    rng,
    run_spec::RunSpec,
    time::{Mono, Wall},
    version::Weights,
    wire::{UploadFrom, coordinator_message as answer},
};
use std::collections::VecDeque;

/// The process was killed before or after this effect.
#[derive(Debug, PartialEq, Eq)]
pub struct Killed;

/// Whether a process is killed at a place between two effects.
pub type Killer<'k> = &'k mut dyn FnMut(&'static str) -> bool;

/// What left the process in one turn, even if it was killed at the end of it.
#[derive(Default)]
pub struct Out {
    /// Answers on their way to devices.
    pub replies: Vec<(ReplyTo, answer::Body)>,
    /// Deltas that were committed.
    pub merged: Vec<DeltaRecord>,
    /// Versions that were committed.
    pub versions: Vec<VersionRecord>,
    /// Measurements that were committed.
    pub evaluations: Vec<EvaluationRecord>,
}

/// A running coordinator.
pub struct Coordinator {
    /// The engine that ships.
    pub engine: Engine,
    /// `None` in cost mode.
    publisher: Option<Publisher>,
    spec: RunSpec,
}

impl Coordinator {
    /// Starts: raises the generation, merges again what no checkpoint has, restores the engine.
    pub fn start(
        setup: &Setup,
        storage: &mut Storage,
        now: Mono,
        kill: Killer<'_>,
        out: &mut Out,
    ) -> Result<Self, Killed> {
        let (spec, manifest) = (setup.spec.clone(), setup.dataset.manifest.clone());
        let generation = storage.open(wall(now).unix_ms / 1000);
        let publisher = match storage {
            Storage::Sizes(_) => None,
            Storage::Bytes(whole) => {
                let merger =
                    replay::recover(&spec, &whole.ledger.facts().lineage, &whole.blobs(), || setup.start_weights())
                        .expect("a start finds all that it needs");
                Some(Publisher::new(merger, whole.blobs()).remembering(&whole.ledger.facts().lineage.versions))
            }
        };
        let snapshot = storage.snapshot(&Shards::of(&manifest, spec.inner.batch_samples));
        let (engine, actions) = Engine::restore(spec.clone(), manifest, setup.run_id(), generation, snapshot, now);
        let mut coordinator = Coordinator { engine, publisher, spec };
        coordinator.perform(actions, storage, now, kill, out)?;
        Ok(coordinator)
    }

    /// The newest version's weights; `None` in cost mode.
    pub fn weights(&self) -> Option<&Weights> {
        self.publisher.as_ref().map(Publisher::weights)
    }

    /// Hands events to the engine, whose turns share a commit, and performs all that follows, in order.
    pub fn handle(
        &mut self,
        events: Vec<Event>,
        storage: &mut Storage,
        now: Mono,
        kill: Killer<'_>,
        out: &mut Out,
    ) -> Result<(), Killed> {
        let mut group = Group::<Action>::default();
        for event in events {
            group.add(self.engine.handle(event, now, wall(now)));
        }
        let commit = (!group.records().is_empty()).then(|| Action::Commit(group.records().to_vec()));
        let effects = group.into_turns().flat_map(|(_, effects)| effects);
        self.perform(commit.into_iter().chain(effects).collect(), storage, now, kill, out)
    }

    fn perform(
        &mut self,
        actions: Vec<Action>,
        storage: &mut Storage,
        now: Mono,
        kill: Killer<'_>,
        out: &mut Out,
    ) -> Result<(), Killed> {
        let mut queue = VecDeque::from(actions);
        while let Some(action) = queue.pop_front() {
            if kill(fail_point(&action)) {
                return Err(Killed);
            }
            let follows = match action {
                Action::Commit(records) => {
                    storage.commit(&records);
                    out.note(records);
                    None
                }
                Action::Reply { to, body } => {
                    out.replies.push((to, body));
                    None
                }
                // Nobody in the simulated world gives orders.
                Action::Obeyed { .. } => None,
                Action::MeasureDelta { to, device, offer } => {
                    let measure = match storage {
                        Storage::Sizes(tally) => tally.measure(&offer),
                        Storage::Bytes(whole) => whole
                            .blobs()
                            .measure(&self.spec, offer.trained.delta)
                            .expect("the simulated disk never fails"),
                    };
                    match measure {
                        Measure::Missing { have } => {
                            out.replies.push((to, answer::Body::Upload(UploadFrom { offset: have })));
                            None
                        }
                        Measure::Done(measured) => Some(Event::DeltaMeasured { reply_to: to, device, offer, measured }),
                    }
                }
                Action::Merge(order) => {
                    if let Some(publisher) = &mut self.publisher {
                        publisher.merge(&order).expect("a delta in the ledger can be merged");
                    }
                    None
                }
                Action::Publish { version, keyframe, through_seq, given } => {
                    let published = match (&mut self.publisher, &mut *storage) {
                        (None, Storage::Sizes(tally)) => tally.publish(version, keyframe, through_seq),
                        (Some(publisher), _) => {
                            publisher.publish(version, keyframe, given).expect("the simulated disk never fails")
                        }
                        (None, Storage::Bytes(_)) => unreachable!("a coordinator with bytes has a publisher"),
                    };
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

impl Out {
    fn note(&mut self, records: Vec<Record>) {
        for record in records {
            match record {
                Record::Delta(delta) => self.merged.push(delta),
                Record::Version(version) => self.versions.push(version),
                Record::Evaluation(evaluation) => self.evaluations.push(evaluation),
                _ => {}
            }
        }
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
        Action::Reply { .. } | Action::Obeyed { .. } => "coordinator.reply",
        Action::MeasureDelta { .. } => "coordinator.measure",
        Action::Merge(_) => "coordinator.merge",
        Action::Publish { .. } => "coordinator.publish",
    }
}
