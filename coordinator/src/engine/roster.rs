//! The roster: who enrolled with which invite, how fast each device is, and what it said it can do.

use super::{credit::Credit, pace::Pace, record::DeviceRecord, refused::Refused, snapshot::DeviceSummary};
use nightjar_shared::{
    delta::CodecId,
    ids::{DeviceId, Generation, LeaseId, RunId},
    lease::LeaseKind,
    public_name::PublicName,
    time::Wall,
    wire::{self, Refusal, RefusalAction, RefusalCode, Role, limits},
};
use std::{collections::BTreeMap, ops::Bound};

/// Most devices that a run enrols.
pub const DEVICES_MAX: usize = 4 << 20;

/// What a device is told that was taken out of the run.
pub const REVOKED: &str = "The run's operator has taken this device out of the run. Ask the lab if you wonder why.";

/// One enrolled device.
pub(super) struct Device {
    pub record: DeviceRecord,
    pub tokens: u64,
    pub merged: u64,
    pub last_merged: Option<(LeaseId, Generation)>,
    pub pace: Pace,
    pub credit: Credit,
    pub refused: Refused,
    /// Leases in a row that ended without a delta.
    pub idle_leases: u32,
    /// What its hello said; `None` until it has greeted this process.
    pub session: Option<Session>,
}

/// What a device can do, as it said in its hello.
#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    pub trains: bool,
    pub evaluates: bool,
}

/// All devices, by id.
#[derive(Default)]
pub(super) struct Roster {
    devices: BTreeMap<DeviceId, Device>,
    /// Devices that came with an invite and have not left.
    by_invite: BTreeMap<Vec<u8>, u64>,
}

impl Roster {
    pub fn restore(devices: Vec<DeviceSummary>, lease_wall_s: f64) -> Self {
        let mut roster = Roster::default();
        for DeviceSummary { record, tokens, merged, last_merged, refused } in devices {
            if !record.left {
                *roster.by_invite.entry(record.invite_nonce.clone()).or_default() += 1;
            }
            let pace = Pace::remembered(record.tokens_per_s, lease_wall_s);
            let credit = Credit::remembered(tokens, record.tokens_per_s);
            let refused = Refused::remembered(refused);
            let device =
                Device { record, tokens, merged, last_merged, pace, credit, refused, idle_leases: 0, session: None };
            roster.devices.insert(device.record.id, device);
        }
        roster
    }

    /// The device, if it is enrolled and has not left.
    pub fn get(&self, id: DeviceId) -> Option<&Device> {
        self.devices.get(&id).filter(|d| !d.record.left)
    }

    pub fn get_mut(&mut self, id: DeviceId) -> Option<&mut Device> {
        self.devices.get_mut(&id).filter(|d| !d.record.left)
    }

    /// The device's pace, as far as it is known.
    pub fn pace(&self, id: DeviceId) -> Pace {
        self.get(id).map_or_else(Pace::default, |d| d.pace)
    }

    /// What is written of a device that ever enrolled.
    pub fn known(&self, id: DeviceId) -> Option<&DeviceRecord> {
        self.devices.get(&id).map(|d| &d.record)
    }

    /// All that came with an invite last, whether they left or not.
    pub fn came_with(&self, nonce: &[u8]) -> Vec<DeviceId> {
        self.iter().filter(|d| d.record.invite_nonce == nonce).map(|d| d.record.id).collect()
    }

    /// All devices after one, by id.
    pub fn after(&self, id: Option<DeviceId>) -> impl Iterator<Item = &Device> {
        let from = id.map_or(Bound::Unbounded, Bound::Excluded);
        self.devices.range((from, Bound::Unbounded)).map(|(_, device)| device)
    }

    /// All devices from this id on.
    pub fn from(&self, id: DeviceId) -> impl Iterator<Item = &Device> {
        self.devices.range(id..).map(|(_, device)| device)
    }

    /// Every device has to say hello again.
    pub fn forget_sessions(&mut self) {
        self.devices.values_mut().for_each(|device| device.session = None);
    }

    pub fn iter(&self) -> impl Iterator<Item = &Device> {
        self.devices.values()
    }

