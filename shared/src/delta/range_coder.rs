//! A range coder (G. N. N. Martin, "Range encoding", 1979) on 64 bits: it writes symbols of given probabilities at
//! within 0.001 % of their information content.
//!
//! The coded number is a fraction in [0, 1), most significant byte first. `low` and `range` are its interval, scaled so
//! that `range` is between 2^32 and 2^64; each symbol narrows the interval to its share. The end is exact: the
//! encoder's last eight bytes are `low` itself, so the decoder has read every byte when it is done, and what is left of
//! the number is 0. A damaged delta is therefore noticed, if not before, then at its end.

use super::DeltaError;
use crate::bytes::Reader;

/// Symbols' frequencies add up to at most 2^16.
pub(super) const TOTAL_BITS: u32 = 16;

/// Appends to a byte string.
pub(super) struct Encoder<'a> {
    low: u64,
    range: u64,
    out: &'a mut Vec<u8>,
}

impl<'a> Encoder<'a> {
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Encoder { low: 0, range: u64::MAX, out }
    }

    /// A symbol whose share of `2^bits` is `start..start + len`; `len` is at least 1.
    #[inline]
    pub fn put(&mut self, start: u32, len: u32, bits: u32) {
        let unit = self.range >> bits;
        let (low, carry) = self.low.overflowing_add(unit * u64::from(start));
        if carry {
            // The number stays below 1, so this ends before the coder's first byte.
            for byte in self.out.iter_mut().rev() {
                *byte = byte.wrapping_add(1);
                if *byte != 0 {
                    break;
                }
            }
        }
        self.low = low;
        self.range = unit * u64::from(len);
        if self.range < 1 << 32 {
            self.out.extend(((self.low >> 32) as u32).to_be_bytes());
            self.low <<= 32;
            self.range <<= 32;
        }
    }

    /// The lowest `bits` (at most 16) of `value`, as they are.
    #[inline]
    pub fn put_bits(&mut self, value: u32, bits: u32) {
        self.put(value, 1, bits);
    }

    /// Writes what is left.
    pub fn finish(self) {
        self.out.extend(self.low.to_be_bytes());
    }
}

/// Reads what [`Encoder`] wrote.
pub(super) struct Decoder<'r, 'a> {
    /// The number, less the interval's lower end.
    code: u64,
    range: u64,
    unit: u64,
    bytes: &'r mut Reader<'a>,
}

impl<'r, 'a> Decoder<'r, 'a> {
    pub fn new(bytes: &'r mut Reader<'a>) -> Result<Self, DeltaError> {
        Ok(Decoder { code: u64::from_be_bytes(bytes.array()?), range: u64::MAX, unit: 0, bytes })
    }

    /// Which of the `2^bits` shares comes next; [`Self::take`] follows.
    #[inline]
    pub fn peek(&mut self, bits: u32) -> Result<u32, DeltaError> {
        self.unit = self.range >> bits;
        let slot = self.code / self.unit;
        if slot >> bits == 0 { Ok(slot as u32) } else { Err(DeltaError::Damaged) }
    }

    /// Takes the symbol that has the shares `start..start + len`, one of which [`Self::peek`] told.
    #[inline]
    pub fn take(&mut self, start: u32, len: u32) -> Result<(), DeltaError> {
        self.code -= self.unit * u64::from(start);
        self.range = self.unit * u64::from(len);
        if self.range < 1 << 32 {
            self.code = self.code << 32 | u64::from(u32::from_be_bytes(self.bytes.array()?));
            self.range <<= 32;
        }
        Ok(())
    }

    /// The next `bits` (at most 16), as they were put.
    #[inline]
    pub fn bits(&mut self, bits: u32) -> Result<u32, DeltaError> {
        let value = self.peek(bits)?;
        self.take(value, 1)?;
        Ok(value)
    }

    /// Checks that nothing is left of the number.
    pub fn finish(self) -> Result<(), DeltaError> {
        if self.code == 0 { Ok(()) } else { Err(DeltaError::Damaged) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The interval does not divide evenly: what is left above the last share belongs to no symbol.
    #[test]
    fn a_number_beyond_the_last_share_is_refused() {
        let bytes = [0xff; 16];
        for bits in [1, 3, 16] {
            let mut reader = Reader::new(&bytes);
            assert_eq!(Decoder::new(&mut reader).unwrap().bits(bits).unwrap_err(), DeltaError::Damaged);
        }
    }

    proptest! {
        /// What was put comes out, also where carries run far back (slots near the interval's upper end).
        #[test]
        fn symbols_come_back(symbols in proptest::collection::vec((0u32..=0xffff, prop_oneof![Just(0xffffu32), 0u32..0x10000]), 0..2000)) {
            let mut out = b"before".to_vec();
            let mut encoder = Encoder::new(&mut out);
            for (len, start) in &symbols {
                let start = *start;
                let len = (*len).clamp(1, 0x10000 - start);
                encoder.put(start, len, 16);
            }
            encoder.put_bits(5, 3);
            encoder.finish();
            prop_assert_eq!(&out[..6], b"before");
            let mut reader = Reader::new(&out[6..]);
            let mut decoder = Decoder::new(&mut reader).unwrap();
            for (len, start) in &symbols {
                let len = (*len).clamp(1, 0x10000 - start);
                let slot = decoder.peek(16).unwrap();
                prop_assert!((*start..start + len).contains(&slot));
                decoder.take(*start, len).unwrap();
            }
            prop_assert_eq!(decoder.bits(3).unwrap(), 5);
            decoder.finish().unwrap();
            prop_assert_eq!(reader.remaining(), 0);
        }
    }
}
