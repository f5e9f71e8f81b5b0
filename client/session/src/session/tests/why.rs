//! Whatever happens, in whatever order: while nothing is computed that may be, there is a true reason, and something
//! that ends it. The disk, the coordinator, the worker and the owner do what they like.

use super::*;
use nightjar_shared::rng;
use proptest::prelude::*;

/// What the world around a session knows of it.
struct Play {
    bench: Bench,
    seed: u64,
    draws: u64,
    allowed: bool,
    frozen: bool,
    connecting: bool,
    connected: bool,
    asked: Option<(u64, ask::Body)>,
    fetching: Option<BlobHash>,
    uploading: bool,
    working: Option<u64>,
    /// The lease behind which the worker trains ahead.
    ahead: Option<u64>,
    /// The disk takes nothing.
    full: bool,
    /// It refused, and was not tried since.
    refused: bool,
    leases: u64,
    ended: bool,
    /// How often it idled for each reason, in the first words of it.
    told: std::collections::BTreeMap<String, u64>,
}

impl Play {
    fn new(seed: u64) -> Self {
        Play {
            bench: Bench::new(Journal::default()),
            seed,
            draws: 0,
            allowed: false,
            frozen: false,
            connecting: false,
            connected: false,
            asked: None,
            fetching: None,
            uploading: false,
            working: None,
            ahead: None,
            full: false,
            refused: false,
            leases: 0,
            ended: false,
            told: Default::default(),
        }
    }

    fn draw(&mut self, n: u64) -> u64 {
        self.draws += 1;
        rng::below(self.seed, rng::stream::SIM, self.draws, n)
    }

    fn step(&mut self) {
        let event = match self.draw(14) {
            0 => self.owner(),
            1 => {
                self.full = self.draw(4) == 0;
                Event::Tick
            }
            2 if self.draw(6) == 0 => Event::Retry,
            2 | 3 => self.line(),
            4 | 5 if self.working.is_some() && !self.frozen => self.worker(),
            6 if self.ahead.is_some() && !self.frozen => {
                let lease_id = self.ahead.take().unwrap();
                Event::Worker(from_worker::Body::AheadOver(worker::AheadOver { lease_id }))
            }
            7 | 8 if self.fetching.is_some() => self.fetched(),
            9 if self.uploading => {
                self.uploading = false;
                match self.draw(6) {
                    0 => Event::UploadFailed(Fault::Broken("cut".into())),
                    1 => Event::UploadFailed(Fault::Refused(Refusal::lease_gone("it took too long"))),
                    2 => Event::UploadFailed(Fault::Disk("the disk refuses (5)".into())),
                    3 => Event::UploadFailed(Fault::FileGone),
                    _ => Event::Uploaded,
                }
            }
            10..=12 if self.asked.is_some() => self.answer(),
            _ => {
                let next = self.bench.session.next_deadline();
                self.bench.now = next.unwrap_or(self.bench.now).max(self.bench.now);
                Event::Tick
            }
        };
        self.happens(event);
    }

    fn owner(&mut self) -> Event {
        self.allowed = self.draw(5) > 0;
        let held = match self.draw(3) {
            0 => Permission::Held("no".into()),
            n => Permission::Yield { reason: "now".into(), free_memory: n == 1 },
        };
        self.frozen = !self.allowed && (self.frozen || matches!(held, Permission::Yield { .. }));
        Event::Permission(if self.allowed { Permission::Allowed } else { held })
    }

    fn line(&mut self) -> Event {
        if self.connecting {
            self.connecting = false;
            self.connected = self.draw(3) > 0;
            return if self.connected {
                Event::Connected
            } else {
                Event::Disconnected { why: "nobody answers".into() }
            };
        }
        if !self.connected || self.draw(4) > 0 {
            return Event::Tick;
        }
        self.cut();
        Event::Disconnected { why: "cut".into() }
    }

    fn cut(&mut self) {
        (self.connected, self.connecting, self.asked, self.fetching, self.uploading) =
            (false, false, None, None, false);
    }

