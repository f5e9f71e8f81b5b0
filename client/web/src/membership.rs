//! Which run this device has joined: the invite's token, with the keys and certificates that its coordinator named
//! since. Kept as `membership.json`.

use data_encoding::BASE64URL_NOPAD;
use nightjar_shared::{
    disk::Disk,
    invite::{self, InviteError},
    web::{self, CertificateHash},
    wire::{self, limits::tame},
};
use serde::{Deserialize, Serialize};
use std::io;

/// The membership's file.
pub const FILE: &str = "membership.json";

/// A run joined.
#[derive(Clone, Debug, PartialEq)]
pub struct Membership {
    /// The invite. Its keys are those that the coordinator named last.
    pub invite: wire::Invite,
    /// The token that it came in.
    pub token: Vec<u8>,
    /// How the owner calls this device.
    pub name: String,
    /// Certificates that the coordinator may show.
    pub certificates: Vec<CertificateHash>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    token: String,
    name: String,
    pins: Vec<String>,
    certificates: Vec<String>,
}

/// A token that is not believed yet: its signature is to be checked by whoever can.
pub struct Claimed {
    membership: Membership,
    /// The key that must have signed.
    pub key: [u8; 32],
    /// What it must have signed.
    pub covered: Vec<u8>,
    /// The signature.
    pub signature: Vec<u8>,
}

impl Claimed {
    /// Once the signature is checked.
    pub fn believed(self) -> Membership {
        self.membership
    }
}

impl Membership {
    /// Of an invite's link, as it came in the page's address or was pasted, if it has not expired.
    pub fn claimed(link: &str, name: &str, unix_ms: u64) -> Result<Claimed, InviteError> {
        let token = invite::from_link(link)?;
        let mut signed = None;
        let mut invite = invite::open(&token, |key, covered, signature| {
            signed = <[u8; 32]>::try_from(key).ok().map(|key| (key, covered.to_vec(), signature.to_vec()));
            signed.is_some()
        })?;
        if (1..=unix_ms).contains(&invite.expires_unix_ms) {
            return Err(InviteError::Expired);
        }
        let (key, covered, signature) = signed.ok_or(InviteError::Damaged)?;
        invite.run_name = tame(&invite.run_name);
        let certificates = web::hashes(&invite.certificates).unwrap_or_default();
        Ok(Claimed {
            membership: Membership { invite, token, name: tame(name), certificates },
            key,
            covered,
            signature,
        })
    }

    /// What was joined; `None`: nothing, or nothing that can be read.
    pub fn load(disk: &dyn Disk) -> io::Result<Option<Self>> {
        Ok(disk.read(FILE)?.and_then(|bytes| Self::of(&bytes)))
    }

    fn of(bytes: &[u8]) -> Option<Self> {
        let stored: Stored = serde_json::from_slice(bytes).ok()?;
        let decoded = |texts: &[String]| -> Option<Vec<Vec<u8>>> {
            texts.iter().map(|text| BASE64URL_NOPAD.decode(text.as_bytes()).ok()).collect()
        };
        let token = BASE64URL_NOPAD.decode(stored.token.as_bytes()).ok()?;
        // Its signature was checked before it was stored.
        let mut invite = invite::open(&token, |_, _, _| true).ok()?;
        invite.run_name = tame(&invite.run_name);
        invite.public_keys = decoded(&stored.pins)?;
        let certificates = web::hashes(&decoded(&stored.certificates)?).unwrap_or_default();
        Some(Membership { invite, token, name: stored.name, certificates })
    }

    /// Writes it.
    pub fn store(&self, disk: &dyn Disk) -> io::Result<()> {
        let encoded = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        let stored = Stored {
            token: encoded(&self.token),
            name: self.name.clone(),
            pins: self.invite.public_keys.iter().map(|key| encoded(key)).collect(),
            certificates: self.certificates.iter().map(|hash| encoded(hash)).collect(),
        };
        disk.write(FILE, &serde_json::to_vec_pretty(&stored)?)
    }

    /// The keys by which the coordinator is known.
    pub fn pins(&self) -> Vec<[u8; 32]> {
        self.invite.public_keys.iter().filter_map(|key| key.as_slice().try_into().ok()).collect()
    }

    /// The same, with other keys of the coordinator's.
    pub fn repinned(&self, keys: &[[u8; 32]]) -> Self {
        let public_keys = keys.iter().map(|key| key.to_vec()).collect();
        Membership { invite: wire::Invite { public_keys, ..self.invite.clone() }, ..self.clone() }
    }

    /// The same, trusting these certificates.
    pub fn trusting(&self, certificates: Vec<CertificateHash>) -> Self {
        Membership { certificates, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightjar_shared::disk::FolderDisk;

    fn link() -> String {
        let invite = wire::Invite {
            addresses: vec!["127.0.0.1:4433".into()],
            public_keys: vec![vec![1; 32], vec![2; 32]],
            role: wire::Role::Volunteer as i32,
            expires_unix_ms: 1000,
            certificates: vec![vec![3; 32], vec![4; 32]],
            ..Default::default()
        };
        invite::to_link(&invite::seal(&invite, |_| [9; 64]))
    }

    #[test]
    fn a_link_is_opened_and_kept() {
        let claimed = Membership::claimed(&format!("https://lab.example/join/#{}", link()), "phone", 999).unwrap();
        assert_eq!((claimed.key, &claimed.signature[..]), ([1; 32], &[9; 64][..]));
        let membership = claimed.believed();
        assert_eq!(membership.certificates, [[3; 32], [4; 32]]);
        let folder = tempfile::tempdir().unwrap();
        let disk = FolderDisk::open(folder.path()).unwrap();
        assert_eq!(Membership::load(&disk).unwrap(), None);
        let later = membership.repinned(&[[2; 32], [5; 32]]).trusting(vec![[6; 32]]);
        later.store(&disk).unwrap();
        assert_eq!(Membership::load(&disk).unwrap(), Some(later));
        disk.write(FILE, b"{").unwrap();
        assert_eq!(Membership::load(&disk).unwrap(), None);
        assert_eq!(Membership::claimed(&link(), "", 1000).err(), Some(InviteError::Expired));
    }
}
