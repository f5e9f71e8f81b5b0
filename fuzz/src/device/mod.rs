//! What an agent reads from a coordinator, which may be a stranger's. client/agent/tests/decoders.rs goes through the
//! seeds.

mod session;

use crate::target::{SMALL, Target};

/// All of them.
pub const TARGETS: [Target; 2] = [
    Target { name: "lease", run: session::lease, bytes_max: 16 << 10, memory: [SMALL, 64], seeds: session::leases },
    Target {
        name: "session",
        run: session::session,
        bytes_max: 32 << 10,
        memory: [16 * SMALL, 1024],
        seeds: session::sessions,
    },
];
