//! Added tokens that text may become: they are cut out before anything else is looked at.

use aho_corasick::{AhoCorasick, MatchKind};
use tokenizers::Tokenizer;

/// The added tokens of a vocabulary, in the order in which they are looked for.
pub struct Added {
    passes: Vec<Pass>,
}

/// Tokens that are looked for at once: of those that begin at a place the longest.
struct Pass {
    names: AhoCorasick,
    /// The token of each name; `None` for one that text does not become, but that no other may overlap.
    tokens: Vec<Option<u32>>,
}

impl Added {
    /// Of a tokenizer that takes special tokens for text; `None` where some need more than to be found.
    pub fn of(tokenizer: &Tokenizer, normalizes: bool) -> Option<Self> {
        let added = tokenizer.get_added_tokens_decoder();
        let needs_more = added.values().any(|token| {
            let is_changed = normalizes && token.normalized && !token.content.is_ascii();
            !token.special && (token.single_word || token.lstrip || token.rstrip) || is_changed
        });
        if needs_more {
            return None;
        }
        let mut passes = vec![];
        for normalized in [false, true] {
            let tokens: Vec<_> = added.iter().filter(|(_, token)| token.normalized == normalized).collect();
            if tokens.iter().all(|(_, token)| token.special) {
                continue;
            }
            let names = tokens.iter().map(|(_, token)| token.content.as_str());
            let names = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(names).ok()?;
            let tokens = tokens.iter().map(|(id, token)| (!token.special).then_some(**id)).collect();
            passes.push(Pass { names, tokens });
        }
        Some(Added { passes })
    }

    /// Calls `found` with each part of a text, and the token that it is.
    pub fn split<'a>(&self, text: &'a str, mut found: impl FnMut(&'a str, Option<u32>)) {
        split(&self.passes, text, &mut found);
    }
}

fn split<'a>(passes: &[Pass], text: &'a str, found: &mut dyn FnMut(&'a str, Option<u32>)) {
    let Some((pass, later)) = passes.split_first() else {
        return found(text, None);
    };
    let mut at = 0;
    for matched in pass.names.find_iter(text) {
        let Some(token) = pass.tokens[matched.pattern().as_usize()] else { continue };
        split(later, &text[at..matched.start()], found);
        found(&text[matched.range()], Some(token));
        at = matched.end();
    }
    split(later, &text[at..], found);
}
