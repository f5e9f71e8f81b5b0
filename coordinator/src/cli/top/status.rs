//! Asking a coordinator how it stands: plain HTTP, one bounded answer. The page listens on this machine only, so that
//! there is nothing to encrypt, and no library to be had for it.

use serde::Deserialize;
use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    str::FromStr,
    time::Duration,
};

/// Longest wait for any step of an answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Longest answer: curves and devices are bounded.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// What a coordinator says of itself, as far as it is shown.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    pub run: String,
    pub version: Option<u64>,
    pub heldout_loss: Option<f64>,
    pub tokens: u64,
    pub token_budget: u64,
    pub tokens_per_s: f64,
    pub merged: u64,
    pub bytes_up: u64,
    pub bytes_down: u64,
    pub leases_open: usize,
    pub agreement: Option<f64>,
    pub round_s: Option<f64>,
    pub utilisation: Option<f64>,
    pub states: BTreeMap<String, usize>,
    pub ended: BTreeMap<String, u64>,
    pub finished: bool,
    pub trouble: Option<String>,
    pub losses: Vec<Loss>,
    pub devices: Vec<Device>,
}

/// A point of the curve.
#[derive(Clone, Debug, Deserialize)]
pub struct Loss {
    pub loss: f64,
}

/// A device.
#[derive(Clone, Debug, Deserialize)]
pub struct Device {
    pub id: String,
    pub name: String,
    pub role: String,
    pub state: Option<String>,
    pub tokens: u64,
    pub leases: u64,
    pub tokens_per_s: f64,
    pub version: Option<u64>,
    pub staleness: Option<u64>,
}

/// Where a coordinator's page is.
#[derive(Clone, Debug, PartialEq)]
pub struct Address {
    /// Name or address, and port.
    authority: String,
}

/// An address that cannot be asked.
#[derive(Debug, thiserror::Error)]
#[error("this is no address of a coordinator's page; it looks like http://127.0.0.1:8433")]
pub struct BadAddress;

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let authority = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let port = authority.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        let is_plain = !authority.contains(['/', '?', '#', '@', ' ', '\r', '\n']);
        match port.filter(|_| is_plain) {
            Some(_) => Ok(Address { authority: authority.to_owned() }),
            None => Err(BadAddress),
        }
    }
}

/// A coordinator that does not answer as one does.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It cannot be reached.
    #[error("no coordinator answers at http://{at}: {error}; `serve` prints its page's address, --url takes it")]
    Unreachable {
        /// Where.
        at: String,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// Something else answers.
    #[error("what answers at http://{0} is no coordinator, or one of another version: {1}")]
    Foreign(String, String),
}

impl Address {
    /// How the coordinator stands.
    pub fn ask(&self) -> Result<Status, AskError> {
        let answer =
            self.get("/api/status").map_err(|error| AskError::Unreachable { at: self.authority.clone(), error })?;
        let foreign = |why: String| AskError::Foreign(self.authority.clone(), why);
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| foreign("its answer has no end".into()))?;
        let first = head.lines().next().unwrap_or_default();
        if !first.contains(" 200 ") {
            return Err(foreign(format!("it says {first:?}")));
        }
        serde_json::from_str(body).map_err(|error| foreign(error.to_string()))
    }

    fn get(&self, path: &str) -> io::Result<String> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "its name leads nowhere");
        for address in self.authority.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, ANSWER_MAX) {
                Ok(stream) => return self.exchange(stream, path),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// HTTP/1.0: the answer ends with the connection, and comes in one piece.
    fn exchange(&self, mut stream: TcpStream, path: &str) -> io::Result<String> {
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.set_write_timeout(Some(ANSWER_MAX))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.authority)?;
        let mut answer = String::new();
        stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
        Ok(answer)
    }
}
