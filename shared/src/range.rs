//! What a number from outside may be: the least, the most, and the same in words.

/// Numbers from the least to the most, both of them included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
    /// Whether 0 is allowed besides, as another word for "not at all".
    is_zero_too: bool,
    /// In words, where the two numbers do not say it well.
    said: Option<&'static str>,
}

impl Range {
    /// From one number to another.
    pub const fn new(least: f64, most: f64) -> Self {
        Range { least, most, is_zero_too: false, said: None }
    }

    /// The same with 0, which then means something of its own.
    pub const fn or_zero(self) -> Self {
        Range { is_zero_too: true, ..self }
    }

    /// The same, told in other words.
    pub const fn said(self, words: &'static str) -> Self {
        Range { said: Some(words), ..self }
    }

    /// Whether a number is in it. What is no number is in none.
    pub fn holds(&self, value: f64) -> bool {
        (self.least..=self.most).contains(&value) || (self.is_zero_too && value == 0.0)
    }

    /// In words.
    pub fn words(&self) -> String {
        self.said.map_or_else(|| format!("{} to {}", self.least, self.most), str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_in_it_and_zero_where_it_is_said() {
        let range = Range::new(0.5, 2.0);
        assert_eq!(
            [0.4, 0.5, 2.0, 2.1, 0.0, f64::NAN].map(|v| range.holds(v)),
            [false, true, true, false, false, false]
        );
        assert!(range.or_zero().holds(0.0) && !range.or_zero().holds(0.1));
        assert_eq!(range.words(), "0.5 to 2");
        assert_eq!(Range::new(1.0, 1e6).said("at least 1").words(), "at least 1");
    }
}
