//! The certificates that pages know the coordinator by. Browsers take one without an authority if they know its hash
//! and it is valid for less than two weeks (WebTransport, `serverCertificateHashes`): so each is shown for eleven days,
//! and then the next one.
//!
//! Nothing of it is kept. A certificate follows from the coordinator's key and the calendar alone, to the last bit: its
//! key is derived, and its signature is deterministic (RFC 6979). So every process of a coordinator shows the same one
//! at the same time, whoever makes an invite knows it, and hashes can be told long before their certificates are shown.

mod der;

use crate::identity::Identity;
use der::{bit_string, context, explicit, integer, object_id, octet_string, sequence, set, utc_time, utf8_string};
use nightjar_shared::{time::Wall, web::CertificateHash};
use p256::ecdsa::{Signature, SigningKey, signature::Signer};
use ring::digest::{SHA256, digest};

const DAY_MS: u64 = 24 * 3600 * 1000;
/// A certificate is shown for so long.
const SHOWN_MS: u64 = 11 * DAY_MS;
/// It is valid before and after, for clocks that are wrong: 13 days in all, where browsers allow 14.
const CLOCKS_APART_MS: u64 = DAY_MS;

/// OIDs (RFC 5480, RFC 5758, RFC 5280), encoded.
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// In every certificate; nobody looks at it, since the hash says whose it is.
const NAME: &str = "coordinator.nightjar";

/// A span of time, the same for everybody, in which one certificate is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(u64);

impl Period {
    /// The one that a moment is in.
    pub fn at(now: Wall) -> Self {
        Period(now.unix_ms / SHOWN_MS)
    }

    fn begins(self) -> Wall {
        Wall { unix_ms: self.0 * SHOWN_MS }
    }

    fn valid(self) -> (Wall, Wall) {
        let begins = self.begins().unix_ms;
        let before = begins.saturating_sub(CLOCKS_APART_MS);
        (Wall { unix_ms: before }, Wall { unix_ms: begins + SHOWN_MS + CLOCKS_APART_MS })
    }
}

/// What a coordinator's certificates follow from.
pub struct CertificateKey([u8; 32]);

/// A certificate with its key.
pub struct Certificate {
    /// X.509, DER.
    pub der: Vec<u8>,
    /// Its private key: `ECPrivateKey` (RFC 5915), DER.
    pub sec1: Vec<u8>,
}

impl Certificate {
    /// What pages know it by.
    pub fn hash(&self) -> CertificateHash {
        let mut hash = CertificateHash::default();
        hash.copy_from_slice(digest(&SHA256, &self.der).as_ref());
        hash
    }
}

impl CertificateKey {
    /// Of a coordinator.
    pub fn of(identity: &Identity) -> Self {
        CertificateKey(blake3::derive_key("nightjar 2026 certificates for pages", identity.pkcs8()))
    }

    /// The certificate of a period.
    pub fn certificate(&self, period: Period) -> Certificate {
        let key = self.signing_key(period);
        let point = key.verifying_key().to_encoded_point(false);
        let signed_how = sequence(&[&object_id(ECDSA_WITH_SHA256)]);
        let name = sequence(&[&set(&[&sequence(&[&object_id(COMMON_NAME), &utf8_string(NAME)])])]);
        let (from, until) = period.valid();
        let alternative = octet_string(&sequence(&[&context(2, NAME.as_bytes())]));
        let to_be_signed = sequence(&[
            &explicit(0, &integer(&[2])),
            &integer(&period.0.to_be_bytes()),
            &signed_how,
            &name,
            &sequence(&[&utc_time(from), &utc_time(until)]),
            &name,
            &sequence(&[&sequence(&[&object_id(EC_PUBLIC_KEY), &object_id(P256)]), &bit_string(point.as_bytes())]),
            &explicit(3, &sequence(&[&sequence(&[&object_id(SUBJECT_ALT_NAME), &alternative])])),
        ]);
        let signature: Signature = key.sign(&to_be_signed);
        let sec1 = sequence(&[
            &integer(&[1]),
            &octet_string(&key.to_bytes()),
            &explicit(0, &object_id(P256)),
            &explicit(1, &bit_string(point.as_bytes())),
        ]);
        let der = sequence(&[&to_be_signed, &signed_how, &bit_string(signature.to_der().as_bytes())]);
        Certificate { der, sec1 }
    }

