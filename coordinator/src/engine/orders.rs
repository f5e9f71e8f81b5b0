//! What operators order: devices and invites are revoked, the run is paused, resumed or extended. Each order is written
//! down together with what it changes: who gave it, from where, and what came of it.

use super::{
    Engine,
    record::{AuditRecord, LeaseOutcome, Record},
    roster, told_to_devices,
    turn::Turn,
};
use data_encoding::HEXLOWER;
use nightjar_shared::{
    blob::BlobRef,
    ids::DeviceId,
    time::{Mono, Wall},
    wire::{Invite, Refusal, RefusalCode, limits},
};
use std::time::Duration;

/// A device that is turned away from a paused run asks again after about so long.
const PAUSED_AGAIN: Duration = Duration::from_secs(120);
/// No run is longer, in tokens: sums of them fit an SQL integer.
pub const TOKEN_BUDGET_MAX: u64 = 1 << 62;

/// An order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// The device is no part of the run any more, and cannot enrol again. What was merged of it stays.
    RevokeDevice(DeviceId),
    /// The name that a device's owner has chosen for the public page stays off it, or may stand there again.
    HideName {
        /// Whose.
        device: DeviceId,
        /// Whether it stays off.
        hidden: bool,
    },
    /// Nobody enrols with the invite any more.
    RevokeInvite {
        /// Which.
        nonce: Vec<u8>,
        /// The devices that came with it are revoked, too.
        with_devices: bool,
    },
    /// No lease is issued any more; those that are out go on, and are merged.
    Pause,
    /// Leases are issued again.
    Resume,
    /// The run goes on until so many tokens are merged.
    Extend {
        /// More than until now.
        token_budget: u64,
    },
    /// A series begins; one that is not over ends without an answer.
    BeginSeries {
        /// What the operator calls it.
        name: String,
        /// The weights that it starts from: a blob that is stored.
        weights: BlobRef,
        /// Versions to be made of them; 0: they are only evaluated.
        rounds: u32,
    },
    /// The newest series ends with whatever is there.
    CutSeries {
        /// What the operator calls it.
        name: String,
    },
}

impl Order {
    /// Its words in the audit log: what is done, and to what.
    pub fn words(&self) -> (&'static str, String) {
        match self {
            Order::RevokeDevice(id) => ("device revoke", id.to_string()),
            Order::HideName { device, hidden: true } => ("device hide-name", device.to_string()),
            Order::HideName { device, hidden: false } => ("device show-name", device.to_string()),
            Order::RevokeInvite { nonce, .. } => ("invite revoke", HEXLOWER.encode(nonce)),
            Order::Pause => ("run pause", String::new()),
            Order::Resume => ("run resume", String::new()),
            Order::Extend { token_budget } => ("run extend", token_budget.to_string()),
            Order::BeginSeries { name, .. } => ("series begin", name.clone()),
            Order::CutSeries { name } => ("series cut", name.clone()),
        }
    }
}

/// Who gives an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Giver {
    /// The name of the token.
    pub name: String,
    /// The address that it came from.
    pub from: String,
}

impl Giver {
    /// What the audit log says of something that was done.
    pub fn record(&self, at: Wall, action: &str, subject: &str, outcome: &str) -> AuditRecord {
        let [name, from, action, subject, outcome] =
            [&self.name, &self.from, action, subject, outcome].map(limits::tame);
        AuditRecord { at, name, from, action, subject, outcome }
    }
}

/// What came of an order that was carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Obeyed {
    /// Devices that were revoked by it.
    pub devices: Vec<DeviceId>,
    /// One sentence.
    pub told: String,
}

/// An order that cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotDone {
    /// The run has no such device.
    #[error("no device {0} has ever enrolled in this run; `device list` shows those that have")]
    NoSuchDevice(DeviceId),
    /// A run is only ever made longer.
    #[error("the run's token budget is {now} already; name a larger one")]
    NotLonger {
        /// Tokens.
        now: u64,
    },
    /// Nobody could pay for it.
    #[error("a token budget is at most {TOKEN_BUDGET_MAX}")]
    TooLong,
    /// Its rounds follow each other by themselves.
    #[error("this run takes no weights: its rounds follow each other; lease.pacing = \"series\" makes a run that does")]
    NoSeries,
    /// Version 0 is not there.
    #[error("the run's first version is being made; try again in a moment")]
    TooEarly,
    /// The token budget is used up.
    #[error("the run's token budget is used up; `run extend` raises it")]
    Over,
    /// The name is another's.
    #[error("a series of this name was begun with other weights; choose another name")]
    OtherSeries,
    /// Only the newest series can be told of or ended.
    #[error("series {0} is not the newest, or there never was one")]
    NoSuchSeries(String),
}

impl Engine {
    /// Carries out an order.
    pub(super) fn ordered(
        &mut self,
        order: &Order,
        giver: &Giver,
        now: Mono,
        turn: &mut Turn,
    ) -> Result<Obeyed, NotDone> {
        let done = self.carry_out(order, now, turn);
        let (action, subject) = order.words();
        let outcome = match &done {
            Ok(done) => done.told.clone(),
            Err(why) => format!("refused: {why}"),
        };
        turn.records.push(Record::Audit(giver.record(self.wall, action, &subject, &outcome)));
        done
    }

