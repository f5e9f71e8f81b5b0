//! Secrets of the HTTP API: tokens, and the cookies that stand for them.
//!
//! A secret is 256 random bits. Nobody finds such a number by trying, so a plain BLAKE3 of it is all that is kept: a slow
//! hash protects passwords, which people choose, and would only cost each request its time here.

use data_encoding::HEXLOWER;
use nightjar_shared::ids::BlobHash;
use ring::rand::{SecureRandom, SystemRandom};

/// What a token begins with, so that scanners for leaked secrets know it.
const PREFIX: &str = "nightjar_";
/// Hexadecimal digits after it.
const DIGITS: usize = 64;

/// The system gives no random numbers.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random numbers, and a token cannot be made without them")]
pub struct NoRandomness;

/// 256 random bits, as hexadecimal digits.
pub fn draw() -> Result<String, NoRandomness> {
    let mut bytes = [0; DIGITS / 2];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(HEXLOWER.encode(&bytes))
}

/// A new token.
pub fn draw_token() -> Result<String, NoRandomness> {
    Ok(format!("{PREFIX}{}", draw()?))
}

/// What is kept of a secret.
pub fn hash(secret: &str) -> [u8; 32] {
    BlobHash::of(secret.as_bytes()).0
}

/// Whether two secrets' hashes are the same, in a time that does not tell where they differ.
pub fn same(a: [u8; 32], b: [u8; 32]) -> bool {
    // BLAKE3's own comparison takes the same time whatever it compares.
    blake3::Hash::from_bytes(a) == blake3::Hash::from_bytes(b)
}

/// Whether a text can be a token at all: nothing else is hashed or looked up.
pub fn has_form(text: &str) -> bool {
    text.strip_prefix(PREFIX).is_some_and(|digits| {
        digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_like_no_other_and_is_known_by_its_hash() {
        let (one, other) = (draw_token().unwrap(), draw_token().unwrap());
        assert!(one != other && has_form(&one) && has_form(&other));
        assert!(same(hash(&one), hash(&one.clone())) && !same(hash(&one), hash(&other)));
        let upper = one.to_uppercase();
        for bad in ["", "nightjar_", &one[1..], &one[..one.len() - 1], &format!("{one}0"), &upper] {
            assert!(!has_form(bad), "{bad}");
        }
    }
}