    /// A device greets. It is enrolled by an invite that it is not enrolled with yet. Returns the record to write, if
    /// anything changed.
    pub fn hello(
        &mut self,
        id: DeviceId,
        hello: &wire::Hello,
        invite: Option<&wire::Invite>,
        run_id: RunId,
        codec: CodecId,
        wall: Wall,
    ) -> Result<Option<DeviceRecord>, Refusal> {
        if !hello.run_id.is_empty() && hello.run_id != run_id.0 {
            let sentence = "This coordinator serves another run. Leave, and join with a new invite.";
            return Err(Refusal::with(RefusalCode::WrongRun, RefusalAction::Stop, sentence));
        }
        let takes = |kind: LeaseKind| hello.kinds.contains(&kind.to_wire());
        let trains = takes(LeaseKind::Train);
        if trains && !hello.codecs.contains(&(codec as u32)) {
            let sentence =
                "Coordinator and device know no common way to encode deltas. Upgrade Nightjar on this device.";
            return Err(Refusal::with(RefusalCode::Unsupported, RefusalAction::Upgrade, sentence));
        }
        let enrolled = self.get(id);
        let joins_by = invite.filter(|i| enrolled.is_none_or(|d| d.record.invite_nonce != i.nonce));
        let role = match (joins_by, enrolled) {
            (Some(invite), _) => invite.role(),
            (None, Some(device)) => device.record.role,
            (None, None) => return Err(not_enrolled()),
        };
        if hello.role() == Role::Anchor && role != Role::Anchor {
            return Err(invite_refused("This invite is for volunteers. Ask the lab for one for anchor nodes."));
        }
        if let Some(invite) = joins_by {
            self.admit(id, invite, wall)?;
        }
        let device = self.devices.get_mut(&id).ok_or_else(not_enrolled)?;
        let evaluates = role == Role::Anchor && takes(LeaseKind::Evaluate);
        device.session = Some(Session { trains, evaluates });
        let before = device.record.clone();
        device.record.name = limits::tame(&hello.name);
        device.record.device = limits::tame(&hello.device);
        device.record.public_name = PublicName::parse(&hello.public_name).ok();
        Ok(Some(device.record.clone()).filter(|record| joins_by.is_some() || *record != before))
    }

    /// Enrols a device, or enrols it anew.
    fn admit(&mut self, id: DeviceId, invite: &wire::Invite, wall: Wall) -> Result<(), Refusal> {
        let used = self.by_invite.get(&invite.nonce).copied().unwrap_or(0);
        if invite.devices_max > 0 && used >= invite.devices_max {
            return Err(invite_refused(
                "This invite has been used by as many devices as it allows. Ask the lab for a new one.",
            ));
        }
        let known = self.devices.contains_key(&id);
        if !known && self.devices.len() >= DEVICES_MAX {
            let sentence = "This run has as many devices as it can take.";
            return Err(Refusal::with(RefusalCode::Limit, RefusalAction::Stop, sentence));
        }
        self.uncount(id);
        *self.by_invite.entry(invite.nonce.clone()).or_default() += 1;
        let device = self.devices.entry(id).or_insert_with(|| Device {
            record: DeviceRecord {
                id,
                name: String::new(),
                device: String::new(),
                role: Role::Volunteer,
                invite_nonce: vec![],
                enrolled_at: wall,
                tokens_per_s: 0.0,
                left: false,
                public_name: None,
                name_hidden: false,
            },
            tokens: 0,
            merged: 0,
            last_merged: None,
            pace: Pace::default(),
            credit: Credit::default(),
            refused: Refused::default(),
            idle_leases: 0,
            session: None,
        });
        device.record.role = if invite.role() == Role::Anchor { Role::Anchor } else { Role::Volunteer };
        device.record.invite_nonce = invite.nonce.clone();
        device.record.left = false;
        Ok(())
    }

    /// Whether a device's public name is hidden from now on. Returns the record to write, if anything changed.
    pub fn hide_name(&mut self, id: DeviceId, hidden: bool) -> Option<DeviceRecord> {
        let device = self.devices.get_mut(&id).filter(|d| d.record.name_hidden != hidden)?;
        device.record.name_hidden = hidden;
        Some(device.record.clone())
    }

    /// A device leaves; its place under the invite is free again.
    pub fn leave(&mut self, id: DeviceId) -> Option<DeviceRecord> {
        self.uncount(id);
        let device = self.get_mut(id)?;
        device.record.left = true;
        device.session = None;
        Some(device.record.clone())
    }

    fn uncount(&mut self, id: DeviceId) {
        let Some(nonce) = self.get(id).map(|d| d.record.invite_nonce.clone()) else { return };
        if let Some(count) = self.by_invite.get_mut(&nonce) {
            *count -= 1;
            if *count == 0 {
                self.by_invite.remove(&nonce);
            }
        }
    }
}

/// The answer to a device that is not on the roster.
pub(super) fn not_enrolled() -> Refusal {
    invite_refused("This device is not enrolled in the run. Join with an invite from the lab.")
}

/// The answer to a device that was taken out of the run.
pub(super) fn revoked() -> Refusal {
    invite_refused(REVOKED)
}

/// The answer to a device that would enrol with a revoked invite.
pub(super) fn withdrawn() -> Refusal {
    invite_refused("The lab has withdrawn this invite. Ask it for a new one.")
}

fn invite_refused(sentence: &str) -> Refusal {
    Refusal::with(RefusalCode::Invite, RefusalAction::Stop, sentence)
}
