//! Blocks of an update of one version: up to 256 values, each a small level times a unit that is a power of two of the
//! tensor's steps.
//!
//! A block begins with a byte. Zero: nothing changes, and nothing follows. Else its low five bits are 1 + the unit's
//! exponent, and packed levels follow: with `blocks8` −128 to 127, with `blocks4` −8 to 7 (two's complement). With
//! `blocks2` the code c = 0 to 3 is the level 2c − 3, so ±1 or ±3; or, with bit 7 of the first byte, c − 1; or, with
//! bits 7 and 6, 1 − c. Byte i of a block of n values packed into b bytes holds values i, i + b, i + 2b …, the lowest
//! bits first; places beyond n are zero.
//!
//! Why the levels with a zero: where few values want to change (deltas are sparse), ±1 and ±3 move all the others too.
//! Why powers of two and nothing finer: with units of (4 to 7)·2^e the error is 5 % smaller, but units of neighbouring
//! versions hardly ever agree, and their sums, the squashes, take 1 to 2 bits a value more.

use super::super::{INTEGER_LIMIT, VersionError, power_of_two};
use crate::{bytes::Reader, delta::CodecId, fragment::BLOCK};

/// How many bits a level has; the numbers are those of [`CodecId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Coding {
    Blocks8 = 1,
    Blocks4 = 2,
    Blocks2 = 3,
}

/// Bit 7: the levels have a zero.
const WITH_ZERO: u8 = 0x80;
/// Bit 6: they are −2 to 1 instead of −1 to 2.
const MIRRORED: u8 = 0x40;
const EXPONENT: u8 = 0x1f;

impl Coding {
    pub const ALL: [Coding; 3] = [Coding::Blocks8, Coding::Blocks4, Coding::Blocks2];

    pub fn of(codec: CodecId) -> Option<Self> {
        match codec {
            CodecId::Blocks8 => Some(Coding::Blocks8),
            CodecId::Blocks4 => Some(Coding::Blocks4),
            CodecId::Blocks2 => Some(Coding::Blocks2),
            CodecId::Sparse2 | CodecId::F32 => None,
        }
    }

    fn bits(self) -> usize {
        match self {
            Coding::Blocks8 => 8,
            Coding::Blocks4 => 4,
            Coding::Blocks2 => 2,
        }
    }

    pub fn payload_bytes(self, values: usize) -> usize {
        (values * self.bits()).div_ceil(8)
    }

    /// The largest level that is written.
    fn most(self) -> i32 {
        match self {
            Coding::Blocks8 => 127,
            Coding::Blocks4 => 7,
            Coding::Blocks2 => 3,
        }
    }

    /// The largest exponent of a unit: `most` units are below the integers' limit.
    fn exponent_max(self) -> u8 {
        match self {
            Coding::Blocks8 => 17,
            Coding::Blocks4 => 21,
            Coding::Blocks2 => 22,
        }
    }
}

/// Levels of a block: which there are, and their unit's exponent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Grid {
    coding: Coding,
    /// `WITH_ZERO` and `MIRRORED`, for `blocks2` alone.
    flags: u8,
    exponent: u8,
}

impl Grid {
    fn head(self) -> u8 {
        self.flags | (self.exponent + 1)
    }

    fn of_head(coding: Coding, head: u8) -> Option<Self> {
        let grid = Grid { coding, flags: head & !EXPONENT, exponent: (head & EXPONENT).checked_sub(1)? };
        let flags_fit = match coding {
            Coding::Blocks2 => [0, WITH_ZERO, WITH_ZERO | MIRRORED].contains(&grid.flags),
            Coding::Blocks8 | Coding::Blocks4 => grid.flags == 0,
        };
        (flags_fit && grid.exponent <= coding.exponent_max()).then_some(grid)
    }

    #[inline(always)]
    fn level(self, code: u8) -> i32 {
        match (self.coding, self.flags) {
            (Coding::Blocks8, _) => i32::from(code as i8),
            (Coding::Blocks4, _) => i32::from((code << 4) as i8 >> 4),
            (Coding::Blocks2, 0) => 2 * i32::from(code) - 3,
            (Coding::Blocks2, WITH_ZERO) => i32::from(code) - 1,
            (Coding::Blocks2, _) => 1 - i32::from(code),
        }
    }

    #[inline(always)]
    fn code(self, level: i32) -> u8 {
        match (self.coding, self.flags) {
            (Coding::Blocks8, _) => level as u8,
            (Coding::Blocks4, _) => level as u8 & 15,
            (Coding::Blocks2, 0) => ((level + 3) / 2) as u8,
            (Coding::Blocks2, WITH_ZERO) => (level + 1) as u8,
            (Coding::Blocks2, _) => (1 - level) as u8,
        }
    }

