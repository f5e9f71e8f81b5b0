//! Byte-pair encoding of one word: of all neighbours that a merge joins, the merge that was learned first goes first.

use super::cache::Scratch;
use std::{cmp::Reverse, collections::BinaryHeap};

/// Longest word whose neighbours are looked through for each merge, in bytes; a longer one has them in a heap.
const SCANNED_BYTES_MAX: usize = 96;
/// Behind the last symbol, and before the first.
const NONE: u32 = u32::MAX;

/// What two neighbours become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Merge {
    rank: u32,
    becomes: u32,
}

/// All merges of a vocabulary.
pub struct Merges {
    /// The token of each byte.
    bytes: [u32; 256],
    /// By the two tokens: a table with free places, looked through from where the hash points.
    slots: Vec<(u64, Merge)>,
    shift: u32,
}

/// No pair: tokens have fewer bits.
const FREE: u64 = u64::MAX;

fn key(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

impl Merges {
    /// From the tokens of bytes, and pairs with what they become, first learned first. A pair that stands twice counts
    /// where it stands last.
    pub fn new(bytes: [u32; 256], pairs: &[(u32, u32, u32)]) -> Self {
        let bits = (pairs.len() * 2 + 2).next_power_of_two().trailing_zeros();
        let free = (FREE, Merge { rank: NONE, becomes: NONE });
        let mut merges = Merges { bytes, slots: vec![free; 1 << bits], shift: 64 - bits };
        for ((left, right, becomes), rank) in pairs.iter().zip(0..) {
            let at = merges.place(key(*left, *right));
            merges.slots[at] = (key(*left, *right), Merge { rank, becomes: *becomes });
        }
        merges
    }

    /// Where a pair stands, or would.
    fn place(&self, key: u64) -> usize {
        let mut at = (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> self.shift) as usize;
        while self.slots[at].0 != key && self.slots[at].0 != FREE {
            at = (at + 1) & (self.slots.len() - 1);
        }
        at
    }

    fn of(&self, left: u32, right: u32) -> Merge {
        self.slots[self.place(key(left, right))].1
    }

    /// Adds a word's tokens.
    pub fn encode(&self, word: &[u8], scratch: &mut Scratch, tokens: &mut Vec<u32>) {
        match word.len() {
            0..=SCANNED_BYTES_MAX => self.scan(word, scratch, tokens),
            _ => self.heap(word, tokens),
        }
    }

    fn scan(&self, word: &[u8], scratch: &mut Scratch, tokens: &mut Vec<u32>) {
        let Scratch { symbols, ranks } = scratch;
        symbols.clear();
        symbols.extend(word.iter().map(|byte| self.bytes[usize::from(*byte)]));
        ranks.clear();
        ranks.extend(symbols.windows(2).map(|pair| self.of(pair[0], pair[1]).rank));
        while let Some((at, rank)) = ranks.iter().copied().enumerate().min_by_key(|(_, rank)| *rank)
            && rank != NONE
        {
            symbols[at] = self.of(symbols[at], symbols[at + 1]).becomes;
            symbols.remove(at + 1);
            ranks.remove(at);
            if at > 0 {
                ranks[at - 1] = self.of(symbols[at - 1], symbols[at]).rank;
            }
            if at < ranks.len() {
                ranks[at] = self.of(symbols[at], symbols[at + 1]).rank;
            }
        }
        tokens.extend_from_slice(symbols);
    }

    fn heap(&self, word: &[u8], tokens: &mut Vec<u32>) {
        /// A token of the word, and its neighbours' places. One that another has taken in is `NONE`.
        struct Symbol {
            token: u32,
            before: u32,
            next: u32,
        }
        let symbol = |(at, byte): (u32, &u8)| Symbol {
            token: self.bytes[usize::from(*byte)],
            before: at.checked_sub(1).unwrap_or(NONE),
            next: if at as usize + 1 < word.len() { at + 1 } else { NONE },
        };
        let mut symbols: Vec<Symbol> = (0..).zip(word).map(symbol).collect();
        // By rank, then by place, with the pair that it was found for.
        let mut found: BinaryHeap<Reverse<(u32, u32, u64)>> = BinaryHeap::new();
        let look = |symbols: &[Symbol], at: u32| {
            let Symbol { token: left, next, .. } = symbols.get(at as usize)?;
            let right = symbols.get(*next as usize)?.token;
            let rank = self.of(*left, right).rank;
            (rank != NONE).then(|| Reverse((rank, at, key(*left, right))))
        };
        found.extend((0..symbols.len() as u32).filter_map(|at| look(&symbols, at)));
        while let Some(Reverse((_, at, pair))) = found.pop() {
            let Symbol { token: left, before, next } = symbols[at as usize];
            let Some(right) = symbols.get(next as usize) else { continue };
            // Since then one of the two may have become part of another.
            if left == NONE || key(left, right.token) != pair {
                continue;
            }
            let (token, behind) = (right.token, right.next);
            symbols[next as usize].token = NONE;
            symbols[at as usize] = Symbol { token: self.of(left, token).becomes, before, next: behind };
            if let Some(behind) = symbols.get_mut(behind as usize) {
                behind.before = at;
            }
            found.extend(look(&symbols, before));
            found.extend(look(&symbols, at));
        }
        tokens.extend(symbols.iter().map(|symbol| symbol.token).filter(|token| *token != NONE));
    }
}
