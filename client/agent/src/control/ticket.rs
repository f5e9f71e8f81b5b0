//! Tickets: how a browser comes to the token. The link that it is started with stands on a command line, which every
//! user of the computer can read; so it has a ticket in it, good once and for two minutes, and the token is given for
//! it only to a process of this user. (A file that leads to the page would do too, but browsers in a snap or flatpak
//! may not read it.)

use data_encoding::HEXLOWER;
use ring::rand::{SecureRandom, SystemRandom};
use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A browser that must be started first is given this long.
const GOOD_FOR: Duration = Duration::from_secs(120);

/// The one ticket that is out, if any: a new one makes the one before worthless.
#[derive(Clone, Default)]
pub struct Tickets(Arc<Mutex<Option<(blake3::Hash, Instant)>>>);

impl Tickets {
    /// A new ticket.
    pub fn issue(&self) -> io::Result<String> {
        let mut secret = [0; 16];
        SystemRandom::new().fill(&mut secret).map_err(|_| io::Error::other("the system gives no random numbers"))?;
        let ticket = HEXLOWER.encode(&secret);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((blake3::hash(ticket.as_bytes()), Instant::now()));
        Ok(ticket)
    }

    /// Whether what is shown is the ticket that is out; it is not any more then.
    pub(super) fn redeem(&self, shown: &str) -> bool {
        let shown = blake3::hash(shown.as_bytes());
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).take_if(|(ticket, _)| *ticket == shown);
        taken.is_some_and(|(_, issued)| issued.elapsed() < GOOD_FOR)
    }
}

/// Whether the other end of a connection over loopback belongs to a process of this user; `None` where that cannot be
/// told.
#[cfg(target_os = "linux")]
pub(super) fn is_of_this_user(client: SocketAddr, server: SocketAddr) -> Option<bool> {
    let (SocketAddr::V4(client), SocketAddr::V4(server)) = (client, server) else { return None };
    // The kernel writes addresses as numbers of this machine's byte order.
    let written =
        |end: std::net::SocketAddrV4| format!("{:08X}:{:04X}", u32::from_ne_bytes(end.ip().octets()), end.port());
    let ends = [written(client), written(server)];
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let owner = table.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words.get(1..3)? == ends).then(|| words.get(7)?.parse::<u32>().ok())?
    });
    owner.map(|owner| owner == rustix::process::geteuid().as_raw())
}

/// Elsewhere browsers are shown a file, and nobody comes with a ticket.
#[cfg(not(target_os = "linux"))]
pub(super) fn is_of_this_user(_: SocketAddr, _: SocketAddr) -> Option<bool> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_once_and_only_the_newest() {
        let tickets = Tickets::default();
        assert!(!tickets.redeem(""));
        let (first, second) = (tickets.issue().unwrap(), tickets.issue().unwrap());
        assert!(!tickets.redeem(&first));
        assert!(tickets.redeem(&second));
        assert!(!tickets.redeem(&second));
    }

    #[test]
    fn an_old_ticket_is_worth_nothing() {
        let tickets = Tickets::default();
        let ticket = tickets.issue().unwrap();
        if let Some((_, issued)) = &mut *tickets.0.lock().unwrap() {
            *issued = issued.checked_sub(GOOD_FOR).unwrap();
        }
        assert!(!tickets.redeem(&ticket));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_owner_of_the_other_end_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let stream = std::net::TcpStream::connect(server).unwrap();
        let client = stream.local_addr().unwrap();
        assert_eq!(is_of_this_user(client, server), Some(true));
        drop((stream, listener));
        // Process 1's listener, if it has one, is no connection; and this one is gone.
        assert_ne!(is_of_this_user(server, client), Some(true));
    }
}
