//! Frames: a message's length as u32, little-endian, then its bytes. The reader of the stream is the caller's; here is
//! only what is the same on both sides.

use prost::Message;

/// Bytes that are no frame of the message expected.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than the bound.
    #[error("a message of {bytes} bytes is over the limit of {max}")]
    TooLong {
        /// The announced length.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// Not the protobuf message expected.
    #[error("a message is malformed: {0}")]
    Malformed(#[from] prost::DecodeError),
}

/// A message with its length in front.
pub fn encode(message: &impl Message) -> Vec<u8> {
    let length = message.encoded_len();
    let mut out = Vec::with_capacity(4 + length);
    out.extend((length as u32).to_le_bytes());
    out.extend(message.encode_to_vec());
    out
}

/// The length that a frame announces, if it is within `max`.
pub fn length(prefix: [u8; 4], max: usize) -> Result<usize, FrameError> {
    let bytes = u32::from_le_bytes(prefix) as usize;
    if bytes > max { Err(FrameError::TooLong { bytes, max }) } else { Ok(bytes) }
}

/// The message in a frame's body.
pub fn decode<M: Message + Default>(body: &[u8]) -> Result<M, FrameError> {
    Ok(M::decode(body)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{DeviceMessage, Leave, device_message::Body};

    #[test]
    fn a_frame_opens_to_its_message() {
        let message = DeviceMessage { request: 7, body: Some(Body::Leave(Leave {})) };
        let frame = encode(&message);
        let n = length(frame[..4].try_into().unwrap(), 100).unwrap();
        assert_eq!(n, frame.len() - 4);
        assert_eq!(decode::<DeviceMessage>(&frame[4..]).unwrap(), message);
    }

    #[test]
    fn a_length_over_the_bound_is_refused_before_memory_is_taken() {
        assert!(matches!(length(u32::MAX.to_le_bytes(), 1 << 20), Err(FrameError::TooLong { .. })));
    }
}
