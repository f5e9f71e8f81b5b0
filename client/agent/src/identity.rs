//! Who this device is: an ed25519 key, drawn at first start, that never leaves the home folder. The device's id is the
//! SHA-256 of its public key.

use crate::{
    home::Home,
    journal::{self, JOURNAL_FILE},
    membership::MEMBERSHIP_FILE,
};
use nightjar_shared::{ids::DeviceId, invite, plain};
use ring::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};
use std::{fs, io, path::Path};

const IDENTITY_FILE: &str = "identity.pk8";
/// No key's file is longer.
const FILE_BYTES_MAX: u64 = 4 << 10;

/// A device's key.
pub struct Identity {
    pkcs8: Vec<u8>,
    pair: Ed25519KeyPair,
    public_key: [u8; 32],
}

/// A key that cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The disk refused.
    #[error("cannot read or write this device's key {file}: {source}")]
    Disk {
        /// Where.
        file: String,
        /// The disk's words.
        source: io::Error,
    },
    /// The file holds no key.
    #[error("{file} holds no ed25519 key; move it away and join again: the device gets a new id")]
    Damaged {
        /// Where.
        file: String,
    },
    /// It is gone, and what it was for is not.
    #[error(
        "this device's key {file} is gone, but {left} is there: the run knows the device by that key only. Put the key back, or \
         start as a new device with `nightjar join INVITE`"
    )]
    Lost {
        /// Where.
        file: String,
        /// What is there.
        left: &'static str,
    },
    /// The system's random source failed.
    #[error("the system gives no random numbers, so no key can be drawn")]
    NoRandomness,
}

impl Identity {
    /// Reads the key; draws and writes one at first start. A device that has begun is not made another one.
    pub fn load_or_create(home: &Home) -> Result<Self, IdentityError> {
        let path = home.path(IDENTITY_FILE);
        let file = path.display().to_string();
        match plain::read(&path) {
            Ok(pkcs8) => Self::from_pkcs8(pkcs8).ok_or(IdentityError::Damaged { file }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if let Some(left) = [MEMBERSHIP_FILE, JOURNAL_FILE].into_iter().find(|name| home.path(name).exists()) {
                    return Err(IdentityError::Lost { file, left });
                }
                let identity = Self::generate()?;
                home.write_private(IDENTITY_FILE, &identity.pkcs8)
                    .map_err(|source| IdentityError::Disk { file, source })?;
                Ok(identity)
            }
            Err(source) => Err(IdentityError::Disk { file, source }),
        }
    }

    /// The same, for a device that may begin anew: what it had begun under a key that is gone is forgotten.
    pub fn load_or_begin_anew(home: &Home) -> Result<Self, IdentityError> {
        match Self::load_or_create(home) {
            Err(IdentityError::Lost { file, .. }) => {
                let failed = |source| IdentityError::Disk { file: file.clone(), source };
                journal::forget(&*home.disk()).map_err(failed)?;
                let identity = Self::generate()?;
                home.write_private(IDENTITY_FILE, &identity.pkcs8).map_err(failed)?;
                Ok(identity)
            }
            loaded => loaded,
        }
    }

    /// Draws a key.
    pub fn generate() -> Result<Self, IdentityError> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| IdentityError::NoRandomness)?;
        Self::from_pkcs8(document.as_ref().to_vec()).ok_or(IdentityError::NoRandomness)
    }

    /// Whether a folder holds a device's key.
    pub(crate) fn is_in(folder: &Path) -> bool {
        let file = folder.join(IDENTITY_FILE);
        let is_small = fs::symlink_metadata(&file).is_ok_and(|about| about.is_file() && about.len() <= FILE_BYTES_MAX);
        is_small && fs::read(&file).ok().and_then(Self::from_pkcs8).is_some()
    }

    /// The key as its file has it.
    #[cfg(test)]
    pub(crate) fn as_file(&self) -> &[u8] {
        &self.pkcs8
    }

    fn from_pkcs8(pkcs8: Vec<u8>) -> Option<Self> {
        let pair = Ed25519KeyPair::from_pkcs8(&pkcs8).ok()?;
        let public_key = pair.public_key().as_ref().try_into().ok()?;
        Some(Identity { pkcs8, pair, public_key })
    }

    /// Signs a message.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(message).as_ref());
        signature
    }

    /// The device's id.
    pub fn device(&self) -> DeviceId {
        DeviceId::of_spki(&self.spki())
    }

    /// The public key as TLS shows it.
    pub fn spki(&self) -> Vec<u8> {
        invite::spki_of_ed25519(&self.public_key)
    }

    /// The public key.
    pub fn public_key(&self) -> [u8; 32] {
        self.public_key
    }

    /// The key as PKCS #8.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_key_stays_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(Some(folder.path().into())).unwrap();
        let first = Identity::load_or_create(&home).unwrap();
        assert_eq!(Identity::load_or_create(&home).unwrap().device(), first.device());
        fs::write(home.path(IDENTITY_FILE), b"junk").unwrap();
        assert!(matches!(Identity::load_or_create(&home), Err(IdentityError::Damaged { .. })));
    }

    #[test]
    fn a_device_whose_key_is_gone_does_not_become_another_by_itself() {
        for left in [MEMBERSHIP_FILE, JOURNAL_FILE] {
            let folder = tempfile::tempdir().unwrap();
            let home = Home::open(Some(folder.path().into())).unwrap();
            let first = Identity::load_or_create(&home).unwrap();
            fs::write(home.path(left), "{}").unwrap();
            let key = fs::read(home.path(IDENTITY_FILE)).unwrap();
            fs::remove_file(home.path(IDENTITY_FILE)).unwrap();
            let told = Identity::load_or_create(&home).err().unwrap().to_string();
            assert!(
                told.contains(left) && told.contains("nightjar join") && told.contains("Put the key back"),
                "{told}"
            );
            assert!(!home.path(IDENTITY_FILE).exists());
            fs::write(home.path(IDENTITY_FILE), key).unwrap();
            assert_eq!(Identity::load_or_create(&home).unwrap().device(), first.device());
            fs::remove_file(home.path(IDENTITY_FILE)).unwrap();
            let anew = Identity::load_or_begin_anew(&home).unwrap();
            assert!(anew.device() != first.device() && !home.path(JOURNAL_FILE).exists());
        }
    }
}
