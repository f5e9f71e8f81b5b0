//! The first message of a handshake, read for one thing only: which protocols the client offers (ALPN, RFC 7301). It
//! comes in pieces of any size, from anybody. The handshake proper reads it again, and is the one that judges it.

/// Longest that is collected, in bytes. A browser's, with its post-quantum key share, has 2 KB.
const BYTES_MAX: usize = 8 << 10;
/// Of a handshake message: its kind, and three bytes of length.
const HEAD_BYTES: usize = 4;
/// The kind of a ClientHello (RFC 8446, section 4).
const KIND: u8 = 1;
/// A ClientHello's version and random bytes.
const FIXED_BYTES: usize = 34;
/// The extension that names protocols.
const ALPN: u16 = 16;

/// Bytes that are no ClientHello that could be answered; each is an alert of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// Another message, or a longer one than anybody sends.
    #[error("the handshake does not begin with a ClientHello of at most {BYTES_MAX} bytes")]
    Unexpected,
    /// Its parts do not fit into it.
    #[error("the ClientHello is malformed")]
    Malformed,
}

impl HelloError {
    /// The alert (RFC 8446, section 6).
    pub fn alert(self) -> u8 {
        match self {
            HelloError::Unexpected => 10,
            HelloError::Malformed => 50,
        }
    }
}

/// What has come of a ClientHello.
#[derive(Default)]
pub struct ClientHello(Vec<u8>);

impl ClientHello {
    /// Takes the next bytes, and says whether it is whole.
    pub fn take(&mut self, bytes: &[u8]) -> Result<bool, HelloError> {
        if self.0.len() + bytes.len() > BYTES_MAX {
            return Err(HelloError::Unexpected);
        }
        self.0.extend_from_slice(bytes);
        match self.0.first() {
            None | Some(&KIND) => {}
            Some(_) => return Err(HelloError::Unexpected),
        }
        match self.length() {
            Some(length) if length > BYTES_MAX - HEAD_BYTES => Err(HelloError::Unexpected),
            length => Ok(length.is_some_and(|length| self.0.len() >= HEAD_BYTES + length)),
        }
    }

    fn length(&self) -> Option<usize> {
        let [_, a, b, c] = *self.0.first_chunk()?;
        Some(u32::from_be_bytes([0, a, b, c]) as usize)
    }

    /// The protocols that it offers; none where it names none. It must be whole.
    pub fn protocols(&self) -> Result<Vec<&[u8]>, HelloError> {
        let body = self.length().and_then(|length| self.0.get(HEAD_BYTES..HEAD_BYTES + length));
        body.and_then(offered).ok_or(HelloError::Malformed)
    }

    /// All that came, for the handshake.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

fn offered(body: &[u8]) -> Option<Vec<&[u8]>> {
    let mut rest = body.get(FIXED_BYTES..)?;
    let (_session, _ciphers, _compression) = (vector(&mut rest, 1)?, vector(&mut rest, 2)?, vector(&mut rest, 1)?);
    let mut extensions = vector(&mut rest, 2)?;
    while let Some((kind, mut after)) = extensions.split_first_chunk() {
        let mut extension = vector(&mut after, 2)?;
        extensions = after;
        if u16::from_be_bytes(*kind) == ALPN {
            let (mut names, mut protocols) = (vector(&mut extension, 2)?, vec![]);
            while !names.is_empty() {
                protocols.push(vector(&mut names, 1)?);
            }
            return Some(protocols);
        }
    }
    Some(vec![])
}

/// Bytes with their length in front, in so many bytes of its own.
fn vector<'a>(rest: &mut &'a [u8], width: usize) -> Option<&'a [u8]> {
    let (length, after) = rest.split_at_checked(width)?;
    let length = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    let (vector, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(vector)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightjar_shared::rng;
    use rustls::{ClientConfig, RootCertStore, client::UnbufferedClientConnection, crypto::ring::default_provider};
    use std::sync::Arc;

    /// What rustls sends first, without the head of its record.
    fn hello(protocols: &[&[u8]]) -> Vec<u8> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let mut client = UnbufferedClientConnection::new(Arc::new(config), "coordinator".try_into().unwrap()).unwrap();
        let mut record = vec![0; 4096];
        let status = client.process_tls_records(&mut []);
        let rustls::unbuffered::ConnectionState::EncodeTlsData(mut data) = status.state.unwrap() else {
            panic!("it begins with its hello");
        };
        let n = data.encode(&mut record).unwrap();
        record[5..n].to_vec()
    }

    fn whole(bytes: &[u8]) -> ClientHello {
        let mut hello = ClientHello::default();
        assert_eq!(hello.take(bytes), Ok(true));
        hello
    }

    #[test]
    fn what_it_offers_is_read_however_it_is_cut() {
        let bytes = hello(&[b"nightjar/1", b"h3"]);
        assert_eq!(whole(&bytes).protocols().unwrap(), [b"nightjar/1".as_slice(), b"h3"]);
        assert_eq!(whole(&hello(&[])).protocols().unwrap(), Vec::<&[u8]>::new());
        let mut split = ClientHello::default();
        for (n, byte) in (1..).zip(&bytes) {
            assert_eq!(split.take(&[*byte]), Ok(n == bytes.len()));
        }
        assert_eq!(split.into_bytes(), bytes);
    }

    #[test]
    fn what_is_none_is_refused_before_much_of_it_is_kept() {
        let first = |bytes: &[u8]| ClientHello::default().take(bytes);
        assert_eq!(first(&[2]), Err(HelloError::Unexpected), "another message");
        assert_eq!(first(&[1, 0, 0x20, 0]), Err(HelloError::Unexpected), "too long, as it says itself");
        assert_eq!(first(&[1; BYTES_MAX + 1]), Err(HelloError::Unexpected));
        let mut endless = ClientHello::default();
        assert_eq!(endless.take(&[KIND, 0, 0x1f, 0xfc]), Ok(false), "as long as may be");
        let taken: Vec<_> = (HEAD_BYTES..BYTES_MAX).map(|_| endless.take(&[0])).collect();
        assert!(taken.iter().rev().skip(1).all(|taken| *taken == Ok(false)) && taken.last() == Some(&Ok(true)));
        assert_eq!(endless.take(&[0]), Err(HelloError::Unexpected));
    }

    /// Bytes that are almost a ClientHello: nothing panics, and what is taken is within its bounds.
    #[test]
    fn noise_is_read_without_harm() {
        let good = hello(&[b"h3"]);
        for seed in 0..2000u64 {
            let mut bytes = good.clone();
            for n in 0..1 + seed % 4 {
                let at = rng::draw(seed, 0, n) as usize % bytes.len();
                bytes[at] = rng::draw(seed, 1, n) as u8;
            }
            let mut hello = ClientHello::default();
            if hello.take(&bytes) == Ok(true) {
                let offered = hello.protocols().unwrap_or_default();
                assert!(offered.iter().map(|name| name.len()).sum::<usize>() <= bytes.len());
            }
        }
    }
}
