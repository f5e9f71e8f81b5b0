//! Whether a file without a known layout is text, told from its beginning.

/// A zero byte among the first so many: no text.
const ZERO_BYTES_CHECKED: usize = 8 << 10;
/// Fewest wrong characters that count; a few strays are no reason.
const WRONG_MIN: usize = 16;
/// The same for bytes that are not UTF-8.
const INVALID_MIN: usize = 6;

/// What files of some kinds begin with, and what to do with them.
const MAGIC: [(&[u8], &str); 17] = [
    (b"\x1F\x8B\x08", "gzip once more: unpack it once"),
    (b"\x28\xB5\x2F\xFD", "zstd once more: unpack it once"),
    (b"PAR1", "parquet: give it a name that ends in .parquet, and do not pack it"),
    (b"PK\x03\x04", "a zip archive: unpack it"),
    (b"BZh", "bzip2: unpack it, or pack it as .gz or .zst"),
    (b"\xFD7zXZ\0", "xz: unpack it, or pack it as .gz or .zst"),
    (b"7z\xBC\xAF\x27\x1C", "a 7z archive: unpack it"),
    (b"Rar!\x1A\x07", "a rar archive: unpack it"),
    (b"\x04\x22\x4D\x18", "lz4: unpack it, or pack it as .gz or .zst"),
    (b"%PDF-", "PDF: extract its text"),
    (b"ARROW1", "Arrow: give it a name that ends in .arrow, and do not pack it"),
    (b"\x93NUMPY", "a numpy array"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"\x89PNG", "an image"),
    (b"\xFF\xD8\xFF", "an image"),
    (b"GIF8", "an image"),
    (b"\x7FELF", "a program"),
];

/// Why a file that begins so is no text; `None` where it is.
pub fn refuse(head: &[u8]) -> Option<&'static str> {
    let is_binary = head.iter().take(ZERO_BYTES_CHECKED).any(|b| *b == 0);
    let strange = strange(head);
    if let Some((magic, reason)) = MAGIC.iter().find(|(magic, _)| head.starts_with(magic)) {
        // A magic of letters alone may begin a text too; nobody begins one as a PDF begins.
        let is_word = magic.iter().all(u8::is_ascii_graphic) && !magic.starts_with(b"%PDF");
        if is_binary || strange.is_some() || !is_word {
            return Some(reason);
        }
    }
    if head.get(257..262) == Some(b"ustar") {
        return Some("a tar archive: unpack it");
    }
    if is_binary { Some("binary") } else { strange }
}

/// Whether too much of it is neither UTF-8 nor what text has.
fn strange(head: &[u8]) -> Option<&'static str> {
    let (mut characters, mut invalid, mut control) = (0usize, 0usize, 0usize);
    for chunk in head.utf8_chunks() {
        for c in chunk.valid().chars() {
            characters += 1;
            control += usize::from(is_strange(c));
        }
        // The last character may be cut off by the end of what is looked at.
        invalid += usize::from(!chunk.invalid().is_empty());
    }
    characters += invalid;
    if control >= WRONG_MIN && control * 50 > characters {
        Some("binary: control characters that text does not have")
    } else if invalid >= INVALID_MIN && invalid * 10 > characters {
        Some("neither UTF-8 nor UTF-16: it is no text, or it is latin-1 or another old encoding, which you can convert")
    } else if invalid >= INVALID_MIN && invalid * 100 > characters {
        Some("not UTF-8: it looks like latin-1 or another old encoding; convert it, as with iconv -f latin1 -t utf-8")
    } else {
        None
    }
}

/// A control character that neither text nor a terminal's log has.
fn is_strange(c: char) -> bool {
    c.is_ascii_control() && !matches!(c, '\t' | '\n' | '\r' | '\x0B' | '\x0C' | '\x08' | '\x1B' | '\x1A')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_taken() {
        for text in [
            "plain\r\n\ttext\x0C".repeat(1000).as_bytes(),
            "Zwölf Boxkämpfer 🥊".as_bytes(),
            "\x1B[31mred\x1B[0m log ".repeat(100).as_bytes(),
            b"caf\xe9",
            b"",
            b"PAR1 is how a parquet file begins",
            b"GIF87a was the first version",
            &b"a stray \xef among many plain words of a line that is longer than that, as logs and mails have it\n\
               and some more lines without any, so that fewer than one in a hundred characters are wrong here\n"
                .repeat(500)[..],
            &"漢".as_bytes().repeat(100)[..299],
        ] {
            assert_eq!(refuse(text), None, "{:?}", String::from_utf8_lossy(&text[..text.len().min(40)]));
        }
    }

    #[test]
    fn what_is_no_text_is_refused_with_a_reason() {
        let tokens = |from: u32| -> Vec<u8> {
            (0..30_000u32).flat_map(|i| ((from + i * 7919 % 30_000) as u16 | 0x0101).to_le_bytes()).collect()
        };
        for (bytes, reason) in [
            (&b"ab\0cd"[..], "binary"),
            (&tokens(257), "binary: control characters"),
            (&tokens(30_000), "binary: control characters"),
            (&(0..30_000u32).map(|i| ((i * 7919) >> 3) as u8 | 0x80).collect::<Vec<_>>(), "neither UTF-8"),
            (&[0xCFu8, 0xF0, 0xE8, 0xE2, 0xE5, 0xF2, b' '].repeat(200), "neither UTF-8"),
            (
                &b"Latin-1: na\xefve fa\xe7ade, once a line of plain words\n".repeat(500)[..],
                "not UTF-8: it looks like latin-1",
            ),
            (
                &b"caf\xe9 na\xefve fa\xe7ade d\xe9j\xe0 vu \xe0 la carte r\xe9sum\xe9 cr\xeape"[..],
                "neither UTF-8 nor UTF-16",
            ),
            (b"\x1F\x8B\x08\0\0", "gzip once more"),
            (b"\x28\xB5\x2F\xFD\x04", "zstd once more"),
            (b"PAR1\x15\0\x15\0", "parquet"),
            (b"%PDF-1.4\n% text", "PDF"),
            (b"BZh91AY&SY\0\0", "bzip2"),
        ] {
            let found = refuse(bytes).unwrap_or("text");
            assert!(found.starts_with(reason), "{found}, not {reason}");
        }
    }
}
