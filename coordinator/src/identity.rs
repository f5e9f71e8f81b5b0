//! The coordinator's identity: one ed25519 key, made at the first start. It is the server's side of every handshake,
//! and it signs the invites that pin it.

use nightjar_shared::{
    disk::Disk,
    ids::DeviceId,
    invite::{self, InviteError, spki_of_ed25519},
    time::Wall,
    wire::Invite,
};
use ring::{
    rand::SystemRandom,
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use std::io;

/// The key's file in the state folder.
pub const FILE: &str = "coordinator.pk8";

/// A key that cannot be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file could not be read or written.
    #[error("the key file {file} could not be read or written: {source}; make it readable for the user who runs this")]
    Io {
        /// Where it is.
        file: String,
        /// What the system says.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{FILE} holds no ed25519 key; restore it from a backup: without it no device can come back")]
    NotAKey,
    /// There is none, and none is to be made.
    #[error("there is no key ({FILE}) in this state folder; start the run with `nightjar-coordinator serve` first")]
    Missing,
    /// The system has no randomness.
    #[error("the system gave no random bytes for a new key")]
    NoRandomness,
}

/// The coordinator's key pair.
pub struct Identity {
    pkcs8: Vec<u8>,
    pair: Ed25519KeyPair,
}

fn failed(disk: &dyn Disk) -> impl Fn(io::Error) -> IdentityError {
    let file = disk.path(FILE).display().to_string();
    move |source| IdentityError::Io { file: file.clone(), source }
}

impl Identity {
    /// Reads the key from the state folder.
    pub fn open(disk: &dyn Disk) -> Result<Self, IdentityError> {
        Self::from_pkcs8(disk.read(FILE).map_err(failed(disk))?.ok_or(IdentityError::Missing)?)
    }

    /// Reads the key from a state folder that no run was begun in yet; draws one where there is none. It lasts once it
    /// is stored.
    pub fn open_or_draw(disk: &dyn Disk) -> Result<Self, IdentityError> {
        if let Some(pkcs8) = disk.read(FILE).map_err(failed(disk))? {
            return Self::from_pkcs8(pkcs8);
        }
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| IdentityError::NoRandomness)?;
        Self::from_pkcs8(pkcs8.as_ref().to_vec())
    }

    /// Writes the key to the state folder of a new run.
    pub fn store(&self, disk: &dyn Disk) -> Result<(), IdentityError> {
        disk.write_private(FILE, &self.pkcs8).map_err(failed(disk))
    }

    /// The key in a PKCS#8 document.
    pub fn from_pkcs8(pkcs8: Vec<u8>) -> Result<Self, IdentityError> {
        let pair = Ed25519KeyPair::from_pkcs8(&pkcs8).map_err(|_| IdentityError::NotAKey)?;
        Ok(Identity { pkcs8, pair })
    }

    /// The private key as a PKCS#8 document, for TLS.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The public key: 32 bytes.
    pub fn public_key(&self) -> [u8; 32] {
        let mut key = [0; 32];
        key.copy_from_slice(self.pair.public_key().as_ref());
        key
    }

    /// The public key as SubjectPublicKeyInfo (DER): what TLS shows.
    pub fn spki(&self) -> Vec<u8> {
        spki_of_ed25519(&self.public_key())
    }

    /// The key's name: what the ledger knows it by.
    pub fn id(&self) -> DeviceId {
        DeviceId::of_spki(&self.spki())
    }

    /// A short name of the key, for people to compare.
    pub fn fingerprint(&self) -> String {
        self.id().short()
    }

    /// The token of an invite that pins this key. Whatever the invite says about keys is replaced.
    pub fn sign_invite(&self, invite: Invite) -> Vec<u8> {
        let invite = Invite { public_keys: vec![self.public_key().to_vec()], ..invite };
        invite::seal(&invite, |message| {
            let mut signature = [0; 64];
            signature.copy_from_slice(self.pair.sign(message).as_ref());
            signature
        })
    }

    /// Opens a token that a device brought: it must be signed by this key and not expired.
    pub fn check_invite(&self, token: &[u8], now: Wall) -> Result<Invite, InviteError> {
        let own = self.public_key();
        let invite = invite::open(token, |key, message, signature| {
            key == own && UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
        })?;
        let expired = invite.expires_unix_ms != 0 && invite.expires_unix_ms <= now.unix_ms;
        if expired { Err(InviteError::Expired) } else { Ok(invite) }
    }
}

/// Bytes that tell one invite from another.
pub fn nonce() -> Result<Vec<u8>, IdentityError> {
    let mut nonce = vec![0; 16];
    ring::rand::SecureRandom::fill(&SystemRandom::new(), &mut nonce).map_err(|_| IdentityError::NoRandomness)?;
    Ok(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightjar_shared::{disk::FolderDisk, wire::Role};

    fn disk() -> (tempfile::TempDir, FolderDisk) {
        let folder = tempfile::tempdir().unwrap();
        let disk = FolderDisk::open(folder.path()).unwrap();
        (folder, disk)
    }

    fn invite(expires_unix_ms: u64) -> Invite {
        Invite { addresses: vec!["h:1".into()], role: Role::Volunteer as i32, expires_unix_ms, ..Default::default() }
    }

    #[test]
    fn the_key_stays_the_same() {
        let (_folder, disk) = disk();
        assert!(matches!(Identity::open(&disk), Err(IdentityError::Missing)));
        let drawn = Identity::open_or_draw(&disk).unwrap();
        assert!(matches!(Identity::open(&disk), Err(IdentityError::Missing)), "it is not written before it is needed");
        drawn.store(&disk).unwrap();
        for again in [Identity::open(&disk), Identity::open_or_draw(&disk)] {
            assert_eq!(again.unwrap().public_key(), drawn.public_key());
        }
        disk.remove(FILE).unwrap();
        std::fs::create_dir(disk.path(FILE)).unwrap();
        let told = Identity::open(&disk).err().unwrap().to_string();
        assert!(told.contains(&disk.path(FILE).display().to_string()), "{told}");
        std::fs::remove_dir(disk.path(FILE)).unwrap();
        disk.write(FILE, b"junk").unwrap();
        assert!(matches!(Identity::open_or_draw(&disk), Err(IdentityError::NotAKey)), "never replaced");
    }

    #[test]
    fn an_invite_is_good_only_where_it_was_signed_and_while_it_lasts() {
        let ((_a, ours), (_b, theirs)) = (disk(), disk());
        let (ours, theirs) = (Identity::open_or_draw(&ours).unwrap(), Identity::open_or_draw(&theirs).unwrap());
        let (before, after) = (Wall { unix_ms: 999 }, Wall { unix_ms: 1000 });
        let token = ours.sign_invite(invite(1000));
        assert_eq!(ours.check_invite(&token, before).unwrap().public_keys, [ours.public_key().to_vec()]);
        assert_eq!(ours.check_invite(&token, after), Err(InviteError::Expired));
        assert_eq!(theirs.check_invite(&token, before), Err(InviteError::BadSignature));
        assert!(ours.check_invite(&ours.sign_invite(invite(0)), after).is_ok(), "0: never");
        let mut changed = token.clone();
        let last_of_message = token.len() - 65;
        changed[last_of_message] ^= 1;
        assert!(ours.check_invite(&changed, before).is_err());
    }
}