    fn carry_out(&mut self, order: &Order, now: Mono, turn: &mut Turn) -> Result<Obeyed, NotDone> {
        match order {
            Order::RevokeDevice(id) => {
                let record = self.roster.known(*id).ok_or(NotDone::NoSuchDevice(*id))?;
                let name = record.name.clone();
                let devices: Vec<_> = self.revoke(*id, turn).then_some(*id).into_iter().collect();
                let told = if devices.is_empty() { "it was revoked already" } else { "revoked" };
                Ok(Obeyed { devices, told: format!("{name}: {told}") })
            }
            Order::HideName { device, hidden } => {
                let name = self.roster.known(*device).ok_or(NotDone::NoSuchDevice(*device))?.name.clone();
                let changed = self.roster.hide_name(*device, *hidden);
                let told = match (changed.is_some(), hidden) {
                    (true, true) => "its public name is hidden",
                    (true, false) => "its public name may be shown",
                    (false, true) => "its public name was hidden already",
                    (false, false) => "its public name was not hidden",
                };
                turn.records.extend(changed.map(Record::Device));
                Ok(Obeyed { told: format!("{name}: {told}"), ..Obeyed::default() })
            }
            Order::RevokeInvite { nonce, with_devices } => {
                let is_new = self.standing.revoked_invites.insert(nonce.clone(), self.wall).is_none();
                if is_new {
                    turn.records.push(Record::InviteRevoked { nonce: nonce.clone(), at: self.wall });
                }
                let came = if *with_devices { self.roster.came_with(nonce) } else { vec![] };
                let devices: Vec<_> = came.into_iter().filter(|id| self.revoke(*id, turn)).collect();
                let told = if is_new { "revoked" } else { "it was revoked already" };
                let told = format!("{told}; devices revoked with it: {}", devices.len());
                Ok(Obeyed { devices, told })
            }
            Order::Pause | Order::Resume => {
                let paused = *order == Order::Pause;
                let told = match (paused, self.standing.paused_at.is_some() == paused) {
                    (true, true) => "it was paused already",
                    (true, false) => "paused",
                    (false, true) => "it was not paused",
                    (false, false) => "resumed",
                };
                if self.standing.paused_at.is_some() != paused {
                    self.standing.paused_at = paused.then_some(self.wall);
                    turn.records.push(Record::Paused(self.standing.paused_at));
                }
                Ok(Obeyed { told: told.to_owned(), ..Obeyed::default() })
            }
            Order::BeginSeries { name, weights, rounds } => self.begin_series(name, *weights, *rounds, turn),
            Order::CutSeries { name } => self.cut_series(name, now, turn),
            Order::Extend { token_budget } => {
                let (now, then) = (self.spec.token_budget, *token_budget);
                match then {
                    _ if then <= now => Err(NotDone::NotLonger { now }),
                    _ if then > TOKEN_BUDGET_MAX => Err(NotDone::TooLong),
                    _ => {
                        self.standing.token_budget = Some(then);
                        self.spec.token_budget = then;
                        self.spec_json = told_to_devices(&self.spec);
                        // Learning rates follow the budget: every device is told of it, in the answer to a new hello.
                        self.roster.forget_sessions();
                        turn.records.push(Record::Extended { token_budget: then });
                        let told = format!("the token budget is {then}, was {now}");
                        Ok(Obeyed { told, ..Obeyed::default() })
                    }
                }
            }
        }
    }

    /// Takes a device out of the run for good; false if it was out already.
    fn revoke(&mut self, id: DeviceId, turn: &mut Turn) -> bool {
        if self.standing.revoked_devices.contains_key(&id) {
            return false;
        }
        if let Some(lease) = self.leases.of_device(id).map(|l| l.record.id) {
            self.close(lease, LeaseOutcome::Returned, 0, turn);
        }
        self.release(id);
        turn.records.extend(self.roster.leave(id).map(Record::Device));
        self.standing.revoked_devices.insert(id, self.wall);
        turn.records.push(Record::DeviceRevoked { id, at: self.wall });
        true
    }

    /// Refuses the hello of a device that was taken out of the run, and one that would enrol with a revoked invite.
    pub(super) fn may_greet(&self, device: DeviceId, invite: Option<&Invite>) -> Result<(), Refusal> {
        if self.standing.revoked_devices.contains_key(&device) {
            return Err(roster::revoked());
        }
        let enrolled_with = self.roster.get(device).map(|d| &d.record.invite_nonce);
        let joins_by = invite.map(|invite| &invite.nonce).filter(|nonce| enrolled_with != Some(nonce));
        match joins_by.is_some_and(|nonce| self.standing.revoked_invites.contains_key(nonce)) {
            true => Err(roster::withdrawn()),
            false => Ok(()),
        }
    }

    /// What a device is told that asks for work while the run is paused.
    pub(super) fn paused(&self, device: DeviceId, now: Mono) -> Result<(), Refusal> {
        if self.standing.paused_at.is_none() {
            return Ok(());
        }
        let sentence = "The run is paused by its operator. This device asks again by itself.";
        Err(self.retry(RefusalCode::NoWork, sentence, PAUSED_AGAIN, device, now))
    }
}
