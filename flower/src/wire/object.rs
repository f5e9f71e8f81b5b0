//! Flower's objects: `Kind child,child bytes`, a zero, a body. An object's name is the SHA-256 of all that.

use super::proto::ObjectTree;
use data_encoding::HEXLOWER;
use ring::digest;

/// Bytes that are no object, or another one than was asked for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ObjectError {
    /// The bytes have another name.
    #[error("object {0} was asked for, and other bytes came")]
    OtherBytes(String),
    /// There is no head, or its length is wrong.
    #[error("object {0} has no proper head")]
    Head(String),
    /// It is of another kind.
    #[error("object {name} is a {kind}, and a {expected} was expected")]
    Kind {
        /// Its name.
        name: String,
        /// What it is.
        kind: String,
        /// What it was to be.
        expected: &'static str,
    },
}

/// The name of an object with these bytes.
pub fn name_of(content: &[u8]) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, content).as_ref())
}

/// An object that came, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Object<'a> {
    /// What it is.
    pub kind: &'a str,
    /// The names of those below it, each once.
    pub children: Vec<&'a str>,
    /// What it holds.
    pub body: &'a [u8],
}

impl<'a> Object<'a> {
    /// Takes apart what came for a name.
    pub fn read(name: &str, content: &'a [u8]) -> Result<Self, ObjectError> {
        if name_of(content) != name {
            return Err(ObjectError::OtherBytes(name.to_owned()));
        }
        Self::parse(content).ok_or_else(|| ObjectError::Head(name.to_owned()))
    }

    /// The same, of one kind.
    pub fn read_as(name: &str, content: &'a [u8], expected: &'static str) -> Result<Self, ObjectError> {
        let object = Self::read(name, content)?;
        if object.kind == expected {
            return Ok(object);
        }
        Err(ObjectError::Kind { name: name.to_owned(), kind: object.kind.chars().take(32).collect(), expected })
    }

    fn parse(content: &'a [u8]) -> Option<Self> {
        let end = content.iter().position(|byte| *byte == 0)?;
        let (head, body) = (str::from_utf8(&content[..end]).ok()?, &content[end + 1..]);
        let mut parts = head.split(' ');
        let (kind, children, length) = (parts.next()?, parts.next()?, parts.next()?);
        let is_whole = parts.next().is_none() && length.parse() == Ok(body.len());
        let children = children.split(',').filter(|child| !child.is_empty()).collect();
        is_whole.then_some(Object { kind, children, body })
    }
}

/// Makes an object: its bytes, and what is above it has to know.
pub fn make(kind: &str, children: &[&ObjectTree], body: &[u8]) -> (Vec<u8>, ObjectTree) {
    let mut below: Vec<ObjectTree> = vec![];
    for child in children {
        if below.iter().all(|known| known.object_id != child.object_id) {
            below.push((*child).clone());
        }
    }
    let names: Vec<&str> = below.iter().map(|child| child.object_id.as_str()).collect();
    let mut content = format!("{kind} {} {}\0", names.join(","), body.len()).into_bytes();
    content.extend_from_slice(body);
    let object_id = name_of(&content);
    (content, ObjectTree { object_id, children: below })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As `flwr` 1.42 deflates them.
    #[test]
    fn an_object_has_the_name_that_flower_gives_it() {
        let (content, piece) = make("ArrayChunk", &[], b"abc");
        assert_eq!(content, b"ArrayChunk  3\0abc");
        assert_eq!(piece.object_id, "8f373c1473d725a61442838233deff2aa2a89f72184e517b6a621a3b53abbbd6");
        let (content, above) = make("Array", &[&piece, &piece], b"{}");
        assert_eq!(content, format!("Array {} 2\0{{}}", piece.object_id).into_bytes());
        assert_eq!(above.children, [piece]);
    }

    #[test]
    fn what_was_made_is_read_and_other_bytes_are_not() {
        let (content, tree) = make("ArrayChunk", &[], b"a\0b");
        let name = tree.object_id;
        let read = Object::read(&name, &content).unwrap();
        assert_eq!((read.kind, read.children.len(), read.body), ("ArrayChunk", 0, &b"a\0b"[..]));
        let mut other = content.clone();
        *other.last_mut().unwrap() ^= 1;
        assert_eq!(Object::read(&name, &other), Err(ObjectError::OtherBytes(name.clone())));
        let cut = &content[..content.len() - 1];
        assert_eq!(Object::read(&name_of(cut), cut), Err(ObjectError::Head(name_of(cut))));
        let told = Object::read_as(&name, &content, "Array").unwrap_err().to_string();
        assert!(told.ends_with("is a ArrayChunk, and a Array was expected"), "{told}");
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Object::read(&name_of(&bytes), &bytes);
        }
    }
}
