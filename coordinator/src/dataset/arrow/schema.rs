//! What an Arrow file says of its columns: where, among the buffers of each batch, one of text is.

use super::flat::Table;

/// Columns of a schema, at most, with all that they hold.
const FIELDS_MAX: usize = 10_000;
/// How deep columns may lie in one another.
const DEPTH_MAX: usize = 32;

/// A column, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name, behind those of the columns that hold it.
    pub path: String,
    /// Bytes of each of its offsets, where it is text that can be read.
    pub offset_bytes: Option<usize>,
    /// Its first buffer, which tells nulls, and those of the columns that hold it.
    pub nulls: Vec<Buffer>,
}

/// A buffer's number: some stand behind columns that have more buffers in some batches than in others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buffer {
    /// Buffers before it that every batch has.
    pub buffer: usize,
    /// Columns before it that have further ones, as the batch says.
    pub views: usize,
}

/// The parts of a schema's message that are looked at, by their numbers in Arrow's `Schema.fbs`.
mod slot {
    pub const SCHEMA_ENDIANNESS: usize = 0;
    pub const SCHEMA_FIELDS: usize = 1;
    pub const FIELD_NAME: usize = 0;
    pub const FIELD_TYPE: usize = 2;
    pub const FIELD_TYPE_TABLE: usize = 3;
    pub const FIELD_DICTIONARY: usize = 4;
    pub const FIELD_CHILDREN: usize = 5;
    pub const UNION_MODE: usize = 0;
}

/// Reads the schema's columns, those that others hold behind them; `None` where it is damaged or has more than is read.
pub fn columns(schema: Table) -> Option<Vec<Column>> {
    // Numbers may lie the other way round; no machine of today writes so.
    if schema.i16(slot::SCHEMA_ENDIANNESS).unwrap_or(0) != 0 {
        return None;
    }
    let mut walk = Walk { columns: vec![], next: Buffer::default() };
    let fields = schema.vector(slot::SCHEMA_FIELDS)?;
    for i in 0..fields.length {
        walk.field(fields.table(i)?, "", &[], true)?;
    }
    Some(walk.columns)
}

struct Walk {
    columns: Vec<Column>,
    next: Buffer,
}

impl Walk {
    /// `is_plain`: no list lies between the column and its batch, so that it has one value a row.
    fn field(&mut self, field: Table, above: &str, holders: &[Buffer], is_plain: bool) -> Option<()> {
        if self.columns.len() >= FIELDS_MAX || holders.len() >= DEPTH_MAX {
            return None;
        }
        let name = field.text(slot::FIELD_NAME).unwrap_or_default();
        let path = if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") };
        let kind = field.u8(slot::FIELD_TYPE)?;
        // Binary and Utf8; the large ones.
        let offset_bytes = match kind {
            4 | 5 => Some(4),
            19 | 20 => Some(8),
            _ => None,
        };
        let is_dictionary = field.table(slot::FIELD_DICTIONARY).is_some();
        let mut nulls = holders.to_vec();
        nulls.push(self.next);
        let offset_bytes = offset_bytes.filter(|_| is_plain && !is_dictionary);
        self.columns.push(Column { path: path.clone(), offset_bytes, nulls: nulls.clone() });
        if is_dictionary {
            self.next.buffer += 2;
            return Some(());
        }
        self.next.buffer += match kind {
            // Null; run-end encoded.
            1 | 22 => 0,
            // Struct; list of a fixed size.
            13 | 16 => 1,
            // A union has its types, and where they are mixed closely, places.
            14 => match field.table(slot::FIELD_TYPE_TABLE).and_then(|union| union.i16(slot::UNION_MODE)) {
                Some(1) => 2,
                _ => 1,
            },
            // Texts; views of lists.
            4 | 5 | 19 | 20 | 25 | 26 => 3,
            // Numbers, times, lists, maps; views of texts.
            2 | 3 | 6..=12 | 15 | 17 | 18 | 21 | 23 | 24 => 2,
            _ => return None,
        };
        self.next.views += usize::from(matches!(kind, 23 | 24));
        let Some(children) = field.vector(slot::FIELD_CHILDREN) else { return Some(()) };
        for i in 0..children.length {
            self.field(children.table(i)?, &path, &nulls, is_plain && kind == 13)?;
        }
        Some(())
    }
}
