//! The session's invariants under random events.

use super::*;
use crate::session::Worker;
use nightjar_shared::rng;
use proptest::prelude::*;

/// Plays a coordinator, a worker and an owner who do anything at any time, and checks after each event what must hold.
struct Storm {
    bench: Bench,
    seed: u64,
    draws: u64,
    allowed: bool,
    connected: bool,
    working: Option<u64>,
    frozen: bool,
    asked: Option<(u64, ask::Body)>,
    fetching: Option<BlobHash>,
    uploading: bool,
    leases: u64,
    offered: std::collections::BTreeMap<u64, wire::DeltaOffer>,
}

impl Storm {
    fn new(seed: u64) -> Self {
        Storm {
            bench: Bench::new(Journal::default()),
            seed,
            draws: 0,
            allowed: false,
            connected: false,
            working: None,
            frozen: false,
            asked: None,
            fetching: None,
            uploading: false,
            leases: 0,
            offered: Default::default(),
        }
    }

    fn draw(&mut self, n: u64) -> u64 {
        self.draws += 1;
        rng::below(self.seed, rng::stream::SIM, self.draws, n)
    }

    fn step(&mut self) {
        let event = match self.draw(12) {
            0 if self.draw(4) == 0 || !self.allowed => {
                self.allowed = self.draw(3) > 0;
                let held = match self.draw(3) {
                    0 => Permission::Held("no".into()),
                    n => Permission::Yield { reason: "now".into(), free_memory: n == 1 },
                };
                // Whoever performs the actions freezes the worker first, and thaws it once training is allowed again.
                self.frozen = !self.allowed && (self.frozen || matches!(held, Permission::Yield { .. }));
                Event::Permission(if self.allowed { Permission::Allowed } else { held })
            }
            0 if self.draw(8) == 0 => Event::Network(self.draw(2) == 0),
            1 if self.draw(20) == 0 && self.working.is_some() && !self.frozen => {
                self.working = None;
                Event::WorkerReplaced
            }
            1 if !self.connected || self.draw(6) == 0 => self.disconnect(),
            2 if self.draw(12) == 0 => return self.restart(),
            3 | 4 if self.working.is_some() && !self.frozen => self.worker(),
            5 | 6 if self.fetching.is_some() => {
                let hash = self.fetching.take().unwrap();
                match self.draw(6) {
                    0 => Event::FetchFailed { hash, fault: Fault::Broken("cut".into()) },
                    _ => Event::Fetched { hash },
                }
            }
            7 if self.uploading => {
                self.uploading = false;
                if self.draw(4) == 0 { Event::UploadFailed(Fault::Broken("cut".into())) } else { Event::Uploaded }
            }
            8..=10 if self.asked.is_some() => self.answer(),
            _ => {
                self.bench.now = self.bench.session.next_deadline().unwrap_or(self.bench.now).max(self.bench.now);
                Event::Tick
            }
        };
        self.bench.does(event);
        self.check();
    }

    fn disconnect(&mut self) -> Event {
        if !self.connected {
            // Only what is being connected can come up.
            if self.bench.session.line.link == Link::Connecting {
                self.connected = true;
                return Event::Connected;
            }
            return Event::Tick;
        }
        (self.connected, self.asked, self.fetching, self.uploading) = (false, None, None, false);
        Event::Disconnected { why: "cut".into() }
    }

    /// The device is killed, and started again from the journal on its disk.
    fn restart(&mut self) {
        let stored = self.bench.stored.clone();
        self.bench = Bench { now: self.bench.now, ..Bench::new(stored) };
        (self.connected, self.asked, self.fetching, self.uploading, self.working) = (false, None, None, false, None);
        (self.allowed, self.frozen) = (false, false);
    }