    /// The level nearest to a value in units, as a float.
    #[inline(always)]
    fn nearest(self, units: f32) -> f32 {
        let most = self.coding.most() as f32;
        match (self.coding, self.flags) {
            (Coding::Blocks8 | Coding::Blocks4, _) => rounded(units.clamp(-most, most)),
            (Coding::Blocks2, 0) => (if units.abs() >= 2.0 { 3.0f32 } else { 1.0 }).copysign(units),
            (Coding::Blocks2, WITH_ZERO) => rounded(units.clamp(-1.0, 2.0)),
            (Coding::Blocks2, _) => rounded(units.clamp(-2.0, 1.0)),
        }
    }

    /// Of the levels that keep `n` within the limit, the one nearest to `level`.
    fn within_limit(self, n: i32, level: i32) -> i32 {
        let fits = |level: i32| (n + (level << self.exponent)).unsigned_abs() < INTEGER_LIMIT.unsigned_abs();
        if fits(level) {
            return level;
        }
        match (self.coding, self.flags) {
            // The way back from the limit is open for a level of one unit, whatever n is.
            (Coding::Blocks2, 0) => [level.signum(), -level.signum()].into_iter().find(|l| fits(*l)).unwrap_or(level),
            _ => {
                let inward = -level.signum();
                (1..=level.abs()).map(|k| level + k * inward).find(|l| fits(*l)).unwrap_or(0)
            }
        }
    }

    /// Squared error of all values, in steps squared.
    fn error(self, steps: &[f32]) -> f32 {
        // Each call is compiled for its own levels.
        let of = |coding, flags| Grid { coding, flags, ..self };
        match (self.coding, self.flags) {
            (Coding::Blocks8, _) => error_on(of(Coding::Blocks8, 0), steps),
            (Coding::Blocks4, _) => error_on(of(Coding::Blocks4, 0), steps),
            (Coding::Blocks2, 0) => error_on(of(Coding::Blocks2, 0), steps),
            (Coding::Blocks2, WITH_ZERO) => error_on(of(Coding::Blocks2, WITH_ZERO), steps),
            (Coding::Blocks2, _) => error_on(of(Coding::Blocks2, WITH_ZERO | MIRRORED), steps),
        }
    }
}

#[inline(always)]
fn error_on(grid: Grid, steps: &[f32]) -> f32 {
    let (unit, per_unit) = (power_of_two(i32::from(grid.exponent)), power_of_two(-i32::from(grid.exponent)));
    sum(steps, |v| {
        let e = v - grid.nearest(v * per_unit) * unit;
        e * e
    })
}

/// Rounds what is far below 2²² in magnitude to a whole number, ties to even: adding 1.5 · 2²³ leaves no bit for a
/// fraction. (`round_ties_even` is a call where the processor's oldest instructions are to do.)
#[inline(always)]
fn rounded(v: f32) -> f32 {
    const NO_FRACTION: f32 = 12_582_912.0;
    (v + NO_FRACTION) - NO_FRACTION
}

/// A sum in eight lanes: the same order on every machine, and one that a compiler may vectorise.
#[inline(always)]
fn sum(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let (whole, rest) = values.as_chunks::<8>();
    let mut lanes = [0f32; 8];
    for chunk in whole {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane += f(*v);
        }
    }
    lanes.iter().sum::<f32>() + rest.iter().map(|v| f(*v)).sum::<f32>()
}

/// The exponent of the smallest power of two that is no less than `value`, which is in steps; 0 to `most`.
fn exponent_above(value: f32, most: u8) -> u8 {
    (0..most).find(|e| value <= power_of_two(i32::from(*e))).unwrap_or(most)
}

/// The grid of least squared error; `None` where nothing is as good.
fn choose(coding: Coding, steps: &[f32]) -> Option<Grid> {
    let max = coding.exponent_max();
    let largest = steps.iter().fold(0f32, |m, v| m.max(v.abs()));
    let squares = sum(steps, |v| v * v);
    let grid = |flags, exponent| Grid { coding, flags, exponent };
    let (mut best, mut least) = (None, squares);
    let mut offer = |candidate: Grid| {
        let error = candidate.error(steps);
        if error < least {
            (best, least) = (Some(candidate), error);
        }
    };
    // The unit that reaches the largest value.
    let reaching = exponent_above(largest / coding.most() as f32, max);
    match coding {
        Coding::Blocks8 => offer(grid(0, reaching)),
        // Where a block has outliers, clipping them costs less than a coarser unit for all.
        Coding::Blocks4 => (reaching.saturating_sub(3)..=reaching).for_each(|e| offer(grid(0, e))),
        Coding::Blocks2 => {
            // For a Gaussian ±1 and ±3 are best at half a standard deviation (Max, 1960), −1 to 2 at about one; where
            // few values want to change, at about their size.
            let deviation = libm::sqrtf(squares / steps.len() as f32);
            let half = exponent_above(0.36 * deviation, max);
            (half..=(half + 1).min(max)).for_each(|e| offer(grid(0, e)));
            let end = exponent_above(largest, max);
            for e in half..=end {
                offer(grid(WITH_ZERO, e));
                offer(grid(WITH_ZERO | MIRRORED, e));
            }
        }
    }
    best
}

