//! A cohort's key: made once, kept, and never overwritten. Flower knows a node by it.

use data_encoding::BASE64;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::Path,
};

/// A key that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file system's word.
    #[error("the key {path} cannot be read or written: {error}")]
    File {
        /// Which.
        path: String,
        /// What it says.
        #[source]
        error: io::Error,
    },
    /// It is none.
    #[error(
        "{0} is no key of this program (an EC P-256 key in PKCS#8 PEM); it was not changed: restore it, or move it away"
    )]
    Foreign(String),
    /// The system has no randomness.
    #[error("no key could be made: the system gives no random numbers")]
    NoRandomness,
}

const PEM: [&str; 2] = ["-----BEGIN PRIVATE KEY-----\n", "-----END PRIVATE KEY-----\n"];
/// What comes before the point of a P-256 key in its SubjectPublicKeyInfo (RFC 5480).
const SPKI: &str = "3059301306072A8648CE3D020106082A8648CE3D030107034200";

/// A key.
pub struct Key {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    pem: String,
}

impl Key {
    /// Reads the key, or makes it where there is none.
    pub fn open(path: &Path) -> Result<Key, KeyError> {
        let failed = |error| KeyError::File { path: path.display().to_string(), error };
        let random = SystemRandom::new();
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random);
                let made = made.map_err(|_| KeyError::NoRandomness)?;
                let text = pem(PEM, made.as_ref());
                keep(path, &text).map_err(failed)?;
                text
            }
            text => text.map_err(failed)?,
        };
        let foreign = || KeyError::Foreign(path.display().to_string());
        let inside = text.trim_start().strip_prefix(PEM[0].trim_end()).and_then(|rest| rest.split_once("-----"));
        let inside: String = inside.ok_or_else(foreign)?.0.split_whitespace().collect();
        let der = BASE64.decode(inside.as_bytes()).map_err(|_| foreign())?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &der, &random).map_err(|_| foreign())?;
        let spki = data_encoding::HEXUPPER.decode(SPKI.as_bytes()).unwrap_or_default();
        let public = [spki.as_slice(), pair.public_key().as_ref()].concat();
        let pem = pem(["-----BEGIN PUBLIC KEY-----\n", "-----END PUBLIC KEY-----\n"], &public);
        Ok(Key { pair, random, pem })
    }

    /// The public half, as Flower takes it.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The public half, as `flwr supernode register` takes it.
    pub fn ssh(&self, comment: &str) -> String {
        let (kind, curve) = ("ecdsa-sha2-nistp256", "nistp256");
        let parts = [kind.as_bytes(), curve.as_bytes(), self.pair.public_key().as_ref()];
        let blob: Vec<u8> = parts
            .iter()
            .flat_map(|part| (part.len() as u32).to_be_bytes().into_iter().chain(part.iter().copied()))
            .collect();
        format!("{kind} {} {comment}\n", BASE64.encode(&blob))
    }

    /// An ECDSA signature of the SHA-256 of these bytes, in DER.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        // Without randomness there would be no TLS either; a request without a signature is refused, and that is told.
        self.pair.sign(&self.random, message).map_or_else(|_| vec![], |signature| signature.as_ref().to_vec())
    }
}

fn pem([begin, end]: [&str; 2], der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap_or_default()).collect();
    format!("{begin}{}\n{end}", lines.join("\n"))
}

/// Writes a key where none is, for its owner alone; whole, or not at all.
fn keep(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    // Where somebody was faster, that key stays.
    fs::hard_link(&beside, path).or_else(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Err(error),
        _ => fs::rename(&beside, path),
    })?;
    let _ = fs::remove_file(&beside);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};

    #[test]
    fn a_key_is_made_once_and_signs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("north.pem");
        let key = Key::open(&path).unwrap();
        assert_eq!(Key::open(&path).unwrap().pem(), key.pem(), "it is the same the next time");
        assert!(key.pem().starts_with("-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE"));
        let signature = key.sign(b"2026-01-01");
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.pair.public_key().as_ref());
        public.verify(b"2026-01-01", &signature).unwrap();
        assert!(public.verify(b"2026-01-02", &signature).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_reads_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("north.pem");
        Key::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_no_key_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("north.pem");
        for text in ["", "a letter", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            fs::write(&path, text).unwrap();
            assert!(matches!(Key::open(&path), Err(KeyError::Foreign(_))), "{text}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
