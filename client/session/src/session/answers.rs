//! What the link and the coordinator say, and what that does to the lease at hand.

use super::{Action, Course, Ending, Link, Question, Report, Session, Stage, Timer, Upload, welcome};
use crate::{
    journal::{Journal, Run},
    lease::Lease,
};
use nightjar_shared::{
    run_spec::RunSpec,
    time::Mono,
    wire::{self, Refusal, RefusalAction, RefusalCode, coordinator_message as answer, limits},
};
use std::time::Duration;

impl Session {
    pub(super) fn connected(&mut self) {
        self.line.link = Link::Up { greeted: false };
        self.words.offline.clear();
        self.words.told.clear();
        // A new connection owes nothing to what the last one was refused.
        self.timers.clear(Timer::Request);
    }

    pub(super) fn disconnected(&mut self, why: String, now: Mono, out: &mut Vec<Action>) {
        self.words.offline.clone_from(&why);
        // Once a minute at most: the owner knows by then.
        if self.greeted() || self.timers.attempts(Timer::Reconnect) == 0 {
            out.push(Action::Report(Report::Offline { why }));
        }
        self.unlinked();
        self.timers.back_off(Timer::Reconnect, now);
        if self.words.over.is_some() {
            // Nobody may be there any more; there is no hurry.
            self.timers.wait(Timer::Request, now, OVER_RETRY);
        }
    }

    /// There is no connection, and nothing is under way on it.
    pub(super) fn unlinked(&mut self) {
        self.line.link = Link::Down;
        self.line.asked = None;
        self.stage.stop_travel();
        self.timers.clear(Timer::Answer);
        self.timers.clear(Timer::Linger);
    }

    pub(super) fn answered(&mut self, request: u64, body: answer::Body, now: Mono, out: &mut Vec<Action>) {
        let Some((_, question)) = self.line.asked.take_if(|(open, _)| *open == request) else { return };
        self.timers.clear(Timer::Answer);
        // Of a lease it is still to be seen whether it makes sense.
        if !matches!(question, Question::Hello | Question::Lease) && !matches!(body, answer::Body::Refusal(_)) {
            self.timers.clear(Timer::Request);
        }
        match (question, body) {
            (Question::Leave, _) => self.forget(out),
            (_, answer::Body::Refusal(refusal)) => {
                self.refused(refusal, now, out);
                // There may be more of it than when the question was asked.
                if question == Question::Lease {
                    self.heed_memory();
                }
            }
            (Question::Hello, answer::Body::Welcome(welcome)) => self.welcomed(welcome, out),
            (Question::Lease, answer::Body::Lease(lease)) => self.granted(&lease, now, out),
            (Question::Offer, answer::Body::Upload(_)) => {
                if let Stage::Delivering { upload } = &mut self.stage {
                    *upload = Upload::Wanted;
                }
            }
            (Question::Offer | Question::Evaluation, answer::Body::Done(done)) => self.delivered(done, now, out),
            (Question::Return, answer::Body::Done(_)) => self.close_lease(out),
            (Question::Renew, answer::Body::Done(_)) => self.renewed(now),
            (question, _) => {
                out.push(Action::Disconnect);
                self.disconnected(
                    format!("the coordinator's answer does not fit the question ({question:?})"),
                    now,
                    out,
                );
            }
        }
    }

    pub(super) fn refused(&mut self, refusal: Refusal, now: Mono, out: &mut Vec<Action>) {
        let sentence = limits::tame(&refusal.sentence);
        match refusal.action() {
            RefusalAction::HelloAgain => {
                self.line.link = Link::Up { greeted: false };
                self.words.told = sentence;
                self.timers.back_off(Timer::Request, now);
            }
            RefusalAction::Upgrade | RefusalAction::Stop => {
                let over = refusal.code() == RefusalCode::RunOver;
                self.exit(if over { Ending::RunOver(sentence) } else { Ending::Refused(sentence) }, out);
            }
            RefusalAction::DropLease if self.journal.lease.is_some() => {
                self.set_back(&format!("the coordinator says: {sentence}"), now);
                self.drop_lease(sentence, out);
            }
            RefusalAction::Retry if refusal.retry_ms > 0 => {
                if refusal.code() == RefusalCode::RunOver && self.journal.lease.is_none() {
                    self.end_of_run(&sentence, out);
                } else {
                    self.words.over = None;
                }
                self.words.told = sentence;
                self.timers.wait(Timer::Request, now, Duration::from_millis(refusal.retry_ms));
            }
            RefusalAction::Retry | RefusalAction::DropLease | RefusalAction::Unspecified => {
                self.words.told = sentence;
                self.timers.back_off(Timer::Request, now);
            }
        }
    }

    /// There is no next lease: nothing is trained ahead of it, and the worker's memory is the owner's again.
    fn end_of_run(&mut self, sentence: &str, out: &mut Vec<Action>) {
        if self.words.over.is_none() {
            out.push(Action::Report(Report::RunOver(sentence.to_owned())));
        }
        self.words.over = Some(sentence.to_owned());
        self.end_worker(out);
    }

