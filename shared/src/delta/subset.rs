//! Which places of a chunk are sent: a set of `count` places out of `size`, at within 0.1 % of log2 C(size, count)
//! bits, the least that any code can do where all sets are equally likely.
//!
//! The set is halved again and again: how many of its places lie in the lower half is written with the probability that
//! it has for a random set (a hypergeometric one: C(lower, i) · C(upper, count − i) / C(size, count)), then either half
//! by itself. The probabilities along the way multiply to exactly 1 / C(size, count). Clustered sets cost less where a
//! half is full or empty.
//!
//! The frequencies are a format: see [`Frequencies::compute`] for the exact arithmetic.

use super::{
    DeltaError,
    range_coder::{Decoder, Encoder, TOTAL_BITS},
};

/// Places of a chunk at most.
pub(super) const SIZE_MAX: usize = 4096;
/// 4096, 2048 … 1.
const LEVELS: usize = SIZE_MAX.ilog2() as usize + 1;

/// The frequencies, out of 2^16, of the number of places in a lower half.
#[derive(Default)]
struct Frequencies {
    /// The smallest number possible.
    first: u32,
    /// Where each number's share starts; the last entry is 2^16.
    starts: Vec<u32>,
}

impl Frequencies {
    /// For `count` places over halves of `lower` and `upper`. In f64, with + − × ÷ only and in this order: weights
    /// relative to the most likely number, from their ratios, upwards and then downwards; their sum from the smallest
    /// number up; each number's frequency 1 + ⌊weight / sum · (2^16 − numbers)⌋; what is left of 2^16 goes to the most
    /// likely number.
    fn compute(&mut self, lower: u32, upper: u32, count: u32, weights: &mut Vec<f64>) {
        let (first, last) = (count.saturating_sub(upper), count.min(lower));
        let numbers = last - first + 1;
        let mode = (u64::from(count + 1) * u64::from(lower + 1) / u64::from(lower + upper + 2)) as u32;
        let mode = mode.clamp(first, last);
        let [l, u, c] = [lower, upper, count].map(f64::from);
        // C(l, i + 1)·C(u, c − i − 1) over C(l, i)·C(u, c − i).
        let ratio = |i: f64| ((l - i) * (c - i)) / ((i + 1.0) * (u - c + i + 1.0));
        weights.clear();
        weights.resize(numbers as usize, 1.0);
        for i in mode..last {
            let at = (i - first) as usize;
            weights[at + 1] = weights[at] * ratio(f64::from(i));
        }
        for i in (first..mode).rev() {
            let at = (i - first) as usize;
            weights[at] = weights[at + 1] / ratio(f64::from(i));
        }
        let sum = weights.iter().fold(0.0, |sum, w| sum + w);
        let room = f64::from((1 << TOTAL_BITS) - numbers);
        let frequency = |w: &f64| 1 + (w / sum * room) as u32;
        let rest = (1 << TOTAL_BITS) - weights.iter().map(frequency).sum::<u32>();
        self.first = first;
        self.starts.clear();
        let mut start = 0;
        for (i, w) in (first..).zip(weights.iter()) {
            self.starts.push(start);
            start += frequency(w) + if i == mode { rest } else { 0 };
        }
        self.starts.push(start);
    }

    /// The number whose share holds a slot, counted from `first`.
    #[inline]
    fn find(&self, slot: u32) -> usize {
        if self.starts.len() <= 9 {
            self.starts[1..].iter().take_while(|s| **s <= slot).count()
        } else {
            self.starts.partition_point(|s| *s <= slot) - 1
        }
    }
}

/// Frequencies, kept where they come up again and again: for even halves. At most some 12 MB, if bytes from outside
/// were made to use them all.
pub(super) struct Tables {
    kept: [Vec<Option<Box<Frequencies>>>; LEVELS],
    odd: Frequencies,
    weights: Vec<f64>,
}

impl Tables {
    pub fn new() -> Self {
        Tables { kept: [const { Vec::new() }; LEVELS], odd: Frequencies::default(), weights: vec![] }
    }

    #[inline]
    fn get(&mut self, lower: u32, upper: u32, count: u32) -> &Frequencies {
        if lower != upper {
            self.odd.compute(lower, upper, count, &mut self.weights);
            return &self.odd;
        }
        let kept = &mut self.kept[lower.ilog2() as usize];
        let count_at = count as usize;
        if kept.len() <= count_at {
            kept.resize_with(count_at + 1, || None);
        }
        kept[count_at].get_or_insert_with(|| {
            let mut new = Box::<Frequencies>::default();
            new.compute(lower, upper, count, &mut self.weights);
            new
        })
    }
}

/// The lower half of `size` places: the largest power of two below it.
#[inline]
fn lower_half(size: u32) -> u32 {
    1 << (size - 1).ilog2()
}

/// Writes the set `places`, ascending, each within `base..base + size`.
pub(super) fn encode(tables: &mut Tables, out: &mut Encoder<'_>, base: u32, size: u32, places: &[u16]) {
    let count = places.len() as u32;
    if count == 0 || count == size {
        return;
    }
    if count == 1 && size.is_power_of_two() {
        return out.put_bits(u32::from(places[0]) - base, size.ilog2());
    }
    let lower = lower_half(size);
    let (below, above) = places.split_at(places.partition_point(|p| u32::from(*p) < base + lower));
    let table = tables.get(lower, size - lower, count);
    let at = (below.len() as u32 - table.first) as usize;
    out.put(table.starts[at], table.starts[at + 1] - table.starts[at], TOTAL_BITS);
    encode(tables, out, base, lower, below);
    encode(tables, out, base + lower, size - lower, above);
}

/// Reads a set of `places.len()` places into `places`, ascending.
pub(super) fn decode(
    tables: &mut Tables,
    from: &mut Decoder<'_, '_>,
    base: u32,
    size: u32,
    places: &mut [u16],
) -> Result<(), DeltaError> {
    let count = places.len() as u32;
    if count == 0 {
        return Ok(());
    }
    if count == size {
        for (place, at) in places.iter_mut().zip(base..) {
            *place = at as u16;
        }
        return Ok(());
    }
    if count == 1 && size.is_power_of_two() {
        places[0] = (base + from.bits(size.ilog2())?) as u16;
        return Ok(());
    }
    let lower = lower_half(size);
    let table = tables.get(lower, size - lower, count);
    let at = table.find(from.peek(TOTAL_BITS)?);
    from.take(table.starts[at], table.starts[at + 1] - table.starts[at])?;
    let (below, above) = places.split_at_mut(table.first as usize + at);
    decode(tables, from, base, lower, below)?;
    decode(tables, from, base + lower, size - lower, above)
}

/// log2 C(size, count), for bounds only: other machines may have another last bit.
pub(super) fn information_bits(size: usize, count: usize) -> f64 {
    let ln_factorial = |n: usize| libm::lgamma(n as f64 + 1.0);
    (ln_factorial(size) - ln_factorial(count) - ln_factorial(size - count)) * std::f64::consts::LOG2_E
}
