//! The keys at the head of a GGUF file, with their values.

/// Kinds of values, by their numbers.
const COUNT: u32 = 4;
const WHOLE: u32 = 5;
const NUMBER: u32 = 6;
const FLAG: u32 = 7;
const TEXT: u32 = 8;
const LIST: u32 = 9;

/// See the module.
#[derive(Default)]
pub struct Keys {
    count: u64,
    bytes: Vec<u8>,
}

impl Keys {
    /// A text.
    pub fn text(&mut self, key: &str, value: &str) {
        self.begin(key, TEXT);
        string(&mut self.bytes, value);
    }

    /// A whole number from 0 on.
    pub fn count(&mut self, key: &str, value: u32) {
        self.begin(key, COUNT);
        self.bytes.extend(value.to_le_bytes());
    }

    /// A number.
    pub fn number(&mut self, key: &str, value: f32) {
        self.begin(key, NUMBER);
        self.bytes.extend(value.to_le_bytes());
    }

    /// Yes or no.
    pub fn flag(&mut self, key: &str, value: bool) {
        self.begin(key, FLAG);
        self.bytes.push(value.into());
    }

    /// Texts.
    pub fn texts(&mut self, key: &str, values: &[String]) {
        self.list(key, TEXT, values.len());
        values.iter().for_each(|value| string(&mut self.bytes, value));
    }

    /// Whole numbers.
    pub fn wholes(&mut self, key: &str, values: &[i32]) {
        self.list(key, WHOLE, values.len());
        values.iter().for_each(|value| self.bytes.extend(value.to_le_bytes()));
    }

    /// Appends their number, and all of them.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.count.to_le_bytes());
        out.extend(&self.bytes);
    }

    fn begin(&mut self, key: &str, kind: u32) {
        self.count += 1;
        string(&mut self.bytes, key);
        self.bytes.extend(kind.to_le_bytes());
    }

    fn list(&mut self, key: &str, kind: u32, length: usize) {
        self.begin(key, LIST);
        self.bytes.extend(kind.to_le_bytes());
        self.bytes.extend((length as u64).to_le_bytes());
    }
}

/// Appends a text with its length before it.
pub fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
