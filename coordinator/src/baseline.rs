//! What counting alone achieves: order-1 and order-2 byte models, fitted on the samples that a run has trained on. A
//! trained model that does not beat them has learnt nothing that a table of counts does not know.
//!
//! Witten and Bell's interpolation (IEEE Trans. Information Theory 37(4), 1991, their method C): after a context seen
//! `n` times with `t` different successors, the shorter context's distribution counts as `t` further observations. The
//! shortest is uniform over the 256 bytes.

use crate::dataset::{Dataset, DatasetError};
use std::ops::Range;

const BYTES: usize = 256;

/// Losses in nats a byte.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Baselines {
    /// Of the model that sees one byte back (bigrams).
    pub order1: f64,
    /// Of the model that sees two bytes back (trigrams).
    pub order2: f64,
}

/// Samples of one training shard.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SampleRange {
    /// The shard's position in the manifest.
    pub shard: u32,
    /// First sample.
    pub first: u32,
    /// Number of samples.
    pub samples: u32,
}

/// Fits on exactly these samples (one named twice counts twice) and evaluates on the first `heldout_samples` held-out
/// ones. `None` where tokens are not bytes, or there is nothing to fit on.
pub fn baselines(
    dataset: &Dataset,
    merged: impl IntoIterator<Item = SampleRange>,
    heldout_samples: u32,
) -> Result<Option<Baselines>, DatasetError> {
    let manifest = dataset.manifest();
    if manifest.tokenizer.is_some() || manifest.vocab_size as usize != BYTES {
        return Ok(None);
    }
    let sample_tokens = manifest.context as usize + 1;
    let mut ranges: Vec<SampleRange> = merged.into_iter().filter(|r| r.samples > 0).collect();
    if ranges.is_empty() {
        return Ok(None);
    }
    ranges.sort();
    let mut counts = Counts::default();
    // Shard by shard, so that each is read once and only one is in memory.
    for ranges in ranges.chunk_by(|a, b| a.shard == b.shard) {
        let tokens = dataset.read_shard(ranges[0].shard as usize)?;
        for (samples, times) in counted(ranges) {
            let within = samples.start as usize * sample_tokens..samples.end as usize * sample_tokens;
            slice(&tokens, within)?.chunks(sample_tokens).for_each(|sample| counts.add(sample, times));
        }
    }
    let heldout = dataset.read_heldout(0)?;
    let most = heldout.len().min(heldout_samples as usize * sample_tokens);
    Ok(counts.evaluate(heldout[..most].chunks(sample_tokens)))
}

/// The samples of a shard's ranges, each once, with how many of the ranges hold it: a run goes over its data many times.
fn counted(ranges: &[SampleRange]) -> Vec<(Range<u64>, u32)> {
    let ends = |r: &SampleRange| [(u64::from(r.first), 1), (u64::from(r.first) + u64::from(r.samples), -1)];
    let mut ends: Vec<(u64, i64)> = ranges.iter().flat_map(ends).collect();
    ends.sort_unstable();
    let mut times = 0;
    let pieces = ends.windows(2).map(|pair| {
        times += pair[0].1;
        (pair[0].0..pair[1].0, u32::try_from(times).unwrap_or(0))
    });
    pieces.filter(|(samples, times)| !samples.is_empty() && *times > 0).collect()
}

fn slice(tokens: &[u32], range: Range<usize>) -> Result<&[u32], DatasetError> {
    let what = format!("a merged range ends at token {}, beyond its shard", range.end);
    tokens.get(range).ok_or(DatasetError::Damaged { what })
}

/// How often each byte followed each context of up to two bytes: 64 MiB, however much was counted.
pub struct Counts {
    order0: Table,
    order1: Table,
    order2: Table,
}

/// Counts of successors, a row of 256 a context.
struct Table {
    counts: Vec<u32>,
    seen: Vec<u32>,
    different: Vec<u32>,
}

impl Table {
    fn new(contexts: usize) -> Self {
        Table { counts: vec![0; contexts * BYTES], seen: vec![0; contexts], different: vec![0; contexts] }
    }

    fn add(&mut self, context: usize, next: usize, times: u32) {
        let count = &mut self.counts[context * BYTES + next];
        self.different[context] += u32::from(*count == 0);
        // A context seen 2^32 times is known well enough.
        let times = times.min(u32::MAX - self.seen[context]);
        *count += times;
        self.seen[context] += times;
    }

    /// Probability of `next`, given what the shorter context says.
    fn probability(&self, context: usize, next: usize, shorter: f64) -> f64 {
        let (seen, different) = (f64::from(self.seen[context]), f64::from(self.different[context]));
        if seen == 0.0 {
            return shorter;
        }
        (f64::from(self.counts[context * BYTES + next]) + different * shorter) / (seen + different)
    }
}

