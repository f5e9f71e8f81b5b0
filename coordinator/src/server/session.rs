//! A connection as everything here sees it, whether a device made it natively or a page by WebTransport: streams of both
//! ways that the other end opens, and an end with a code and a reason.

use nightjar_shared::wire::close::CloseCode;
use quinn::{Connection, VarInt};
use web_transport_quinn::proto::error_to_http3;

/// See the module. It stands for the QUIC connection that carries it.
pub use web_transport_quinn::Session;

/// Whether it is a page's.
pub fn is_page(session: &Session) -> bool {
    session.request().is_some()
}

/// Ends the connection of a page that has no session yet.
pub fn close_early(connection: &Connection, code: CloseCode, reason: &str) {
    // HTTP/3 has numbers of its own, of which some are for what is carried; all of them are numbers of QUIC.
    let number = VarInt::from_u64(error_to_http3(code as u32)).unwrap_or_default();
    connection.close(number, reason.as_bytes());
}

/// Ends it. A page is told by its session, which takes a moment longer.
pub fn close(session: &Session, code: CloseCode, reason: &str) {
    session.close(code as u32, reason.as_bytes());
}
