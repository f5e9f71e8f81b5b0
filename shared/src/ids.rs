//! Names of things: devices, blobs, leases, versions, generations. Each is its own type, so that none is taken for
//! another.

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{fmt, str::FromStr};

/// Text that is not the 64 hexadecimal digits of a 32-byte name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected 64 hexadecimal digits")]
pub struct NotAHash;

macro_rules! hash_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// From bytes of a message; `None` unless there are exactly 32.
            pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// The first eight hexadecimal digits: enough for a person to tell two apart.
            pub fn short(&self) -> String {
                HEXLOWER.encode(&self.0[..4])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = NotAHash;
            fn from_str(text: &str) -> Result<Self, NotAHash> {
                let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| NotAHash)?;
                Self::from_bytes(&bytes).ok_or(NotAHash)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

hash_type!(
    /// A device: the SHA-256 of its ed25519 public key in SPKI form.
    DeviceId
);
hash_type!(
    /// A blob: the BLAKE3 hash of its bytes.
    BlobHash
);
hash_type!(
    /// A run: the BLAKE3 hash of its run spec as canonical JSON, and of its dataset's manifest.
    RunId
);

impl DeviceId {
    /// The id that belongs to a public key, given as SubjectPublicKeyInfo (DER).
    pub fn of_spki(spki: &[u8]) -> Self {
        use sha2::Digest;
        DeviceId(sha2::Sha256::digest(spki).into())
    }
}

impl BlobHash {
    /// The name of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        BlobHash(*blake3::hash(bytes).as_bytes())
    }
}

macro_rules! number_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The one that follows.
            pub fn next(self) -> Self {
                $name(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

number_type!(
    /// A lease, numbered from 1 within its run.
    LeaseId
);
number_type!(
    /// A published version of the weights; 0 is where the run starts.
    Version
);
number_type!(
    /// Counts the coordinator's starts of a run: a lease or message of another generation is answered with "hello
    /// again".
    Generation
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_survive_text() {
        let id = BlobHash::of(b"abc");
        assert_eq!(id.to_string().parse::<BlobHash>(), Ok(id));
        assert_eq!("zz".parse::<BlobHash>(), Err(NotAHash));
        assert_eq!(BlobHash::from_bytes(&[0; 31]), None);
    }
}
