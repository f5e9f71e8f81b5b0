//! Which run this device has joined: the invite's token, kept as `membership.json`.

use data_encoding::BASE64URL_NOPAD;
use nightjar_shared::{
    disk::Disk,
    invite::{self, InviteError},
    wire,
};
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use std::io;

/// The membership's file in the home folder.
pub const MEMBERSHIP_FILE: &str = "membership.json";

/// A run joined.
#[derive(Clone, Debug, PartialEq)]
pub struct Membership {
    /// The invite, its signature checked. Its keys are those that the coordinator named last: they may be others than
    /// the token's.
    pub invite: wire::Invite,
    /// The token that it came in.
    pub token: Vec<u8>,
    /// How the owner calls this device.
    pub name: String,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    token: String,
    name: String,
    /// The coordinator's keys, where it has named them since.
    #[serde(default)]
    pins: Vec<String>,
}

/// No membership, or none that can be used.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// There is none.
    #[error("this device has not joined a run; `nightjar join INVITE` does")]
    None,
    /// The invite is at fault.
    #[error(transparent)]
    Invite(#[from] InviteError),
    /// The file is not as it was written.
    #[error("{0} is damaged; `nightjar join INVITE` writes it anew")]
    Damaged(String),
    /// The disk refused.
    #[error("cannot read or write {file}: {source}")]
    Disk {
        /// Where.
        file: String,
        /// The disk's words.
        source: io::Error,
    },
}

impl Membership {
    /// Of an invite link, if its signature fits and it has not expired. `unix_ms` is the wall time.
    pub fn from_link(link: &str, name: &str, unix_ms: u64) -> Result<Self, MembershipError> {
        let membership = Self::from_token(invite::from_link(link)?, name)?;
        if (1..=unix_ms).contains(&membership.invite.expires_unix_ms) {
            return Err(InviteError::Expired.into());
        }
        Ok(membership)
    }

    fn from_token(token: Vec<u8>, name: &str) -> Result<Self, InviteError> {
        let verify = |key: &[u8], message: &[u8], signature: &[u8]| {
            UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
        };
        let mut invite = invite::open(&token, verify)?;
        invite.run_name = wire::limits::tame(&invite.run_name);
        Ok(Membership { invite, token, name: wire::limits::tame(name) })
    }

    /// Reads what was joined. An invite that has expired since then is none the worse: the device is enrolled.
    pub fn load(disk: &dyn Disk) -> Result<Self, MembershipError> {
        let file = || disk.path(MEMBERSHIP_FILE).display().to_string();
        let bytes = disk.read(MEMBERSHIP_FILE).map_err(|source| MembershipError::Disk { file: file(), source })?;
        let stored: Stored = serde_json::from_slice(&bytes.ok_or(MembershipError::None)?)
            .map_err(|_| MembershipError::Damaged(file()))?;
        let token = BASE64URL_NOPAD.decode(stored.token.as_bytes()).map_err(|_| MembershipError::Damaged(file()))?;
        let membership = Self::from_token(token, &stored.name).map_err(|_| MembershipError::Damaged(file()))?;
        let pins = stored.pins.iter().map(|pin| BASE64URL_NOPAD.decode(pin.as_bytes()).ok()?.try_into().ok());
        let pins: Vec<[u8; 32]> = pins.collect::<Option<_>>().ok_or_else(|| MembershipError::Damaged(file()))?;
        Ok(if pins.is_empty() { membership } else { membership.repinned(&pins) })
    }

    /// The same, with other keys of the coordinator's.
    pub fn repinned(&self, keys: &[[u8; 32]]) -> Self {
        let public_keys = keys.iter().map(|key| key.to_vec()).collect();
        Membership { invite: wire::Invite { public_keys, ..self.invite.clone() }, ..self.clone() }
    }

    /// Writes it.
    pub fn store(&self, disk: &dyn Disk) -> Result<(), MembershipError> {
        let error = |source| MembershipError::Disk { file: disk.path(MEMBERSHIP_FILE).display().to_string(), source };
        let pins = self.invite.public_keys.iter().map(|key| BASE64URL_NOPAD.encode(key)).collect();
        let stored = Stored { token: BASE64URL_NOPAD.encode(&self.token), name: self.name.clone(), pins };
        let bytes = serde_json::to_vec_pretty(&stored).map_err(|e| error(e.into()))?;
        disk.write_private(MEMBERSHIP_FILE, &bytes).map_err(error)
    }

    /// Whether both are of one run of one coordinator, as far as invites tell: it may have changed its key in between.
    pub fn is_same_run(&self, other: &Membership) -> bool {
        let has = |key| other.invite.public_keys.contains(key);
        self.invite.run_name == other.invite.run_name && self.invite.public_keys.iter().any(has)
    }

    /// What the invite made this device.
    pub fn role(&self) -> wire::Role {
        self.invite.role()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use nightjar_shared::disk::FolderDisk;
    use ring::signature::Ed25519KeyPair;

    fn link(expires_unix_ms: u64) -> String {
        let coordinator = Identity::generate().unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(coordinator.pkcs8()).unwrap();
        let invite = wire::Invite {
            addresses: vec!["127.0.0.1:4433".into()],
            public_keys: vec![coordinator.public_key().to_vec()],
            role: wire::Role::Anchor as i32,
            expires_unix_ms,
            ..Default::default()
        };
        invite::to_link(&invite::seal(&invite, |m| pair.sign(m).as_ref().try_into().unwrap()))
    }

    #[test]
    fn a_membership_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let disk = FolderDisk::open(folder.path()).unwrap();
        assert!(Membership::load(&disk).unwrap_err().to_string().contains("nightjar join"));
        let membership = Membership::from_link(&link(0), "den", 5).unwrap();
        assert_eq!(membership.role(), wire::Role::Anchor);
        membership.store(&disk).unwrap();
        assert_eq!(Membership::load(&disk).unwrap(), membership);
        // The coordinator's key may change, and the run is the same as long as one key is known.
        let old = membership.invite.public_keys[0].clone();
        let before = membership.repinned(&[old.try_into().unwrap(), [1; 32]]);
        let after = membership.repinned(&[[1; 32], [2; 32]]);
        after.store(&disk).unwrap();
        assert_eq!(Membership::load(&disk).unwrap(), after);
        assert!(membership.is_same_run(&before) && before.is_same_run(&after) && !membership.is_same_run(&after));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(disk.path(MEMBERSHIP_FILE)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "whoever has the token can join");
        }
    }

    #[test]
    fn an_old_or_changed_invite_is_refused() {
        assert!(Membership::from_link(&link(5), "", 4).is_ok());
        let expired = Membership::from_link(&link(5), "", 5).unwrap_err();
        assert!(matches!(expired, MembershipError::Invite(InviteError::Expired)));
        let mut token = invite::from_link(&link(0)).unwrap();
        token[9] ^= 1;
        assert!(Membership::from_link(&invite::to_link(&token), "", 5).is_err());
    }
}
