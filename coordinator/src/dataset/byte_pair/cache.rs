//! Words that were encoded before. Most of a text is made of few words, so a table of fixed size answers for most of
//! them; a word that finds its place taken takes it over.

/// Places of a table, as a power of two: 1.5 MB.
const SLOTS_LOG: u32 = 15;
/// Longest word that is kept, in bytes.
const WORD_BYTES_MAX: usize = 15;
/// Most tokens of one.
const TOKENS_MAX: usize = 7;

/// What encoding a word needs meanwhile.
#[derive(Default)]
pub struct Scratch {
    /// Its tokens so far.
    pub symbols: Vec<u32>,
    /// The rank of the merge between each and the next.
    pub ranks: Vec<u32>,
}

/// A table of words, for one thread.
pub struct Cache {
    slots: Vec<Slot>,
    /// For words that are not in it.
    pub scratch: Scratch,
}

#[derive(Clone, Default)]
struct Slot {
    /// The word's bytes, and its length above them; 0 where the place is free.
    word: u128,
    tokens: [u32; TOKENS_MAX],
    count: u32,
}

impl Default for Cache {
    fn default() -> Self {
        Cache { slots: vec![Slot::default(); 1 << SLOTS_LOG], scratch: Scratch::default() }
    }
}

fn key(word: &[u8]) -> u128 {
    let mut bytes = [0; 16];
    bytes[..word.len()].copy_from_slice(word);
    bytes[WORD_BYTES_MAX] = word.len() as u8;
    u128::from_le_bytes(bytes)
}

fn place(key: u128) -> usize {
    let mixed = (key as u64 ^ (key >> 64) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> (64 - SLOTS_LOG)) as usize
}

impl Cache {
    /// Adds a word's tokens, from the table or else from `encode`.
    pub fn get(&mut self, word: &[u8], tokens: &mut Vec<u32>, encode: impl FnOnce(&mut Scratch, &mut Vec<u32>)) {
        if word.len() > WORD_BYTES_MAX {
            return encode(&mut self.scratch, tokens);
        }
        let key = key(word);
        let slot = &mut self.slots[place(key)];
        if slot.word != key {
            let from = tokens.len();
            encode(&mut self.scratch, tokens);
            let found = &tokens[from..];
            if found.len() <= TOKENS_MAX {
                (slot.word, slot.count) = (key, found.len() as u32);
                slot.tokens[..found.len()].copy_from_slice(found);
            }
            return;
        }
        tokens.extend_from_slice(&slot.tokens[..slot.count as usize]);
    }
}