impl Default for Counts {
    fn default() -> Self {
        Counts { order0: Table::new(1), order1: Table::new(BYTES), order2: Table::new(BYTES * BYTES) }
    }
}

/// Each predicted byte of a sample with the one before it and, but for the first, the context of two.
fn contexts(sample: &[u32]) -> impl Iterator<Item = (Option<usize>, usize, usize)> + '_ {
    let byte = |i: usize| (sample[i] & 0xFF) as usize;
    (1..sample.len()).map(move |i| ((i >= 2).then(|| byte(i - 2) * BYTES + byte(i - 1)), byte(i - 1), byte(i)))
}

impl Counts {
    /// Counts the bytes that a sample predicts, so many times.
    pub fn add(&mut self, sample: &[u32], times: u32) {
        for (two, one, next) in contexts(sample) {
            self.order0.add(0, next, times);
            self.order1.add(one, next, times);
            if let Some(two) = two {
                self.order2.add(two, next, times);
            }
        }
    }

    /// Mean losses over the bytes that these samples predict; `None` if there are none.
    pub fn evaluate<'a>(&self, samples: impl Iterator<Item = &'a [u32]>) -> Option<Baselines> {
        let (mut order1, mut order2, mut predicted) = (0.0, 0.0, 0u64);
        for (two, one, next) in samples.flat_map(contexts) {
            let p0 = self.order0.probability(0, next, 1.0 / BYTES as f64);
            let p1 = self.order1.probability(one, next, p0);
            let p2 = two.map_or(p1, |two| self.order2.probability(two, next, p1));
            order1 -= p1.ln();
            order2 -= p2.ln();
            predicted += 1;
        }
        let mean = |sum: f64| sum / predicted as f64;
        (predicted > 0).then(|| Baselines { order1: mean(order1), order2: mean(order2) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Vec<u32> {
        text.bytes().map(u32::from).collect()
    }

    /// Fitted on "abab": predicted are b, a, b.
    #[test]
    fn a_tiny_case_by_hand() {
        let mut counts = Counts::default();
        counts.add(&bytes("abab"), 1);
        let result = counts.evaluate([bytes("aba").as_slice()].into_iter()).unwrap();
        // Order 0: seen 3, two different; b twice, a once.
        let (b0, a0) = ((2.0 + 2.0 / 256.0) / 5.0, (1.0 + 2.0 / 256.0) / 5.0);
        // After a: b twice, one different. After b: a once.
        let (b1, a1): (f64, f64) = ((2.0 + b0) / 3.0, (1.0 + a0) / 2.0);
        // After ab: a once. The first byte has only one before it.
        let a2: f64 = (1.0 + a1) / 2.0;
        assert!((result.order1 + (b1.ln() + a1.ln()) / 2.0).abs() < 1e-12);
        assert!((result.order2 + (b1.ln() + a2.ln()) / 2.0).abs() < 1e-12);
        assert_eq!(counts.evaluate([bytes("a").as_slice()].into_iter()), None);
    }

    #[test]
    fn an_unseen_context_falls_back_to_the_shorter() {
        let mut counts = Counts::default();
        counts.add(&bytes("xx"), 1);
        let result = counts.evaluate([bytes("yz").as_slice()].into_iter()).unwrap();
        assert!((result.order1 + (1.0f64 / 256.0 / 2.0).ln()).abs() < 1e-12);
    }

    #[test]
    fn samples_of_many_epochs_are_counted_once_with_their_number() {
        let range = |first, samples| SampleRange { shard: 0, first, samples };
        let ranges = [range(0, 8), range(0, 8), range(4, 8), range(20, 2)];
        assert_eq!(counted(&ranges), [(0..4, 2), (4..8, 3), (8..12, 1), (20..22, 1)]);
        let (mut each, mut at_once) = (Counts::default(), Counts::default());
        (0..3).for_each(|_| each.add(&bytes("abracadabra"), 1));
        at_once.add(&bytes("abracadabra"), 3);
        let losses = |counts: &Counts| counts.evaluate([bytes("cabbage").as_slice()].into_iter());
        assert_eq!(losses(&each), losses(&at_once));
    }

    /// The reference corpus, where it lies beside the repository: about 2.67 and 2.14 are known for interpolated
    /// models.
    #[test]
    fn the_corpus_figures() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
        let read = |name: &str| std::fs::read_to_string(folder.join(name));
        let (Ok(train), Ok(valid)) = (read("train.txt"), read("valid.txt")) else { return };
        let mut counts = Counts::default();
        counts.add(&bytes(&train), 1);
        let result = counts.evaluate([bytes(&valid).as_slice()].into_iter()).unwrap();
        println!("{result:?}");
        assert!((result.order1 - 2.664).abs() < 0.001, "{result:?}");
        assert!((result.order2 - 2.130).abs() < 0.001, "{result:?}");
    }
}
