//! Reading FlatBuffers, as Arrow describes itself with: tables whose fields lie where a table of offsets says. Every
//! place is checked, and all offsets lead forward, so that damaged bytes give `None`, and an end.

/// A table within its bytes.
#[derive(Clone, Copy)]
pub struct Table<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// A vector within its bytes.
#[derive(Clone, Copy)]
pub struct Vector<'a> {
    bytes: &'a [u8],
    /// Where its first element is.
    at: usize,
    /// Number of elements.
    pub length: usize,
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    array(bytes, at).map(|number| u32::from_le_bytes(number) as usize)
}

/// Where an offset leads that stands at a place.
fn follow(bytes: &[u8], at: usize) -> Option<usize> {
    at.checked_add(u32_at(bytes, at)?).filter(|to| *to > at)
}

impl<'a> Table<'a> {
    /// The table that the bytes are about.
    pub fn root(bytes: &'a [u8]) -> Option<Self> {
        Some(Table { bytes, at: follow(bytes, 0)? })
    }

    /// Where field number `slot` is; `None` where it has its default.
    fn field(&self, slot: usize) -> Option<usize> {
        let back = i32::from_le_bytes(array(self.bytes, self.at)?);
        let offsets = usize::try_from(i64::try_from(self.at).ok()? - i64::from(back)).ok()?;
        let length = usize::from(u16::from_le_bytes(array(self.bytes, offsets)?));
        let entry = 4 + 2 * slot;
        let inside = if entry + 2 <= length { u16::from_le_bytes(array(self.bytes, offsets + entry)?) } else { 0 };
        (inside > 0).then(|| self.at + usize::from(inside))
    }

    /// A byte.
    pub fn u8(&self, slot: usize) -> Option<u8> {
        self.bytes.get(self.field(slot)?).copied()
    }

    /// A number of two bytes.
    pub fn i16(&self, slot: usize) -> Option<i16> {
        array(self.bytes, self.field(slot)?).map(i16::from_le_bytes)
    }

    /// A number of eight bytes.
    pub fn i64(&self, slot: usize) -> Option<i64> {
        array(self.bytes, self.field(slot)?).map(i64::from_le_bytes)
    }

    /// Another table.
    pub fn table(&self, slot: usize) -> Option<Table<'a>> {
        Some(Table { bytes: self.bytes, at: follow(self.bytes, self.field(slot)?)? })
    }

    /// A vector.
    pub fn vector(&self, slot: usize) -> Option<Vector<'a>> {
        let at = follow(self.bytes, self.field(slot)?)?;
        Some(Vector { bytes: self.bytes, at: at + 4, length: u32_at(self.bytes, at)? })
    }

    /// A text.
    pub fn text(&self, slot: usize) -> Option<&'a str> {
        let Vector { at, length, .. } = self.vector(slot)?;
        std::str::from_utf8(self.bytes.get(at..at.checked_add(length)?)?).ok()
    }
}

impl<'a> Vector<'a> {
    /// An element that is a table.
    pub fn table(&self, i: usize) -> Option<Table<'a>> {
        let at = self.at.checked_add(i.checked_mul(4)?).filter(|_| i < self.length)?;
        Some(Table { bytes: self.bytes, at: follow(self.bytes, at)? })
    }

    /// An element of two numbers of eight bytes each.
    pub fn pair(&self, i: usize) -> Option<(i64, i64)> {
        let at = self.at.checked_add(i.checked_mul(16)?).filter(|_| i < self.length)?;
        Some((i64::from_le_bytes(array(self.bytes, at)?), i64::from_le_bytes(array(self.bytes, at.checked_add(8)?)?)))
    }

    /// An element that is a number of eight bytes.
    pub fn i64(&self, i: usize) -> Option<i64> {
        let at = self.at.checked_add(i.checked_mul(8)?).filter(|_| i < self.length)?;
        array(self.bytes, at).map(i64::from_le_bytes)
    }
}
