//! Blocks of a squash: exact integers, packed as tightly as a width a block allows.
//!
//! A block of n values v is written as v = h · (a + d · k), where h is the largest number that divides them all, d is 1
//! or 2, and k ≥ 0. First a byte: bits 0 to 4 the width w of a k in bits, bit 5 set where d is 2 (sums of odd levels
//! are all odd or all even). Then h and a as variable-length numbers (seven bits a byte, lowest first, bit 7 set in all
//! but the last byte; a doubled, and where it is negative inverted, so that its sign is the lowest bit). Then the ks, w
//! bits each, the lowest bits of the first byte first; bits left over are zero. A block of zeros is the byte 0x40
//! alone.

use super::super::{INTEGER_LIMIT, VersionError};
use crate::bytes::Reader;

/// Changes are below this in magnitude: what may lie between two weights.
pub(super) const LIMIT: u32 = 2 * INTEGER_LIMIT as u32;
const NOTHING: u8 = 0x40;
const DOUBLED: u8 = 0x20;
const WIDTH: u8 = 0x1f;
/// The largest k is below 2 · `LIMIT`.
const WIDTH_MAX: u8 = 26;

fn gcd(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn put_number(mut number: u32, out: &mut Vec<u8>) {
    while number > 0x7f {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn number(r: &mut Reader<'_>) -> Result<u32, VersionError> {
    let mut number = 0;
    for shift in [0, 7, 14, 21] {
        let byte = r.u8()?;
        number |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    // 28 bits hold whatever is in range.
    Err(VersionError::OutOfRange)
}

/// Writes values below `LIMIT` in magnitude.
pub(super) fn write(values: &[i32], out: &mut Vec<u8>) {
    let least = values.iter().copied().min().unwrap_or(0);
    let spread = values.iter().map(|v| v.abs_diff(least)).max().unwrap_or(0);
    let stride = values.iter().fold(0, |g, v| if g == 1 { 1 } else { gcd(v.abs_diff(least), g) });
    let common = gcd(stride, least.unsigned_abs());
    if common == 0 {
        out.push(NOTHING);
        return;
    }
    let doubled = stride > 0 && (stride / common).is_multiple_of(2);
    let unit = if doubled { 2 * common } else { common };
    let width = u32::BITS - (spread / unit).leading_zeros();
    out.push(width as u8 | if doubled { DOUBLED } else { 0 });
    put_number(common, out);
    let first = least / common as i32;
    put_number(((first << 1) ^ (first >> 31)) as u32, out);
    let (mut bits, mut have) = (0u64, 0);
    for v in values {
        bits |= u64::from(v.abs_diff(least) / unit) << have;
        have += width;
        while have >= 8 {
            out.push(bits as u8);
            bits >>= 8;
            have -= 8;
        }
    }
    if have > 0 {
        out.push(bits as u8);
    }
}

/// Reads a block's changes, in steps: below `LIMIT` in magnitude.
pub(super) fn read(r: &mut Reader<'_>, changes: &mut [i32]) -> Result<(), VersionError> {
    let head = r.u8()?;
    if head == NOTHING {
        changes.fill(0);
        return Ok(());
    }
    let width = head & WIDTH;
    if head & !(WIDTH | DOUBLED) != 0 || width > WIDTH_MAX {
        return Err(VersionError::OutOfRange);
    }
    let common = i64::from(number(r)?);
    let first = number(r)?;
    let first = i64::from((first >> 1) as i32 ^ -((first & 1) as i32));
    if common == 0 {
        return Err(VersionError::OutOfRange);
    }
    let unit = if head & DOUBLED != 0 { 2 * common } else { common };
    let least = common * first;
    let mut packed = r.take((changes.len() * usize::from(width)).div_ceil(8))?.iter();
    let (mut bits, mut have) = (0u64, 0);
    let mut farthest = least.unsigned_abs();
    for change in changes.iter_mut() {
        while have < width {
            bits |= u64::from(*packed.next().unwrap_or(&0)) << have;
            have += 8;
        }
        // Below 2^28 · 2^27 + 2^29 · 2^26 in magnitude: no overflow.
        let value = least + unit * (bits & ((1 << width) - 1)) as i64;
        bits >>= width;
        have -= width;
        farthest = farthest.max(value.unsigned_abs());
        *change = value as i32;
    }
    if farthest >= u64::from(LIMIT) || bits != 0 { Err(VersionError::OutOfRange) } else { Ok(()) }
}
