//! The coordinator's identity: one ed25519 key, made at the first start. It is the server's side of every handshake,
//! and it signs the invites that pin it.
//!
//! Beside it lies a spare. Devices pin both, so that the spare can take the key's place one day ([`Identity::rotate`]):
//! because the key was seen by others, or because keys are changed every year. Then a new spare is drawn, and devices
//! learn it at their next hello. Only the spare's public half is needed until then; the other may lie in a safe.

use data_encoding::HEXLOWER;
use nightjar_shared::{
    disk::Disk,
    fail,
    ids::DeviceId,
    invite::{self, InviteError, spki_of_ed25519},
    time::Wall,
    web::{self, CertificateHash},
    wire::Invite,
};
use ring::{
    rand::SystemRandom,
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use std::io;

/// The key's file in the state folder.
pub const FILE: &str = "coordinator.pk8";
/// The spare, which may be kept elsewhere.
pub const SPARE_FILE: &str = "coordinator.spare.pk8";
/// The spare's public half, in hexadecimal digits.
pub const SPARE_PUBLIC_FILE: &str = "coordinator.spare.pub";
/// Keys of before, a line each: invites that they signed are still good.
pub const FORMER_FILE: &str = "coordinator.former";
/// All that may lie beside the key.
pub const BESIDE: [&str; 3] = [SPARE_FILE, SPARE_PUBLIC_FILE, FORMER_FILE];

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
    /// A list of public keys holds something else.
    #[error("{0} holds what is no public key; restore it from a backup")]
    NotPublic(&'static str),
    /// The key that was given is not the spare that devices know.
    #[error("this is not the spare that devices know ({SPARE_PUBLIC_FILE}); give the file that was {SPARE_FILE}")]
    NotTheSpare,
    /// Devices know no spare yet.
    #[error("devices know no spare key yet; serve the run with this version first, and let them say hello")]
    NoSpare,
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
    spare: Option<PublicKey>,
    former: Vec<PublicKey>,
}

/// An ed25519 public key.
pub type PublicKey = [u8; 32];

/// The name of a public key: what the ledger knows it by.
pub fn id_of(key: &PublicKey) -> DeviceId {
    DeviceId::of_spki(&spki_of_ed25519(key))
}

fn failed(disk: &dyn Disk) -> impl Fn(io::Error) -> IdentityError {
    let file = disk.path(FILE).display().to_string();
    move |source| IdentityError::Io { file: file.clone(), source }
}

impl Identity {
    /// Reads the key from the state folder.
    pub fn open(disk: &dyn Disk) -> Result<Self, IdentityError> {
        let identity = Self::from_pkcs8(disk.read(FILE).map_err(failed(disk))?.ok_or(IdentityError::Missing)?)?;
        let spare = public_keys(disk, SPARE_PUBLIC_FILE)?.first().copied();
        // A rotation may have been cut short right after the spare took the key's place.
        let spare = spare.filter(|spare| *spare != identity.public_key());
        Ok(Identity { spare, former: public_keys(disk, FORMER_FILE)?, ..identity })
    }

    /// Reads the key from a state folder that no run was begun in yet; draws one where there is none. It lasts once it
    /// is stored.
    pub fn open_or_draw(disk: &dyn Disk) -> Result<Self, IdentityError> {
        if disk.read(FILE).map_err(failed(disk))?.is_some() {
            return Self::open(disk);
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
        Ok(Identity { pkcs8, pair, spare: None, former: vec![] })
    }

    /// Draws a spare where there is none, and stores it: devices may be told of it from here on.
    pub fn with_spare(self, disk: &dyn Disk) -> Result<Self, IdentityError> {
        if self.spare.is_some() {
            return Ok(self);
        }
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| IdentityError::NoRandomness)?;
        let spare = Self::from_pkcs8(pkcs8.as_ref().to_vec())?.public_key();
        // Its secret half first: one that devices know and nobody has would be worth nothing.
        disk.write_private(SPARE_FILE, pkcs8.as_ref()).map_err(failed(disk))?;
        fail::point("spare.written");
        write_public_keys(disk, SPARE_PUBLIC_FILE, &[spare])?;
        Ok(Identity { spare: Some(spare), ..self })
    }

    /// The spare takes the key's place, and another is drawn. `spare` is its PKCS#8 document where it was kept
    /// elsewhere. The key of before signed invites that go round: they stay good if it `is_trusted`. A crash at any
    /// moment leaves one key or the other, and the same call goes on.
    pub fn rotate(self, disk: &dyn Disk, spare: &Spare, is_trusted: bool) -> Result<Self, IdentityError> {
        if is_trusted && !self.former.contains(&self.public_key()) {
            let former: Vec<PublicKey> = self.former.iter().copied().chain([self.public_key()]).collect();
            write_public_keys(disk, FORMER_FILE, &former)?;
        }
        fail::point("former.written");
        disk.write_private(FILE, &spare.pkcs8).map_err(failed(disk))?;
        fail::point("key.rotated");
        Self::open(disk)?.with_spare(disk)
    }

    /// The spare's secret half, from the state folder or from where it was kept.
    pub fn spare(&self, disk: &dyn Disk, kept: Option<Vec<u8>>) -> Result<Spare, IdentityError> {
        let known = self.spare.ok_or(IdentityError::NoSpare)?;
        let pkcs8 = match kept {
            Some(pkcs8) => pkcs8,
            None => disk.read(SPARE_FILE).map_err(failed(disk))?.ok_or(IdentityError::NotTheSpare)?,
        };
        let spare = Self::from_pkcs8(pkcs8).map_err(|_| IdentityError::NotTheSpare)?;
        if spare.public_key() == known {
            Ok(Spare { pkcs8: spare.pkcs8, key: known })
        } else {
            Err(IdentityError::NotTheSpare)
        }
    }

    /// What devices are to pin: the key, and the spare.
    pub fn pins(&self) -> Vec<PublicKey> {
        [self.public_key()].into_iter().chain(self.spare).collect()
    }

    /// Keys of before whose invites are good.
    pub fn former(&self) -> &[PublicKey] {
        &self.former
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
        id_of(&self.public_key())
    }

    /// A short name of the key, for people to compare.
    pub fn fingerprint(&self) -> String {
        self.id().short()
    }

    /// The token of an invite that pins this key and the spare. Whatever the invite says about keys is replaced.
    pub fn sign_invite(&self, invite: Invite) -> Vec<u8> {
        let invite = Invite { public_keys: self.pins().iter().map(|key| key.to_vec()).collect(), ..invite };
        invite::seal(&invite, |message| self.sign(message))
    }

    /// The hashes of certificates that pages may trust, sealed by this key.
    pub fn seal_certificates(&self, hashes: &[CertificateHash]) -> Vec<u8> {
        web::seal_certificates(hashes, |message| self.sign(message))
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(message).as_ref());
        signature
    }

    /// Opens a token that a device brought: it must be signed by this key, or one of before, and not expired.
    pub fn check_invite(&self, token: &[u8], now: Wall) -> Result<Invite, InviteError> {
        let own = self.public_key();
        let is_ours = |key: &[u8]| key == own || self.former.iter().any(|former| key == former);
        let invite = invite::open(token, |key, message, signature| {
            is_ours(key) && UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
        })?;
        let expired = invite.expires_unix_ms != 0 && invite.expires_unix_ms <= now.unix_ms;
        if expired { Err(InviteError::Expired) } else { Ok(invite) }
    }
}