    fn worker(&mut self) -> Event {
        let id = self.working.unwrap();
        match self.draw(8) {
            0 => {
                self.working = None;
                Event::WorkerExited { why: "crash".into() }
            }
            1 => {
                self.working = None;
                let failed =
                    worker::Failed { sentence: "no".into(), base_is_wrong: self.draw(2) == 0, ..Default::default() };
                Event::Worker(from_worker::Body::Failed(failed))
            }
            2 | 3 => {
                let progress = worker::Progress {
                    lease_id: id,
                    steps: 1,
                    loss: 1.0,
                    tokens: 4,
                    train_ms: 1,
                    ..Default::default()
                };
                Event::Worker(from_worker::Body::Progress(progress))
            }
            _ => {
                self.working = None;
                let steps = self.draw(11) as u32;
                Event::Worker(trained(id, steps))
            }
        }
    }

    fn answer(&mut self) -> Event {
        let (request, question) = self.asked.take().unwrap();
        let body = match (self.draw(20), question) {
            (0, _) => refusal(RefusalAction::Retry),
            (1, _) => refusal(RefusalAction::HelloAgain),
            (2, _) => refusal(RefusalAction::DropLease),
            (_, ask::Body::Hello(_)) => welcome(),
            (_, ask::Body::LeaseRequest(_)) => {
                self.leases += 1;
                answer::Body::Lease(lease(self.leases))
            }
            (3 | 4, ask::Body::DeltaOffer(_)) => answer::Body::Upload(wire::UploadFrom { offset: 0 }),
            (n, _) => done(n != 5),
        };
        Event::Answered { request, body }
    }

    fn check(&mut self) {
        let mut stored = None;
        for action in &self.bench.wanted.clone() {
            match action {
                Action::WriteJournal(journal) => stored = Some(journal.clone()),
                Action::Work(to_worker::Body::Train(train)) => {
                    assert!(self.allowed, "it trains while held");
                    assert_eq!(self.working, None, "two leases at a time");
                    self.working = Some(train.lease_id);
                }
                Action::EndWorker => self.working = None,
                Action::Connect => assert!(!self.connected),
                Action::Disconnect => {
                    (self.connected, self.asked, self.fetching, self.uploading) = (false, None, None, false);
                }
                Action::Fetch(blob) => self.fetching = Some(blob.hash),
                Action::Upload { .. } => self.uploading = true,
                Action::Ask { request, body } => {
                    assert!(self.connected && self.asked.is_none(), "one question at a time");
                    self.ask_is_sound(body);
                    self.asked = Some((*request, body.clone()));
                }
                _ => {}
            }
        }
        if let Some(stored) = stored {
            assert_eq!(*stored, *self.bench.session.journal(), "what it acts on is what is on the disk");
        }
        if !self.allowed && self.working.is_some() && !self.frozen {
            assert_eq!(self.bench.session.worker(), Worker::Stopping, "held, and not even told to stop");
        }
    }

    fn ask_is_sound(&mut self, body: &ask::Body) {
        match body {
            ask::Body::LeaseRequest(_) => {
                assert!(self.allowed);
                assert_eq!(self.bench.stored.lease, None, "a second lease");
            }
            ask::Body::DeltaOffer(offer) => {
                let delta = self.bench.stored.delta.as_ref().expect("offered before it is in the journal");
                assert_eq!(offer.delta, Some(delta.trained.delta.to_wire()));
                let first = self.offered.entry(offer.lease_id).or_insert_with(|| offer.clone());
                assert_eq!(first, offer, "a retry with another blob");
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn whatever_happens_the_invariants_hold(seed in any::<u64>()) {
        let mut storm = Storm::new(seed);
        for _ in 0..1000 {
            storm.step();
        }
    }
}

/// The storm is no use if nothing gets through it.
#[test]
fn the_storm_gets_leases_done() {
    let delivered: u64 = (0..20)
        .map(|seed| {
            let mut storm = Storm::new(seed);
            (0..2000).for_each(|_| storm.step());
            storm.bench.stored.totals.leases
        })
        .sum();
    assert!(delivered > 20, "{delivered}");
}