    /// Hashes of the certificate that is shown now, and of those that follow it.
    pub fn hashes(&self, now: Wall, count: u64) -> Vec<CertificateHash> {
        let Period(first) = Period::at(now);
        (first..first + count).map(|period| self.certificate(Period(period)).hash()).collect()
    }

    fn signing_key(&self, period: Period) -> SigningKey {
        // One in 2³² draws is no scalar of the curve; then the next is taken.
        let draws = (0u64..).map(|attempt| {
            let seed = [period.0.to_le_bytes(), attempt.to_le_bytes()].concat();
            SigningKey::from_slice(blake3::keyed_hash(&self.0, &seed).as_bytes())
        });
        let mut keys = draws.flatten();
        keys.next().unwrap_or_else(|| unreachable!("2⁶⁴ draws"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};

    const NOW: Wall = Wall { unix_ms: 1_796_000_000_000 };

    fn key(of: u8) -> CertificateKey {
        CertificateKey([of; 32])
    }

    /// A value's head, what it holds, and what comes after it.
    fn value(der: &[u8]) -> (&[u8], &[u8], &[u8]) {
        let (head, length) = match der[1] {
            short @ ..=0x7f => (2, usize::from(short)),
            0x81 => (3, usize::from(der[2])),
            _ => (4, usize::from(u16::from_be_bytes([der[2], der[3]]))),
        };
        (&der[..head], &der[head..head + length], &der[head + length..])
    }

    #[test]
    fn a_certificate_follows_from_key_and_time_alone() {
        let certificate = key(1).certificate(Period::at(NOW));
        assert_eq!(key(1).certificate(Period::at(NOW)).der, certificate.der);
        assert_ne!(key(2).certificate(Period::at(NOW)).der, certificate.der);
        let hashes = key(1).hashes(NOW, 3);
        assert_eq!(hashes[0], certificate.hash());
        let later = Wall { unix_ms: NOW.unix_ms + SHOWN_MS };
        assert_eq!(key(1).hashes(later, 2), hashes[1..], "what was told is what comes");
    }

    #[test]
    fn browsers_take_how_long_it_is_valid() {
        for now in [NOW, Wall { unix_ms: 0 }, Period::at(NOW).begins()] {
            let (from, until) = Period::at(now).valid();
            assert!(until.since(from).as_secs() < 14 * 24 * 3600);
            assert!(until.unix_ms >= now.unix_ms + CLOCKS_APART_MS);
            assert!(now.unix_ms == 0 || from.unix_ms + CLOCKS_APART_MS <= now.unix_ms);
        }
        assert_eq!(Period::at(Wall { unix_ms: SHOWN_MS - 1 }), Period(0));
        assert_eq!(Period::at(Wall { unix_ms: SHOWN_MS }), Period(1));
    }

    /// The bytes are X.509: rustls takes them with their key, and the signature is of the key that they show.
    #[test]
    fn a_certificate_is_well_formed_and_signed_by_its_own_key() {
        let Certificate { der, sec1 } = key(1).certificate(Period::at(NOW));
        let point = key(1).signing_key(Period::at(NOW)).verifying_key().to_encoded_point(false);
        let shown = der.windows(65).any(|window| window == point.as_bytes());
        assert!(shown);
        let (head, body, rest) = value(&der);
        assert!(head[0] == 0x30 && rest.is_empty());
        let (head, inner, rest) = value(body);
        let signed = [head, inner].concat();
        let (_, algorithm, rest) = value(rest);
        let (_, bits, rest) = value(rest);
        assert!(algorithm.ends_with(ECDSA_WITH_SHA256) && rest.is_empty());
        // The first byte says that no bit is spare.
        let signature = &bits[1..];
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point.as_bytes());
        public.verify(&signed, signature).unwrap();
        let private = rustls::pki_types::PrivateSec1KeyDer::from(sec1).into();
        rustls::crypto::ring::sign::any_ecdsa_type(&private).unwrap();
    }
}
