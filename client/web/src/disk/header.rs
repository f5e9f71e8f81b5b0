//! What a file of the pool begins with: whose bytes follow. It is written in two places by turns, with a hash over
//! each: where a crash tears one, the other still says what was.

use nightjar_shared::{bytes::Reader, ids::BlobHash};

/// Bytes of one place. No disk writes a larger piece at once.
pub const PLACE_BYTES: u64 = 4096;
/// Bytes before a file's own.
pub const HEADER_BYTES: u64 = 2 * PLACE_BYTES;
/// Longest name.
pub const NAME_BYTES_MAX: usize = 255;

const MAGIC: &[u8; 4] = b"NJF1";
const HASH_BYTES: usize = 32;

/// Whose bytes a file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Its place among all headers that were ever written: of two files of one name, the later is the one.
    pub turn: u64,
    /// The name; empty: nobody's.
    pub name: String,
}

impl Header {
    /// As it is written.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(self.turn.to_le_bytes());
        out.extend((self.name.len() as u32).to_le_bytes());
        out.extend(self.name.as_bytes());
        out.extend(BlobHash::of(&out).0);
        out
    }

    /// What one place holds; `None`: nothing whole.
    fn decode(place: &[u8]) -> Option<Header> {
        let mut reader = Reader::new(place);
        let magic = reader.array().ok()?;
        let (turn, length) = (reader.u64().ok()?, reader.u32().ok()? as usize);
        let name = reader.take(length).ok().filter(|name| name.len() <= NAME_BYTES_MAX)?;
        let hashed = place.len() - reader.remaining();
        let is_whole = reader.array::<HASH_BYTES>().ok()? == BlobHash::of(&place[..hashed]).0;
        let name = String::from_utf8(name.to_vec()).ok()?;
        (magic == *MAGIC && is_whole).then_some(Header { turn, name })
    }

    /// The newer of the two places, and which it is.
    pub fn newest(places: &[u8]) -> Option<(usize, Header)> {
        let found = places.chunks(PLACE_BYTES as usize).take(2).enumerate();
        found.filter_map(|(n, place)| Some((n, Header::decode(place)?))).max_by_key(|(_, header)| header.turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_place_leaves_the_other() {
        let [old, new] = [(4, "journal.json"), (5, "")].map(|(turn, name)| Header { turn, name: name.into() });
        let mut places = vec![0; HEADER_BYTES as usize];
        assert_eq!(Header::newest(&places), None);
        for (place, header) in [&old, &new].into_iter().enumerate() {
            let bytes = header.encode();
            places[place * PLACE_BYTES as usize..][..bytes.len()].copy_from_slice(&bytes);
        }
        assert_eq!(Header::newest(&places), Some((1, new.clone())));
        for at in 0..new.encode().len() {
            let mut torn = places.clone();
            torn[PLACE_BYTES as usize + at] ^= 0x40;
            assert_eq!(Header::newest(&torn), Some((0, old.clone())), "byte {at}");
        }
        assert_eq!(Header::newest(&places[..20]), None);
    }
}
