//! Where words end, by the rules that byte-level vocabularies are made with. Each rule is a regular expression that has
//! a match wherever the one before ended; what is written here finds the same ends without trying its alternatives one
//! after another.

use super::classes::{CLASSES, END, LETTER, NUMBER, OTHER, SPACE};

/// What GPT-2 uses: `ByteLevel` with `use_regex` does so without naming it.
pub const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// What GPT-4 (cl100k) and Llama 3 use.
pub const CL100K: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// What Qwen 2 and 3 use: each number by itself.
pub const QWEN: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// A rule for words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// [`GPT2`].
    Gpt2,
    /// [`CL100K`] and its kin: so many numbers make a word.
    Cl100k {
        /// Most numbers of a word.
        numbers: usize,
    },
}

impl Rule {
    /// The rule that a regular expression is, if it is one of those.
    pub fn of(pattern: &str) -> Option<Self> {
        match pattern {
            GPT2 => Some(Rule::Gpt2),
            CL100K => Some(Rule::Cl100k { numbers: 3 }),
            QWEN => Some(Rule::Cl100k { numbers: 1 }),
            _ => None,
        }
    }

    /// Calls `found` with each word of a text.
    pub fn words<'a>(self, text: &'a str, mut found: impl FnMut(&'a [u8])) {
        let Some(classes) = CLASSES.as_deref() else { return };
        let text = Text { text, bytes: text.as_bytes(), classes };
        let mut at = 0;
        while at < text.bytes.len() {
            let end = match self {
                Rule::Gpt2 => text.gpt2(at),
                Rule::Cl100k { numbers } => text.cl100k(at, numbers),
            };
            found(&text.bytes[at..end]);
            at = end;
        }
    }
}

/// A text, and what its characters are.
struct Text<'a> {
    text: &'a str,
    bytes: &'a [u8],
    classes: &'a [u8],
}

impl Text<'_> {
    /// The class of the character at a place, and where the next one begins.
    fn look(&self, at: usize) -> (u8, usize) {
        match self.bytes.get(at) {
            None => (END, at),
            Some(byte) if byte.is_ascii() => (self.classes[usize::from(*byte)], at + 1),
            Some(_) => {
                let c = self.text[at..].chars().next().unwrap_or(char::REPLACEMENT_CHARACTER);
                (self.classes[c as usize], at + c.len_utf8())
            }
        }
    }

    /// Where the characters of a class end that begin at a place.
    fn run(&self, mut at: usize, class: u8) -> usize {
        loop {
            let (found, next) = self.look(at);
            if found != class {
                return at;
            }
            at = next;
        }
    }

    /// The length of `'s|'t|'re|'ve|'m|'ll|'d` at an apostrophe.
    fn contraction(&self, at: usize, any_case: bool) -> Option<usize> {
        let byte = |at: usize| {
            let byte = self.bytes.get(at).copied().unwrap_or(0);
            if any_case { byte.to_ascii_lowercase() } else { byte }
        };
        match (byte(at + 1), byte(at + 2)) {
            (b's' | b't' | b'm' | b'd', _) => Some(2),
            (b'r' | b'v', b'e') | (b'l', b'l') => Some(3),
            // The long s is an s, whatever its case.
            _ if any_case && self.bytes[at + 1..].starts_with("ſ".as_bytes()) => Some(3),
            _ => None,
        }
    }

    fn gpt2(&self, at: usize) -> usize {
        if self.bytes[at] == b'\''
            && let Some(length) = self.contraction(at, false)
        {
            return at + length;
        }
        let (class, next) = self.look(at);
        if class != SPACE {
            return self.run(next, class);
        }
        match self.look(next) {
            (follows @ (LETTER | NUMBER | OTHER), behind) if self.bytes[at] == b' ' => self.run(behind, follows),
            _ => self.spaces(at),
        }
    }

    fn cl100k(&self, at: usize, numbers: usize) -> usize {
        let first = self.bytes[at];
        if first == b'\''
            && let Some(length) = self.contraction(at, true)
        {
            return at + length;
        }
        let (class, next) = self.look(at);
        match class {
            LETTER => return self.run(next, LETTER),
            NUMBER => {
                let mut end = next;
                for _ in 1..numbers {
                    let (class, next) = self.look(end);
                    end = if class == NUMBER { next } else { end };
                }
                return end;
            }
            _ => {}
        }
        let (follows, behind) = self.look(next);
        if follows == LETTER && first != b'\r' && first != b'\n' {
            return self.run(behind, LETTER);
        }
        if class == OTHER || (first == b' ' && follows == OTHER) {
            let mut end = self.run(next, OTHER);
            while matches!(self.bytes.get(end), Some(b'\r' | b'\n')) {
                end += 1;
            }
            return end;
        }
        let spaces = &self.bytes[at..self.run(next, SPACE)];
        match spaces.iter().rposition(|byte| matches!(byte, b'\r' | b'\n')) {
            Some(line_end) => at + line_end + 1,
            None => self.spaces(at),
        }
    }

    /// `\s+(?!\S)|\s+` at white space: all of it where the text ends there; else all but its last character, which may
    /// belong to the word behind.
    fn spaces(&self, at: usize) -> usize {
        let (mut last, mut end) = (at, at);
        loop {
            match self.look(end) {
                (SPACE, next) => (last, end) = (end, next),
                (END, _) => return end,
                _ => return if last == at { end } else { last },
            }
        }
    }
}
