//! Every bound of the protocol on one page. What exceeds one is refused with `LIMIT`, or its connection is closed;
//! memory is taken only for what is within them.

/// Longest message on a control stream, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Longest message between agent and worker, in bytes.
pub const WORKER_MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Streams that a device may have open at once.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 8;
/// Connections that a coordinator serves at once.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Shard names in a lease request.
pub const SHARDS_NAMED_MAX: usize = 256;
/// Update steps in a lease's path: beyond, the device gets a keyframe.
pub const UPDATE_STEPS_MAX: usize = 256;
/// Longest sentence, name or description in a message, in bytes; longer ones are cut.
pub const TEXT_BYTES_MAX: usize = 256;
/// Largest blob other than a shard or keyframe of the run at hand, in bytes.
pub const BLOB_BYTES_MAX: u64 = 1 << 36;
/// Events waiting in a process's queue; a full queue means "busy, try again".
pub const QUEUE_EVENTS_MAX: usize = 1024;
/// Bytes read or written at a time when a blob travels.
pub const CHUNK_BYTES: usize = 64 << 10;

/// Cuts text to [`TEXT_BYTES_MAX`] at a character's start, and drops control characters.
pub fn tame(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if out.len() + c.len_utf8() > TEXT_BYTES_MAX {
            break;
        }
        out.push(c);
    }
    out
}
