//! Bytes that somebody vouches for: a message, then the 64-byte ed25519 signature over what kind of message it is and
//! the message itself. Signing and checking need a key, so they are the caller's.

/// Length of an ed25519 signature.
pub const SIGNATURE_BYTES: usize = 64;

/// What a signature covers: `context` tells one kind of message from another under the same key.
pub fn covered(context: &[u8], message: &[u8]) -> Vec<u8> {
    [context, message].concat()
}

/// A message with its signature.
pub fn seal(context: &[u8], mut message: Vec<u8>, sign: impl FnOnce(&[u8]) -> [u8; SIGNATURE_BYTES]) -> Vec<u8> {
    let signature = sign(&covered(context, &message));
    message.extend(signature);
    message
}

/// The message and the signature, unchecked; `None` where there is no room for one.
pub fn split(sealed: &[u8]) -> Option<(&[u8], &[u8])> {
    sealed.split_at_checked(sealed.len().checked_sub(SIGNATURE_BYTES)?)
}
