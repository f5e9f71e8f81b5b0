//! Every bound of the protocol on one page. What exceeds one is refused with `LIMIT`, or its connection is closed;
//! memory is taken only for what is within them.

/// Longest message of a coordinator, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Longest message of a device, in bytes: a request that names [`SHARDS_NAMED_MAX`] shards has half as many.
pub const REQUEST_BYTES_MAX: usize = 16 << 10;
/// Longest message before a valid hello, in bytes: the longest invite's token and a few short texts fit.
pub const HELLO_BYTES_MAX: usize = 8 << 10;
/// Longest message from agent to worker, in bytes.
pub const WORKER_MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Longest message from worker to agent, in bytes: numbers and a few sentences.
pub const WORKER_SAYS_BYTES_MAX: usize = 64 << 10;
/// Streams that a device may have open at once, after a valid hello; before it has one.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 8;
/// Connections that a coordinator serves at once; each that is silent takes about 30 KB of its memory. [`STRANGERS_MAX`]
/// are for strangers, so all others are for devices that have said a valid hello.
pub const CONNECTIONS_MAX: usize = 100_000;
/// Connections without a valid hello at once. Beyond that, the longest waiting gives its place to the newest, so who
/// says hello at once is served whatever others hold.
pub const STRANGERS_MAX: usize = 1024;
/// The same, of one address (IPv4: the address, IPv6: its /64). A lab behind one router says hello within a second.
pub const STRANGERS_PER_ADDRESS_MAX: usize = 256;
/// Seconds from a connection's first packet to its valid hello: ten round trips of the worst line.
pub const HELLO_S_MAX: u64 = 10;
/// New connections of one address: so many at once. A thousand devices behind one router may start together.
pub const NEW_PER_ADDRESS_BURST: u32 = 1024;
/// New connections of one address a second in the long run: each costs a handshake.
pub const NEW_PER_ADDRESS_S: f64 = 50.0;
/// Addresses that are remembered for these rates; beyond that, those that have been quiet are forgotten.
pub const ADDRESSES_MAX: usize = 128 << 10;
/// Bytes in flight towards the coordinator before a valid hello: one message of [`HELLO_BYTES_MAX`] and its stream's
/// head.
pub const STRANGER_WINDOW_BYTES: u32 = 10 << 10;
/// Bytes in flight towards the coordinator, and from it, on all control streams of a connection.
pub const CONTROL_WINDOW_BYTES: u32 = 32 << 10;
/// Bytes in flight on the stream of a blob: enough for 10 MB/s at 100 ms.
pub const TRANSFER_WINDOW_BYTES: u32 = 1 << 20;
/// Bytes in flight for all blobs of a connection, each way; beyond that, a stream has a chunk.
pub const TRANSFERS_PER_CONNECTION_BYTES: u32 = 4 << 20;
/// Bytes that all blobs in flight and messages under way take of a coordinator's memory together: who finds no room
/// waits [`ROOM_S_MAX`], then is told to come again.
pub const BUFFER_BYTES_MAX: usize = 256 << 20;
/// Seconds that a stream waits for its share of [`BUFFER_BYTES_MAX`].
pub const ROOM_S_MAX: u64 = 10;
/// Seconds that [`CHUNK_BYTES`] of a blob, or a message, may take: 2 KB/s, at which a small delta takes minutes.
pub const PIECE_S_MAX: u64 = 30;
/// Files that are read or written for transfers at once: each takes a thread, and a disk gains nothing by more.
pub const FILES_AT_ONCE_MAX: usize = 8;
/// Codecs, or kinds of leases, that a hello names.
pub const CAPABILITIES_MAX: usize = 64;
/// Devices of one address (IPv6: of one /64) that are connected at once: a large school's, and not all places.
pub const DEVICES_PER_ADDRESS_MAX: usize = 2048;
/// The part of all room for what travels that one address takes at most: slow readers hold it for long.
pub const BUFFER_SHARE_OF_ADDRESS: usize = 4;
/// Leases of one device: so many at once.
pub const LEASES_BURST: u32 = 240;
/// Leases of one device in the usual wall time of one, in the long run: each is written down for ever, whatever comes
/// of it.
pub const LEASES_PER_WALL_TIME: f64 = 4.0;
/// Requests of one device: so many at once. A device asks about ten times a lease.
pub const REQUESTS_BURST: u32 = 300;
/// Requests of one device a second in the long run.
pub const REQUESTS_PER_S: f64 = 20.0;
/// Enrolments under one invite: so many at once. Each stays in the ledger for ever.
pub const ENROLMENTS_BURST: u32 = 1000;
/// Enrolments under one invite a second in the long run: a new class of computers every minute.
pub const ENROLMENTS_PER_S: f64 = 0.5;
/// Enrolments from one address: so many at once, a school's. With the next, about a thousand a day, however many invites.
pub const ENROLMENTS_PER_ADDRESS_BURST: u32 = 256;
/// Enrolments from one address an hour in the long run.
pub const ENROLMENTS_PER_ADDRESS_AN_HOUR: u32 = 32;
/// Changes of a device's name or description: so many at once. A restart may be two.
pub const RENAMES_BURST: u32 = 60;
/// Changes of a device's name or description a second in the long run: each is written to the ledger.
pub const RENAMES_PER_S: f64 = 0.2;
/// Deltas that a device may upload a day without any of them being merged, in bytes: so many times the longest delta.
pub const UNMERGED_DELTAS_A_DAY: u64 = 256;
/// Uploads of one lease whose bytes were not those of their name: after so many the lease ends.
pub const UPLOADS_DAMAGED_MAX: u32 = 3;
/// Bytes of the state folder's disk that are kept for the ledger, at most; a small disk keeps a sixteenth.
pub const RESERVE_BYTES_MAX: u64 = 16 << 20;
/// The same, at least.
pub const RESERVE_BYTES_MIN: u64 = 256 << 10;
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
