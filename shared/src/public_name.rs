//! The name by which a device's owner wants to be shown to everybody, on the public page of a run. Strangers choose it
//! and strangers read it, so it is held to what one line of a page can bear.

use std::fmt;

/// Longest name, in characters.
pub const LETTERS_MAX: usize = 40;

/// A name that can be shown to everybody.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicName(String);

/// A text that is no such name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPublicName {
    /// There is nothing to see.
    #[error("a name has a letter or a digit at least")]
    Empty,
    /// It does not fit a line.
    #[error("a name has at most {LETTERS_MAX} characters")]
    Long,
    /// Something in it changes how what stands around it is read, or is not seen.
    #[error("a name has no characters that break lines, turn the direction of writing or cannot be seen")]
    Unseen,
}

impl PublicName {
    /// Of a text, without the space around it.
    pub fn parse(text: &str) -> Result<Self, BadPublicName> {
        let name = text.trim();
        if name.chars().nth(LETTERS_MAX).is_some() {
            return Err(BadPublicName::Long);
        }
        if name.contains(is_unseen) {
            return Err(BadPublicName::Unseen);
        }
        match name.contains(char::is_alphanumeric) {
            true => Ok(PublicName(name.to_owned())),
            false => Err(BadPublicName::Empty),
        }
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PublicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Controls, separators other than a space, and the characters of Unicode's category "format" and private use that have
/// no shape of their own. The joiners stay: languages and emoji are written with them.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || c.is_whitespace() && c != ' '
        || matches!(
            c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{3164}' | '\u{ffa0}'
        )
        || matches!(c, '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_line_that_says_what_it_shows() {
        for good in [
            "Ada",
            "Ada L. (attic)",
            "Zoë",
            "دانشگاه تهران",
            "می‌خواهم",
            "山田",
            "ann 👩‍🔬",
            "<b>",
            &"x".repeat(LETTERS_MAX),
        ] {
            assert_eq!(PublicName::parse(good).unwrap().as_str(), good);
        }
        assert_eq!(PublicName::parse(" Ada \n").unwrap().as_str(), "Ada");
        for nothing in ["", "  ", "\u{200d}", "--", "🦊"] {
            assert_eq!(PublicName::parse(nothing), Err(BadPublicName::Empty), "{nothing:?}");
        }
        assert_eq!(PublicName::parse(&"x".repeat(LETTERS_MAX + 1)), Err(BadPublicName::Long));
        for hidden in
            ["a\nb", "a\0", "a\u{1b}[2J", "a\u{202e}b", "a\u{2067}b", "a\u{200b}b", "a\u{2028}b", "a\u{e0041}b"]
        {
            assert_eq!(PublicName::parse(hidden), Err(BadPublicName::Unseen), "{hidden:?}");
        }
    }
}
