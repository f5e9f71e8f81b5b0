//! What a target is: something that reads bytes from outside, with what must be true of it whatever the bytes are. It
//! comes to an end without a panic, takes memory in proportion to the bytes, and what it accepts keeps the promises of
//! its type. A value that was read is written and read again, and is the same.

/// One reader of bytes.
pub struct Target {
    /// Its name, for commands and folders.
    pub name: &'static str,
    /// Reads the bytes, and panics where something is not as it must be.
    pub run: fn(&[u8]),
    /// Longest input that is tried.
    pub bytes_max: usize,
    /// Memory that it may take whatever the bytes are, and for each.
    pub memory: [usize; 2],
    /// Inputs to begin with, made of real values.
    #[allow(dead_code, reason = "the fuzzer reads them from their files")]
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// What a small model takes, over and again.
pub const SMALL: usize = 1 << 20;

impl Target {
    /// Most memory that so many bytes may take.
    pub fn memory(&self, bytes: usize) -> usize {
        self.memory[0] + self.memory[1] * bytes
    }
}
