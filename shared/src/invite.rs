//! An invite: the link that lets a device join a run. It names where the coordinator listens, pins its keys, and says
//! what the holder may be; the coordinator signs it and recognises it by that signature.
//!
//! `nightjar:` followed by base64url of: the message [`wire::Invite`], then the 64-byte ed25519 signature over
//! "nightjar invite 1" and that message. Signing and checking need a key, so they are functions given as arguments.

use crate::wire::{self, Role};
use data_encoding::BASE64URL_NOPAD;
use prost::Message as _;

const SCHEME: &str = "nightjar:";
const CONTEXT: &[u8] = b"nightjar invite 1";
const SIGNATURE_BYTES: usize = 64;
/// Longest link accepted, in characters.
const LINK_MAX: usize = 4096;

/// Text that is no invite, or one that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum InviteError {
    /// It does not start as a link does.
    #[error("an invite starts with \"nightjar:\"; paste the whole link that you were given")]
    NotALink,
    /// It was cut or changed on the way.
    #[error("the invite is damaged or incomplete; copy it again, the whole line")]
    Damaged,
    /// The signature does not fit.
    #[error("the invite's signature does not fit its contents; ask for a new one")]
    BadSignature,
    /// It is too old.
    #[error("the invite has expired; ask for a new one")]
    Expired,
}

/// Bytes that a signature covers.
fn signed(message: &[u8]) -> Vec<u8> {
    [CONTEXT, message].concat()
}

/// The token (message and signature) of an invite; `sign` is the coordinator's ed25519 key.
pub fn seal(invite: &wire::Invite, sign: impl FnOnce(&[u8]) -> [u8; SIGNATURE_BYTES]) -> Vec<u8> {
    let mut token = invite.encode_to_vec();
    token.extend(sign(&signed(&token)));
    token
}

/// Opens a token. `verify(public_key, message, signature)` checks against the first of the invite's own pinned keys;
/// a coordinator must also check that this key is its own.
pub fn open(token: &[u8], verify: impl FnOnce(&[u8], &[u8], &[u8]) -> bool) -> Result<wire::Invite, InviteError> {
    let at = token.len().checked_sub(SIGNATURE_BYTES).ok_or(InviteError::Damaged)?;
    let (message, signature) = token.split_at(at);
    let invite = wire::Invite::decode(message).map_err(|_| InviteError::Damaged)?;
    let key = invite.public_keys.first().ok_or(InviteError::Damaged)?;
    if invite.addresses.is_empty() || invite.public_keys.iter().any(|k| k.len() != 32) || Role::try_from(invite.role).is_err() {
        return Err(InviteError::Damaged);
    }
    if !verify(key, &signed(message), signature) {
        return Err(InviteError::BadSignature);
    }
    Ok(invite)
}

/// The link of a token.
pub fn to_link(token: &[u8]) -> String {
    format!("{SCHEME}{}", BASE64URL_NOPAD.encode(token))
}

/// The token of a link. What mail programs and shells put in and around it is forgiven: line breaks, spaces, quotes.
pub fn from_link(link: &str) -> Result<Vec<u8>, InviteError> {
    // A link that is too long with them is so without, by a wide margin.
    if link.len() > 2 * LINK_MAX {
        return Err(InviteError::Damaged);
    }
    let link: String = link.chars().filter(|c| !c.is_whitespace()).collect();
    let body = link.trim_matches(['\'', '"']).strip_prefix(SCHEME).ok_or(InviteError::NotALink)?;
    if body.len() > LINK_MAX {
        return Err(InviteError::Damaged);
    }
    BASE64URL_NOPAD.decode(body.as_bytes()).map_err(|_| InviteError::Damaged)
}

/// SubjectPublicKeyInfo (DER) of a raw ed25519 public key (RFC 8410): what TLS shows and what ids are made of.
pub fn spki_of_ed25519(public_key: &[u8; 32]) -> Vec<u8> {
    const PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    [&PREFIX[..], public_key].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invite() -> wire::Invite {
        wire::Invite {
            addresses: vec!["127.0.0.1:4433".into()],
            public_keys: vec![vec![7; 32]],
            role: Role::Volunteer as i32,
            run_name: "demo".into(),
            ..Default::default()
        }
    }

    /// Stands in for a key: the "signature" is the message's hash, twice.
    fn sign(message: &[u8]) -> [u8; 64] {
        let h = blake3::hash(message);
        [*h.as_bytes(), *h.as_bytes()].concat().try_into().unwrap()
    }

    fn verify(_: &[u8], message: &[u8], signature: &[u8]) -> bool {
        sign(message) == signature
    }

    #[test]
    fn a_link_opens_to_what_was_sealed() {
        let link = to_link(&seal(&invite(), sign));
        assert_eq!(open(&from_link(&format!("  {link}\n")).unwrap(), verify), Ok(invite()));
        let (head, tail) = link.split_at(40);
        assert_eq!(open(&from_link(&format!("'{head}\r\n {tail}'")).unwrap(), verify), Ok(invite()));
        assert_eq!(from_link(&format!("{link}{}", " ".repeat(1 << 20))), Err(InviteError::Damaged));
    }

    #[test]
    fn damage_is_noticed() {
        let link = to_link(&seal(&invite(), sign));
        assert_eq!(from_link("http://x"), Err(InviteError::NotALink));
        assert!(from_link(&link[..link.len() / 2]).and_then(|t| open(&t, verify)).is_err());
        let mut token = seal(&invite(), sign);
        token[3] ^= 1;
        assert!(open(&token, verify).is_err());
        assert_eq!(open(&[], verify), Err(InviteError::Damaged));
    }
}
