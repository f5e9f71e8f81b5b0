//! What characters are to a rule for words: letters, numbers, white space, or anything else. The tables are those of
//! the regular expressions by which the rules are written.

use regex_syntax::hir::{Class, HirKind};
use std::sync::LazyLock;

/// Neither of the others, `[^\s\p{L}\p{N}]`.
pub const OTHER: u8 = 0;
/// `\p{L}`.
pub const LETTER: u8 = 1;
/// `\p{N}`.
pub const NUMBER: u8 = 2;
/// `\s`.
pub const SPACE: u8 = 3;
/// Not a character: the text ends.
pub const END: u8 = 4;

/// The class of each code point; `None` where the tables were left out of the build.
pub static CLASSES: LazyLock<Option<Box<[u8]>>> = LazyLock::new(|| {
    let mut classes = vec![OTHER; char::MAX as usize + 1].into_boxed_slice();
    for (pattern, class) in [(r"\p{L}", LETTER), (r"\p{N}", NUMBER), (r"\s", SPACE)] {
        let HirKind::Class(Class::Unicode(set)) = regex_syntax::parse(pattern).ok()?.into_kind() else { return None };
        for range in set.ranges() {
            classes[range.start() as usize..=range.end() as usize].fill(class);
        }
    }
    Some(classes)
});
