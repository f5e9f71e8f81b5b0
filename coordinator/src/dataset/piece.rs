//! Pieces of documents, and where text is cut to them.

/// Text around a piece that its encoding may depend on.
pub const AROUND_BYTES: usize = 1 << 10;
/// How far back the text before a piece begins at most, where it repeats itself.
pub const BEFORE_BYTES_MAX: usize = 64 << 10;
/// Longest stretch that counts as repeating itself, in bytes.
const PERIOD_BYTES_MAX: usize = 8;

/// Part of a document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// Its text; empty where its tokens are known.
    pub text: String,
    /// Its tokens, where they are what was read.
    pub ids: Vec<u32>,
    /// Whether the document begins here.
    pub begins: bool,
    /// Whether the document ends here.
    pub ends: bool,
    /// Some of the document's text before this; empty where it begins.
    pub before: String,
    /// Some of the document's text behind this; empty where it ends.
    pub behind: String,
}

/// Where to cut so that at most `most` bytes go: behind the last line end of the second half, else behind the last
/// space, else between two characters.
pub fn cut_at(bytes: &[u8], most: usize) -> usize {
    if bytes.len() <= most {
        return bytes.len();
    }
    let half = most / 2;
    let behind_last = |wanted: u8| bytes[half..most].iter().rposition(|b| *b == wanted).map(|at| half + at + 1);
    let is_start_of_character = |at: &usize| bytes[*at] & 0xC0 != 0x80;
    behind_last(b'\n')
        .or_else(|| behind_last(b' '))
        .or_else(|| (most.saturating_sub(3).max(1)..=most).rev().find(is_start_of_character))
        .unwrap_or(most)
}

/// A document in pieces.
pub fn pieces_of(text: &str, piece_bytes: usize) -> Vec<Piece> {
    let mut pieces = vec![];
    let mut at = 0;
    while at < text.len() {
        let end = at + cut_at(&text.as_bytes()[at..], piece_bytes);
        pieces.push(Piece {
            text: text[at..end].to_owned(),
            ids: vec![],
            begins: at == 0,
            ends: end == text.len(),
            before: before(&text.as_bytes()[at.saturating_sub(BEFORE_BYTES_MAX)..at]),
            behind: behind(&text.as_bytes()[end..]),
        });
        at = end;
    }
    pieces
}

/// The end of what stands before a piece. A stretch of text that repeats itself is taken from its start on, since
/// tokens are counted off from there.
pub fn before(passed: &[u8]) -> String {
    let mut from = passed.len().saturating_sub(AROUND_BYTES);
    let is_periodic = |period: usize, from: usize| {
        let end = from + 2 * PERIOD_BYTES_MAX;
        end + period <= passed.len() && passed[from..end] == passed[from + period..end + period]
    };
    if let Some(period) = (1..=PERIOD_BYTES_MAX).find(|period| is_periodic(*period, from)) {
        while from > 0 && passed[from - 1] == passed[from - 1 + period] {
            from -= 1;
        }
        from = from.saturating_sub(AROUND_BYTES);
    }
    while from > 0 && passed[from] & 0xC0 == 0x80 {
        from -= 1;
    }
    String::from_utf8_lossy(&passed[from..]).into_owned()
}

/// The beginning of what stands behind a piece.
pub fn behind(coming: &[u8]) -> String {
    let mut end = coming.len().min(AROUND_BYTES);
    while end > 0 && coming.get(end).is_some_and(|b| b & 0xC0 == 0x80) {
        end -= 1;
    }
    String::from_utf8_lossy(&coming[..end]).into_owned()
}
