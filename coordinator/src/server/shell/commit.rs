//! How what is decided is written, and done. One commit is on its way at a time, beside the loop; once it stands, what
//! rests on it is done in order. Nothing is done for a turn before its commit, nor for one that comes after a commit
//! that failed.

use super::{Effect, Shell, ShellError};
use crate::{
    engine::{
        Status,
        event::{Action, Event},
        group::Group,
        record::Record,
    },
    server::{clock::wall_now, news::News, publisher_thread::Order, words::span},
    store::{Counters, LedgerError},
};
use std::future::pending;
use tokio::{task::JoinHandle, time::Instant};

/// Turns and counters that share a commit.
pub(super) struct Commit {
    pub group: Group<Effect>,
    pub counters: Counters,
    /// How the run stands with them: a page is told no more than what outlasts a kill.
    pub status: Status,
}

/// What comes back of a commit that was sent.
pub(super) struct Sent {
    pub commit: Commit,
    pub result: Result<(), LedgerError>,
    pub sent_at: Instant,
}

/// A commit that was sent.
pub(super) type OnItsWay = JoinHandle<Sent>;

/// Waits for the commit that is on its way, for ever if none is.
pub(super) async fn sent(on_its_way: &mut Option<OnItsWay>) -> Result<Sent, ShellError> {
    let Some(sending) = on_its_way else { return pending().await };
    let sent = sending.await;
    *on_its_way = None;
    sent.map_err(|panic| ShellError::Commit(panic.to_string()))
}

impl Shell {
    /// Has the engine decide what follows from an event. It is done after the next commit.
    pub(super) fn decide(&mut self, event: Event) {
        let turn = self.turn(event);
        self.decided.add(turn);
    }

    /// What the engine decides.
    pub(super) fn turn(&mut self, event: Event) -> Vec<Action> {
        self.parts.engine.handle(event, self.now(), wall_now())
    }

    /// Sends what is decided on its way, unless another commit is; does it at once where there is nothing to write.
    pub(super) async fn send(&mut self) -> Result<(), ShellError> {
        if self.on_its_way.is_some() || (self.decided.is_empty() && !self.counters_due) {
            return Ok(());
        }
        let (group, counters) = (std::mem::take(&mut self.decided), self.counters_to_write());
        let commit = Commit { group, counters, status: self.parts.engine.status() };
        if commit.group.records().is_empty() && commit.counters == Counters::default() {
            return self.perform(commit).await;
        }
        let ledger = self.parts.ledger.clone();
        let sent_at = Instant::now();
        self.on_its_way = Some(tokio::spawn(async move {
            let result = ledger.write(commit.group.records(), commit.counters).await;
            Sent { commit, result, sent_at }
        }));
        Ok(())
    }

    /// A commit has come back: it is tried again as long as that may help, then what rests on it is done.
    pub(super) async fn sent(&mut self, Sent { commit, result, sent_at }: Sent) -> Result<(), ShellError> {
        self.until_written(&commit, result).await?;
        self.parts.metrics.committed(commit.group.records(), sent_at.elapsed());
        self.perform(commit).await
    }

    /// Waits for the commit that is on its way, if one is.
    pub(super) async fn settle(&mut self) -> Result<(), ShellError> {
        if self.on_its_way.is_some() {
            let sent = sent(&mut self.on_its_way).await?;
            self.sent(sent).await?;
        }
        Ok(())
    }

    /// Bytes that travelled since they were last written, if it is time; on a full disk they wait.
    fn counters_to_write(&mut self) -> Counters {
        if !std::mem::take(&mut self.counters_due) || self.parts.reserve.is_full() {
            return Counters::default();
        }
        let (bytes_up, bytes_down) = self.parts.traffic.take();
        Counters { bytes_up, bytes_down }
    }

    /// Does what rests on a commit, in order; what follows a failure does not happen.
    async fn perform(&mut self, commit: Commit) -> Result<(), ShellError> {
        self.parts.feed.committed(commit.group.records(), commit.status);
        self.parts.tracker.committed(commit.group.records());
        for (records, effects) in commit.group.into_turns() {
            records.iter().for_each(|record| self.tell(record));
            for effect in effects {
                match effect {
                    Effect::Act(action) => self.act(action).await?,
                    Effect::Tell(tell) => tell(),
                }
            }
        }
        Ok(())
    }

    async fn act(&mut self, action: Action) -> Result<(), ShellError> {
        match action {
            // A group has taken the records out.
            Action::Commit(_) => {}
            Action::Reply { to, body } => {
                self.parts.feed.answered(&body);
                self.reply(to, body);
            }
            Action::Obeyed { to, done } => {
                // Who gave the order may be gone by now.
                self.ordering.remove(&to).map(|answer| answer.send(done));
            }
            Action::MeasureDelta { to, device, offer } => self.measure(to, device, offer),
            Action::Merge(order) => self.order(Order::Merge(order)).await?,
            Action::Publish { version, keyframe, given, .. } => {
                self.order(Order::Publish { version, keyframe, given }).await?;
            }
        }
        Ok(())
    }

    async fn order(&self, order: Order) -> Result<(), ShellError> {
        self.orders.send(order).await.map_err(|_| ShellError::PublisherGone)
    }

    /// Tells people and the pages what is now in the ledger.
    fn tell(&mut self, record: &Record) {
        self.log(record);
        self.parts.traces.recorded(record);
        if let Record::LeaseIssued(lease) = record {
            // It was asked for before; where it is one too many all the same, the next waits.
            let _ = self.leases.take(lease.device, 1.0, Instant::now().into_std());
        }
        if let Some(news) = News::of(record) {
            self.parts.knowledge.take(&news).into_iter().for_each(|rubbish| self.clear_away(rubbish));
            self.parts.doors.tell(&news);
        }
        match record {
            Record::Version(version) => {
                self.stands = true;
                if version.keyframe.is_some() {
                    self.parts.keep.send_modify(|_| ());
                }
                let status = self.parts.engine.status();
                let loss = self.parts.feed.newest_loss();
                let loss =
                    loss.map_or(String::new(), |l| format!("  loss {:.4} nats a byte (version {})", l.loss, l.version));
                self.trail.pass(self.parts.origin.elapsed().as_secs_f64(), status.tokens);
                let left = self.trail.left_s(status.token_budget).filter(|_| !status.finished);
                let left = left.map_or(String::new(), |left| format!(", {} left", span(left)));
                let (millions, budget) = (status.tokens as f64 / 1e6, status.token_budget.max(1) as f64);
                let percent = (100.0 * status.tokens as f64 / budget).min(100.0);
                let line = format!(
                    "version {:<5} {:>6} deltas {millions:>9.3} M tokens {percent:>5.1} %{left}{loss}",
                    version.version, status.merged
                );
                (self.parts.say)(&line);
                if status.finished {
                    (self.parts.say)(
                        "over      the token budget is used up: devices are told; `export` writes the model",
                    );
                }
            }
            Record::Device(_)
            | Record::LeaseIssued(_)
            | Record::LeaseClosed { .. }
            | Record::Delta(_)
            | Record::Evaluation(_)
            | Record::Series(_)
            | Record::DeviceRevoked { .. }
            | Record::InviteRevoked { .. }
            | Record::Paused(_)
            | Record::Extended { .. } => {}
            Record::Audit(entry) => {
                let who = format!("{} of {} from {}", entry.action, entry.name, entry.from);
                (self.parts.say)(&format!("operator  {who}: {}", entry.outcome));
            }
        }
    }
}