    fn worker(&mut self) -> Event {
        let lease_id = self.working.take().unwrap();
        let failed = |base_is_wrong, disk_failed| {
            let failed = worker::Failed {
                sentence: "it does not work.".into(),
                base_is_wrong,
                disk_failed,
                ..Default::default()
            };
            Event::Worker(from_worker::Body::Failed(failed))
        };
        match self.draw(9) {
            0 => Event::WorkerExited { why: "crash".into() },
            1 => failed(false, false),
            2 => failed(true, false),
            3 => {
                self.refused = true;
                failed(false, true)
            }
            4 => Event::Worker(trained(lease_id, 0)),
            n => {
                let steps = if n == 5 { 4 } else { 10 };
                self.ahead = (steps == 10).then_some(lease_id);
                Event::Worker(trained(lease_id, steps))
            }
        }
    }

    fn fetched(&mut self) -> Event {
        let hash = self.fetching.take().unwrap();
        let fault = match self.draw(8) {
            0 => Fault::Broken("cut".into()),
            1 => Fault::Refused(Refusal::with(RefusalCode::NotFound, RefusalAction::Retry, "there is none")),
            2 => {
                self.refused = true;
                Fault::Disk("the disk is full".into())
            }
            3 if self.draw(4) == 0 => Fault::NoRoom("it lacks 9 MiB".into()),
            _ => return Event::Fetched { hash },
        };
        Event::FetchFailed { hash, fault }
    }

    fn answer(&mut self) -> Event {
        let (request, question) = self.asked.take().unwrap();
        let over = || Refusal::retry(RefusalCode::RunOver, "The run is over.", Duration::from_secs(3600));
        let busy = || Refusal::retry(RefusalCode::Busy, "There is nothing to do.", Duration::from_secs(20));
        let body = match (self.draw(24), question) {
            (0, _) => refusal(RefusalAction::Retry),
            (1, _) => refusal(RefusalAction::HelloAgain),
            (2, _) => refusal(RefusalAction::DropLease),
            (3, _) => answer::Body::Refusal(busy()),
            (_, ask::Body::Hello(_)) => welcome(),
            (4, ask::Body::LeaseRequest(_)) => answer::Body::Refusal(over()),
            (5, ask::Body::LeaseRequest(_)) => answer::Body::Lease(wire::Lease { steps: 0, ..lease(1) }),
            (_, ask::Body::LeaseRequest(_)) => {
                self.leases += 1;
                answer::Body::Lease(lease(self.leases))
            }
            (4 | 5, ask::Body::DeltaOffer(_)) => answer::Body::Upload(wire::UploadFrom { offset: 0 }),
            (n, _) => done(n % 2 == 0),
        };
        Event::Answered { request, body }
    }