/// A spare with its secret half.
pub struct Spare {
    pkcs8: Vec<u8>,
    key: PublicKey,
}

impl Spare {
    /// Its name, once it is the key.
    pub fn id(&self) -> DeviceId {
        id_of(&self.key)
    }
}

/// The public keys in a file, a line each; none where it is not there.
fn public_keys(disk: &dyn Disk, file: &'static str) -> Result<Vec<PublicKey>, IdentityError> {
    let bytes = disk.read(file).map_err(failed(disk))?.unwrap_or_default();
    let key = |line: &[u8]| HEXLOWER.decode(line).ok()?.try_into().ok();
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(key).collect::<Option<_>>().ok_or(IdentityError::NotPublic(file))
}

fn write_public_keys(disk: &dyn Disk, file: &str, keys: &[PublicKey]) -> Result<(), IdentityError> {
    let lines: String = keys.iter().map(|key| format!("{}\n", HEXLOWER.encode(key))).collect();
    disk.write(file, lines.as_bytes()).map_err(failed(disk))
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

    #[test]
    fn the_spare_takes_the_keys_place_and_devices_know_it_before() {
        let (_folder, disk) = disk();
        let first = Identity::open_or_draw(&disk).unwrap();
        first.store(&disk).unwrap();
        assert!(matches!(first.spare(&disk, None), Err(IdentityError::NoSpare)));
        let first = first.with_spare(&disk).unwrap();
        let (pinned, token) = (first.pins(), first.sign_invite(invite(0)));
        assert_eq!(Identity::open(&disk).unwrap().with_spare(&disk).unwrap().pins(), pinned, "it is drawn once");

        // Its secret half may lie elsewhere.
        let kept = disk.read(SPARE_FILE).unwrap().unwrap();
        disk.remove(SPARE_FILE).unwrap();
        assert!(matches!(first.spare(&disk, None), Err(IdentityError::NotTheSpare)));
        assert!(matches!(first.spare(&disk, Some(first.pkcs8.clone())), Err(IdentityError::NotTheSpare)));
        let spare = first.spare(&disk, Some(kept)).unwrap();
        assert_eq!(spare.id(), id_of(&pinned[1]));

        let second = first.rotate(&disk, &spare, true).unwrap();
        assert_eq!(second.public_key(), pinned[1]);
        assert!(!pinned.contains(&second.pins()[1]), "another spare");
        assert_eq!(second.pins(), Identity::open(&disk).unwrap().pins());
        assert!(second.check_invite(&token, Wall::default()).is_ok(), "invites that go round stay good");

        // One that others may have signed with is good no longer.
        let (token, spare) = (second.sign_invite(invite(0)), second.spare(&disk, None).unwrap());
        let third = second.rotate(&disk, &spare, false).unwrap();
        assert_eq!(third.check_invite(&token, Wall::default()), Err(InviteError::BadSignature));
    }

    /// Right after the spare took the key's place it is no spare any more.
    #[test]
    fn a_rotation_that_is_cut_short_ends_in_the_next_start() {
        let (_folder, disk) = disk();
        let first = Identity::open_or_draw(&disk).unwrap();
        first.store(&disk).unwrap();
        let first = first.with_spare(&disk).unwrap();
        let spare = disk.read(SPARE_FILE).unwrap().unwrap();
        disk.write_private(FILE, &spare).unwrap();
        let cut = Identity::open(&disk).unwrap();
        assert_eq!(cut.pins(), [first.pins()[1]]);
        let whole = cut.with_spare(&disk).unwrap();
        assert_eq!(whole.pins().len(), 2);
        assert_eq!(whole.pins(), Identity::open(&disk).unwrap().pins());
    }
}
