//! What a page and the coordinator agree on besides the messages. A page connects by WebTransport, where no client shows
//! a key: so it proves its key by a signature over a challenge. And no authority vouches for the coordinator: so its
//! certificate is known by its hash, which comes from the coordinator's own key, by an invite or by [`certificates`].

use crate::{sealed, wire::Certificates};
use prost::Message as _;

/// The application protocol of the TLS handshake with a page: HTTP/3.
pub const ALPN: &[u8] = b"h3";
/// The path of the session.
pub const PATH: &str = "/nightjar";
/// The protocol in the session, of the version that native devices name in their handshake.
pub const PROTOCOL: &str = "nightjar/1";
/// Bytes of a hash of a certificate (SHA-256).
pub const HASH_BYTES: usize = 32;
/// Bytes of a challenge.
pub const CHALLENGE_BYTES: usize = 32;
/// Hashes that are told at once, at most.
pub const HASHES_MAX: usize = 64;

const PROOF: &[u8] = b"nightjar web device 1\0";
const CERTIFICATES: &[u8] = b"nightjar certificates 1";

/// SHA-256 of a certificate (DER).
pub type CertificateHash = [u8; HASH_BYTES];

/// What a page signs to prove its key. The certificate's hash ties it to this coordinator: whoever passes the challenge
/// on from another shows another certificate.
pub fn proof(certificate: &CertificateHash, challenge: &[u8; CHALLENGE_BYTES]) -> Vec<u8> {
    [PROOF, certificate, challenge].concat()
}

/// Seals the hashes that a page may trust; `sign` is the coordinator's ed25519 key.
pub fn seal_certificates(
    hashes: &[CertificateHash],
    sign: impl FnOnce(&[u8]) -> [u8; sealed::SIGNATURE_BYTES],
) -> Vec<u8> {
    let message = Certificates { hashes: hashes.iter().map(|hash| hash.to_vec()).collect() };
    sealed::seal(CERTIFICATES, message.encode_to_vec(), sign)
}

/// The hashes in a seal, and what is to be checked before they are believed: the signature over these bytes, by a key
/// that the page pins. `None` where the bytes are no seal.
pub fn certificates(sealed: &[u8]) -> Option<Claim> {
    let (message, signature) = sealed::split(sealed)?;
    let hashes = hashes(&Certificates::decode(message).ok()?.hashes)?;
    Some(Claim { hashes, covered: sealed::covered(CERTIFICATES, message), signature: signature.to_vec() })
}

/// Hashes as they travel: of the right length, one at least and not too many.
pub fn hashes(sent: &[Vec<u8>]) -> Option<Vec<CertificateHash>> {
    let is_some = (1..=HASHES_MAX).contains(&sent.len());
    is_some.then(|| sent.iter().map(|hash| hash.as_slice().try_into().ok()).collect())?
}

/// Hashes that a signature vouches for, once it is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The hashes: the certificate shown now, then those that follow it.
    pub hashes: Vec<CertificateHash>,
    /// The bytes that the signature covers.
    pub covered: Vec<u8>,
    /// The signature.
    pub signature: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_opens_to_what_was_sealed() {
        let sign = |covered: &[u8]| {
            let hash = *blake3::hash(covered).as_bytes();
            [hash, hash].concat().try_into().unwrap()
        };
        let sealed = seal_certificates(&[[1; 32], [2; 32]], sign);
        let claim = certificates(&sealed).unwrap();
        assert_eq!(claim.hashes, [[1; 32], [2; 32]]);
        assert_eq!(claim.signature, sign(&claim.covered));
        assert_eq!(certificates(&sealed[..60]), None);
        assert_eq!(certificates(&seal_certificates(&[], sign)), None, "no hash");
        assert_eq!(certificates(&seal_certificates(&[[0; 32]; HASHES_MAX + 1], sign)), None, "too many");
        assert_eq!(hashes(&[vec![0; 31]]), None);
    }

    #[test]
    fn a_proof_is_of_one_certificate_and_one_challenge() {
        let all = [proof(&[1; 32], &[2; 32]), proof(&[2; 32], &[2; 32]), proof(&[1; 32], &[1; 32])];
        assert!(all[0].starts_with(b"nightjar web device 1\0") && all[0].len() == 22 + 64);
        assert!(all[0] != all[1] && all[0] != all[2]);
    }
}