    /// Lets it hear of an event, and does what it wants as the loop does.
    fn happens(&mut self, event: Event) {
        let mut events = std::collections::VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let mut is_stored = true;
            for action in self.bench.session.handle(event, self.bench.now) {
                if !is_stored && action.rests_on_journal() {
                    continue;
                }
                match action {
                    Action::WriteJournal(_) if self.full => {
                        (is_stored, self.refused) = (false, true);
                        events.push_front(Event::DiskRefused { why: "the disk is full".into() });
                    }
                    Action::WriteJournal(journal) => {
                        self.refused = false;
                        self.bench.stored = *journal;
                    }
                    Action::Connect => self.connecting = true,
                    Action::Disconnect => self.cut(),
                    Action::Ask { request, body } => self.asked = Some((request, body)),
                    Action::Fetch(blob) => self.fetching = Some(blob.hash),
                    Action::Upload { .. } => {
                        assert!(self.bench.stored.delta.is_some(), "a delta goes up that is not in the journal");
                        self.uploading = true;
                    }
                    Action::Work(to_worker::Body::Train(train)) => {
                        assert!(self.allowed, "it trains while its owner forbids it");
                        self.ahead = None;
                        if self.draw(20) == 0 {
                            let until = (self.draw(2) == 0).then_some(self.bench.now + Duration::from_secs(9));
                            events.push_back(Event::WorkerRefused { why: "the GPU is left alone".into(), until });
                        } else {
                            self.working = Some(train.lease_id);
                        }
                    }
                    Action::EndWorker => (self.working, self.ahead) = (None, None),
                    Action::Exit(_) => self.ended = true,
                    _ => {}
                }
            }
        }
        self.check();
    }

    fn check(&mut self) {
        let session = &self.bench.session;
        if !self.allowed || self.ended {
            return;
        }
        let computes = self.working.is_some() || self.ahead.is_some();
        let Some((reason, at)) = session.idles_for() else {
            assert!(computes, "nothing trains, and no reason is told: {}", session.status().doing);
            return;
        };
        assert!(!computes || self.working.is_none(), "it trains, and says: {reason}");
        let is_a_sentence = !reason.contains('\n') && !reason.ends_with('.') && reason.len() > "it may train; ".len();
        assert!(is_a_sentence, "{reason:?}");
        assert!(at.is_none_or(|at| at >= self.bench.now), "it tries again in the past: {reason}");
        // Something ends it: an answer that is due, or time.
        let awaited = self.asked.is_some() || self.fetching.is_some() || self.uploading || self.connecting;
        assert!(awaited || session.next_deadline().is_some(), "it waits for ever: {reason}");
        let says = |words: &[&str]| {
            assert!(words.iter().any(|word| reason.contains(word)), "{reason:?} names none of {words:?}")
        };
        if session.disk_refuses().is_some() {
            return says(&["disk", "write", "cannot yet", "giving a lease back"]);
        }
        if session.setback().is_some() || session.obstacle().is_some() {
            return says(&["came to nothing", "cannot yet"]);
        }
        match &self.asked {
            _ if session.run_over().is_some() && session.timers.pending(Timer::Request) => {
                says(&["the run is over", "reached"])
            }
            _ if !self.connected => says(&["connect", "reached", "deliver", "giving a lease back", "did not travel"]),
            Some((_, ask::Body::Hello(_))) => says(&["hello", "deliver", "giving a lease back", "did not travel"]),
            Some((_, ask::Body::LeaseRequest(_))) => says(&["asking for a lease"]),
            Some((_, ask::Body::DeltaOffer(_))) => says(&["deliver", "did not travel"]),
            Some((_, ask::Body::LeaseReturn(_))) => says(&["giving a lease back", "did not travel"]),
            _ if self.uploading => says(&["delivering a delta"]),
            _ if self.fetching.is_some() => {
                // Or what it fetched was for a lease that is over.
                says(&["fetching", "giving a lease back", "hello", "the coordinator says", "came to nothing"])
            }
            None if session.timers.pending(Timer::Request) => {
                says(&["the coordinator says", "did not travel", "came to nothing"])
            }
            _ => {}
        }
        let words: String = reason.trim_start_matches("it may train").chars().take(48).collect();
        *self.told.entry(words).or_default() += 1;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn where_nothing_trains_there_is_a_true_reason_and_an_end_of_it(seed in any::<u64>()) {
        let mut play = Play::new(seed);
        for _ in 0..1000 {
            if play.ended {
                break;
            }
            play.step();
        }
    }
}

/// A play is no use in which little happens.
#[test]
fn the_play_comes_to_all_that_can_go_wrong() {
    let (mut told, mut merged) = (std::collections::BTreeMap::<String, u64>::new(), 0);
    for seed in 0..60 {
        let mut play = Play::new(seed);
        (0..1500).for_each(|_| play.step());
        merged += play.bench.stored.totals.merged;
        play.told.into_iter().for_each(|(words, times)| *told.entry(words).or_default() += times);
    }
    let all = told.keys().cloned().collect::<Vec<_>>().join("\n");
    for part in ["cannot be reached", "fetching", "delivering", "asking for a lease", "the run is over"] {
        let short: String = part.chars().take(12).collect();
        assert!(all.contains(&short), "it never idled for {part}:\n{all}");
    }
    assert!(merged > 5, "{merged}");
}