/// Publishes a block: writes it, adds what was written to `integers`, and takes it from `feedback`.
pub(super) fn publish(coding: Coding, step: f32, integers: &mut [i32], feedback: &mut [f32], out: &mut Vec<u8>) {
    let (far, per_step) = (2.0 * INTEGER_LIMIT as f32, 1.0 / step);
    let mut steps = [0f32; BLOCK];
    let steps = &mut steps[..feedback.len()];
    for (s, wanted) in steps.iter_mut().zip(&*feedback) {
        *s = (wanted * per_step).clamp(-far, far);
    }
    let Some(grid) = choose(coding, steps) else {
        out.push(0);
        return;
    };
    out.push(grid.head());
    let at = out.len();
    out.resize(at + coding.payload_bytes(feedback.len()), 0);
    let block = Block { integers, feedback, steps, step, packed: &mut out[at..] };
    match (coding, grid.flags) {
        (Coding::Blocks8, _) => put(Grid { coding: Coding::Blocks8, flags: 0, ..grid }, block),
        (Coding::Blocks4, _) => put(Grid { coding: Coding::Blocks4, flags: 0, ..grid }, block),
        (Coding::Blocks2, 0) => put(Grid { coding: Coding::Blocks2, flags: 0, ..grid }, block),
        (Coding::Blocks2, flags) => put(Grid { coding: Coding::Blocks2, flags, ..grid }, block),
    }
}

/// A block on its way out.
struct Block<'b> {
    integers: &'b mut [i32],
    feedback: &'b mut [f32],
    /// The feedback in steps.
    steps: &'b [f32],
    step: f32,
    packed: &'b mut [u8],
}

#[inline(always)]
fn put(grid: Grid, block: Block<'_>) {
    let Block { integers, feedback, steps, step, packed } = block;
    let (bytes, per_unit) = (packed.len(), power_of_two(-i32::from(grid.exponent)));
    let farthest = integers.iter().fold(0, |m, n| n.unsigned_abs().max(m));
    let is_near_limit = farthest + ((grid.coding.most() as u32) << grid.exponent) >= INTEGER_LIMIT.unsigned_abs();
    let planes = integers.chunks_mut(bytes).zip(feedback.chunks_mut(bytes)).zip(steps.chunks(bytes));
    for (((integers, feedback), steps), lowest_bit) in planes.zip((0..8).step_by(grid.coding.bits())) {
        let places = integers.iter_mut().zip(feedback).zip(steps);
        for (((n, wanted), s), byte) in places.zip(packed.iter_mut()) {
            let mut level = grid.nearest(s * per_unit) as i32;
            if is_near_limit {
                level = grid.within_limit(*n, level);
            }
            *byte |= grid.code(level) << lowest_bit;
            *n += level << grid.exponent;
            *wanted -= (level << grid.exponent) as f32 * step;
        }
    }
}

/// Reads a block's changes, in steps: below 2²⁵ in magnitude.
pub(super) fn read(coding: Coding, r: &mut Reader<'_>, changes: &mut [i32]) -> Result<(), VersionError> {
    let head = r.u8()?;
    if head == 0 {
        changes.fill(0);
        return Ok(());
    }
    let grid = Grid::of_head(coding, head).ok_or(VersionError::OutOfRange)?;
    let packed = r.take(coding.payload_bytes(changes.len()))?;
    // One loop a set of levels, so that each is straight-line code.
    match (coding, grid.flags) {
        (Coding::Blocks8, _) => {
            unpack(8, packed, changes, |code| grid_level(Coding::Blocks8, 0, code) << grid.exponent)
        }
        (Coding::Blocks4, _) => {
            unpack(4, packed, changes, |code| grid_level(Coding::Blocks4, 0, code) << grid.exponent)
        }
        (Coding::Blocks2, flags) => {
            unpack(2, packed, changes, |code| grid_level(Coding::Blocks2, flags, code) << grid.exponent)
        }
    }
}

#[inline(always)]
fn grid_level(coding: Coding, flags: u8, code: u8) -> i32 {
    Grid { coding, flags, exponent: 0 }.level(code)
}

#[inline(always)]
fn unpack(bits: usize, packed: &[u8], changes: &mut [i32], change: impl Fn(u8) -> i32) -> Result<(), VersionError> {
    let mask = (0xffu32 >> (8 - bits)) as u8;
    let code = |place: usize| packed[place % packed.len()] >> (bits * (place / packed.len())) & mask;
    if (changes.len()..packed.len() * 8 / bits).any(|place| code(place) != 0) {
        return Err(VersionError::OutOfRange);
    }
    for (plane, lowest_bit) in changes.chunks_mut(packed.len()).zip((0..8).step_by(bits)) {
        for (to, byte) in plane.iter_mut().zip(packed) {
            *to = change(byte >> lowest_bit & mask);
        }
    }
    Ok(())
}