    pub(super) fn welcomed(&mut self, welcome: wire::Welcome, out: &mut Vec<Action>) {
        let (id, spec) = match welcome::read(&welcome) {
            Ok(read) => read,
            Err(error) => return self.exit(Ending::Refused(limits::tame(&error.to_string())), out),
        };
        self.line.link = Link::Up { greeted: true };
        self.timers.clear(Timer::Reconnect);
        out.extend(welcome::pins(&welcome).map(Action::Pin));
        out.push(Action::Report(Report::Online { run: spec.name.clone() }));
        self.spec = Some(spec);
        let run = Run { id, spec_json: welcome.run_spec_json, keep_alive_ms: welcome.keep_alive_ms.max(1000) };
        if self.journal.run.as_ref().is_some_and(|old| old.id != id) {
            // Another run behind the same invite: nothing of the old one fits.
            self.end_worker(out);
            self.journal = Journal::default();
            self.lease_over();
        }
        if self.journal.run.as_ref() != Some(&run) {
            self.journal.run = Some(run);
            self.commit(out);
        }
        // Whether the lease at hand still stands is the first thing to know.
        self.line.renew_due = true;
    }

    pub(super) fn granted(&mut self, message: &wire::Lease, now: Mono, out: &mut Vec<Action>) {
        match Lease::from_wire(message, self.journal.weights.is_some()) {
            Ok(lease) => {
                self.words.told.clear();
                self.words.over = None;
                self.timers.clear(Timer::Request);
                self.lease_began(now);
                let since = self.ahead().filter(|_| lease.ahead_of.is_some()).map_or(now, |ahead| ahead.since);
                self.journal.lease = Some(lease);
                self.stage = Stage::begin();
                self.course = Course { since: Some(since), ..Course::default() };
                out.push(Action::WriteJournal(Box::new(self.journal.clone())));
                self.renewed(now);
            }
            Err(bad) => {
                out.push(Action::Report(Report::Trouble(bad.to_string())));
                self.words.told.clear();
                self.set_back(&bad.to_string(), now);
                self.timers.back_off(Timer::Request, now);
            }
        }
    }

    pub(super) fn renewed(&mut self, now: Mono) {
        self.line.renew_due = false;
        if let Some(run) = &self.journal.run {
            self.timers.set(Timer::Renew, now + Duration::from_millis(run.keep_alive_ms / 2));
        }
    }

    pub(super) fn delivered(&mut self, done: wire::Done, now: Mono, out: &mut Vec<Action>) {
        let Some(lease) = &self.journal.lease else { return };
        // There is nothing in a measurement to be screened out.
        let counts = done.merged || !lease.kind.trains();
        if counts {
            self.set_right();
        } else {
            self.set_back(&format!("the coordinator says: {}", limits::tame(&done.note)), now);
        }
        let Some(lease) = &self.journal.lease else { return };
        let delta = self.journal.delta.take();
        let trained = delta.as_ref().map(|delta| delta.trained);
        let tokens_per_sample = self.spec.as_ref().map_or(0, RunSpec::tokens_per_sample);
        out.push(Action::Report(Report::Delivered {
            lease: lease.id,
            kind: lease.kind,
            version: lease.base_version,
            trained,
            tokens: trained.map_or(0, |trained| u64::from(trained.samples) * tokens_per_sample),
            merged: if counts { Ok(()) } else { Err(limits::tame(&done.note)) },
        }));
        let totals = &mut self.journal.totals;
        match delta {
            Some(delta) => {
                totals.leases += 1;
                if done.merged {
                    totals.merged += 1;
                    totals.samples += u64::from(delta.trained.samples);
                    self.journal.residual = Some(delta.residual).filter(|file| !file.is_empty());
                    self.journal.residual_version = lease.base_version;
                    self.journal.optimizer = Some(delta.optimizer).filter(|file| !file.is_empty());
                }
            }
            None => totals.evaluations += 1,
        }
        self.close_lease(out);
    }

    pub(super) fn drop_lease(&mut self, why: String, out: &mut Vec<Action>) {
        if let Some(lease) = &self.journal.lease {
            out.push(Action::Report(Report::Dropped { lease: lease.id, why }));
        }
        if self.working() {
            self.end_worker(out);
        }
        self.close_lease(out);
    }

    /// The lease at hand is over, whatever came of it.
    pub(super) fn close_lease(&mut self, out: &mut Vec<Action>) {
        self.journal.lease = None;
        self.journal.delta = None;
        self.lease_over();
        self.commit(out);
    }

    pub(super) fn lease_over(&mut self) {
        self.stage = Stage::Idle;
        self.course = Course::default();
        self.line.renew_due = false;
        self.timers.clear(Timer::Renew);
        self.timers.clear(Timer::Transfer);
        self.timers.clear(Timer::Keep);
    }
}

/// A run that is over is asked so rarely whether it goes on, where nobody answers.
const OVER_RETRY: Duration = Duration::from_secs(3600);
