//! The devices that are enrolled, as far as the ledger has it: only they may download.

use super::news;
use nightjar_shared::{
    ids::DeviceId,
    public_name::PublicName,
    wire::{Hello, Invite, limits::tame},
};
use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

/// What a hello would change in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing, or it will be refused.
    Nothing,
    /// One of the device's names, or its description.
    Name,
    /// It enrols, by the invite of this nonce.
    Enrols(Vec<u8>),
}

struct Member {
    /// Of names and description.
    words: blake3::Hash,
    nonce: Vec<u8>,
}

fn words(name: &str, device: &str, public_name: Option<&PublicName>) -> blake3::Hash {
    let public_name = public_name.map_or("", PublicName::as_str);
    blake3::hash(format!("{name}\n{device}\n{public_name}").as_bytes())
}

/// See the module.
#[derive(Default)]
pub struct Members {
    members: RwLock<HashMap<DeviceId, Member>>,
}

impl Members {
    /// Takes in what was written to the ledger.
    pub fn note(&self, device: &news::Member) {
        // Whoever panicked while holding the lock left a whole map behind.
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        if device.left {
            members.remove(&device.id);
        } else {
            let words = words(&device.name, &device.what, device.public_name.as_ref());
            let member = Member { words, nonce: device.invite_nonce.clone() };
            members.insert(device.id, member);
        }
    }

    /// A device is no member any more, whatever it was.
    pub fn forget(&self, device: DeviceId) {
        self.members.write().unwrap_or_else(PoisonError::into_inner).remove(&device);
    }

    /// Whether a device is enrolled and has not left.
    pub fn has(&self, device: DeviceId) -> bool {
        self.members.read().unwrap_or_else(PoisonError::into_inner).contains_key(&device)
    }

    /// How many are enrolled and have not left.
    pub fn len(&self) -> usize {
        self.members.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The invite that a device came with.
    pub fn nonce(&self, device: DeviceId) -> Option<Vec<u8>> {
        self.members.read().unwrap_or_else(PoisonError::into_inner).get(&device).map(|member| member.nonce.clone())
    }

    /// What a hello would change.
    pub fn change(&self, device: DeviceId, hello: &Hello, invite: Option<&Invite>) -> Change {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        let member = members.get(&device);
        let public_name = PublicName::parse(&hello.public_name).ok();
        let words = words(&tame(&hello.name), &tame(&hello.device), public_name.as_ref());
        match (member, invite) {
            (None, None) => Change::Nothing,
            (Some(member), Some(invite)) if member.nonce != invite.nonce => Change::Enrols(invite.nonce.clone()),
            (None, Some(invite)) => Change::Enrols(invite.nonce.clone()),
            (Some(member), _) if member.words != words => Change::Name,
            (Some(_), _) => Change::Nothing,
        }
    }
}
