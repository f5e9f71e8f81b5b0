//! The quorum buffer: deltas come in, are corrected and weighted, and go out as one averaged pseudo-gradient.
//!
//! Each delta is weighted by its tokens (PAPAYA, Huba et al., arXiv 2111.04877) and its staleness s(τ). Whatever the
//! average, lengths are divided by Σ tokens without s (FedBuff, Nguyen et al., arXiv 2106.06639, divides by the number
//! of deltas): stale deltas make a smaller step, not the same step by others' votes.
//!
//! All sums run in the order of the flat vector, value by value, whatever runs a codec decodes to.

use super::heloco::{self, Correction};
use nightjar_shared::{
    delta::{self, DeltaError, square_of},
    model_spec::{ModelSpec, Role, TensorSpec},
    run_spec::{self, Average},
};

/// A shorter tensor has no direction: far below what rounds away beside a weight, and far enough from 0 that tokens
/// divided by it are within f32. Devices choose their bytes.
pub(super) const LENGTH_MIN: f64 = 1e-15;

/// What waits for the next version.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Buffer {
    model: ModelSpec,
    layout: Vec<TensorSpec>,
    average: Average,
    correction: run_spec::Correction,
    /// The mean: Σ share·Δ, share being tokens·s(τ). RDA: Σ share·Δ/‖Δ‖ in every tensor but the embedding.
    sum: Vec<f32>,
    /// RDA: Σ share·‖Δ‖, a tensor.
    tensor_lengths: Vec<f64>,
    tokens: u64,
    /// Σ of the lengths of what was added to `sum`, and Σ of their squares.
    pub lengths: f64,
    pub squares: f64,
}

/// A tensor of a delta, measured.
#[derive(Clone, Copy, Default)]
struct Sketch {
    /// ‖Δ‖².
    square: f64,
    /// Δ·m, where there is a momentum to correct towards.
    dot: f64,
}

/// How a tensor of a delta enters the sum: `of_delta`·Δ + `of_momentum`·m.
#[derive(Clone, Copy)]
struct Entry {
    of_delta: f32,
    of_momentum: f32,
    /// ‖·‖² of that.
    square: f64,
    /// RDA: the tensor's length, times the delta's share.
    length: f64,
}

impl Buffer {
    pub fn new(model: &ModelSpec, average: Average, correction: run_spec::Correction) -> Self {
        let layout = model.tensors();
        Buffer {
            model: model.clone(),
            average,
            correction,
            sum: vec![0.0; model.parameters()],
            tensor_lengths: vec![0.0; layout.len()],
            layout,
            tokens: 0,
            lengths: 0.0,
            squares: 0.0,
        }
    }

    /// Tokens of all deltas in it.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Adds a delta that counts as `tokens`, with staleness weight `weight`; `momentum` is what a correction goes by.
    /// An error leaves the buffer as it was.
    pub fn add(&mut self, tokens: u64, weight: f64, bytes: &[u8], momentum: &[f32]) -> Result<(), DeltaError> {
        let corrects = self.correction == run_spec::Correction::Heloco;
        let momentum = if corrects { momentum } else { &[] };
        let squares = delta::measure(&self.model, bytes)?.squares;
        let dots = self.dots(bytes, momentum)?;
        let share = tokens as f64 * weight;
        let entries: Vec<Entry> = (0..self.layout.len())
            .map(|t| {
                let sketch = Sketch { square: squares[t], dot: dots.get(t).copied().unwrap_or_default() };
                self.entry(t, share, sketch, squares_of(&self.layout[t], momentum))
            })
            .collect();
        self.enter(bytes, &entries, momentum)?;
        self.note(entries.iter().map(|e| e.square).sum());
        self.tokens += tokens;
        Ok(())
    }

    fn note(&mut self, square: f64) {
        self.lengths += square.sqrt();
        self.squares += square;
    }

    /// Δ·m of each tensor; none without a momentum.
    fn dots(&self, bytes: &[u8], momentum: &[f32]) -> Result<Vec<f64>, DeltaError> {
        if momentum.is_empty() {
            return Ok(vec![]);
        }
        let mut dots = vec![0.0; self.layout.len()];
        let mut tensors = Cutter::new(&self.layout);
        delta::decode(&self.model, bytes, |at, values| {
            tensors.cut(at, values, |tensor, at, values| {
                for (v, m) in values.iter().zip(&momentum[at..]) {
                    dots[tensor] += f64::from(*v) * f64::from(*m);
                }
            });
        })?;
        Ok(dots)
    }

    /// How a tensor enters the sum.
    fn entry(&self, tensor: usize, share: f64, sketch: Sketch, momentum_square: f64) -> Entry {
        let Sketch { square, dot } = sketch;
        let Correction { of_delta, of_momentum } = match self.correction {
            run_spec::Correction::None => Correction::NONE,
            run_spec::Correction::Heloco => heloco::correct(square.sqrt(), momentum_square.sqrt(), dot),
        };
        // ‖aΔ + bm‖² = a²‖Δ‖² + 2abΔ·m + b²‖m‖²
        let cross = 2.0 * of_delta * of_momentum * dot;
        let square = (of_delta * of_delta * square + cross + of_momentum * of_momentum * momentum_square).max(0.0);
        let length = square.sqrt();
        let scale = match self.average {
            Average::Rda if length < LENGTH_MIN => 0.0,
            Average::Rda if self.has_direction(tensor) => share / length,
            Average::Rda | Average::Mean => share,
        };
        Entry {
            of_delta: (scale * of_delta) as f32,
            of_momentum: (scale * of_momentum) as f32,
            square: scale * scale * square,
            length: share * length,
        }
    }

    /// Whether RDA takes a tensor's direction and length apart: the embedding, whose rows are trained on as seldom as
    /// their tokens are seen, keeps the plain mean.
    fn has_direction(&self, tensor: usize) -> bool {
        self.layout[tensor].role != Role::Embedding
    }

    fn enter(&mut self, bytes: &[u8], entries: &[Entry], momentum: &[f32]) -> Result<(), DeltaError> {
        let shares: Vec<f32> = entries.iter().map(|entry| entry.of_delta).collect();
        delta::add_scaled(&self.model, bytes, &shares, &mut self.sum)?;
        for ((tensor, entry), length) in self.layout.iter().zip(entries).zip(&mut self.tensor_lengths) {
            if entry.of_momentum != 0.0 {
                add(&mut self.sum[tensor.range()], entry.of_momentum, &momentum[tensor.range()]);
            }
            *length += entry.length;
        }
        Ok(())
    }

    /// ‖Σv‖² of what was added, before [`Buffer::average`].
    pub fn square_of_sum(&self) -> f64 {
        square_of(&self.sum)
    }

    /// Makes the sum the averaged pseudo-gradient.
    pub fn average(&mut self) -> &[f32] {
        let tokens = self.tokens.max(1);
        for t in 0..self.layout.len() {
            let is_apart = self.average == Average::Rda && self.has_direction(t);
            let sum = &mut self.sum[self.layout[t].range()];
            if is_apart {
                // (Σw‖v‖ / Σ tokens) · φ(Σw·φ(v)), with φ(x) = x/‖x‖
                let length = square_of(sum).sqrt();
                let scale = if length > 0.0 { (self.tensor_lengths[t] / tokens as f64 / length) as f32 } else { 0.0 };
                sum.iter_mut().for_each(|v| *v *= scale);
            } else {
                sum.iter_mut().for_each(|v| *v /= tokens as f32);
            }
        }
        &self.sum
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.sum.fill(0.0);
        self.tensor_lengths.fill(0.0);
        (self.tokens, self.lengths, self.squares) = (0, 0.0, 0.0);
    }
}

fn add(sum: &mut [f32], scale: f32, values: &[f32]) {
    for (sum, v) in sum.iter_mut().zip(values) {
        *sum += scale * v;
    }
}

fn squares_of(tensor: &TensorSpec, vector: &[f32]) -> f64 {
    vector.get(tensor.range()).map_or(0.0, square_of)
}

/// Cuts runs of the flat vector, in ascending order, where tensors end.
struct Cutter<'a> {
    layout: &'a [TensorSpec],
    tensor: usize,
}

impl<'a> Cutter<'a> {
    fn new(layout: &'a [TensorSpec]) -> Self {
        Cutter { layout, tensor: 0 }
    }

    fn cut(&mut self, mut at: usize, mut values: &[f32], mut each: impl FnMut(usize, usize, &[f32])) {
        while !values.is_empty() {
            while at >= self.layout[self.tensor].range().end {
                self.tensor += 1;
            }
            let here = values.len().min(self.layout[self.tensor].range().end - at);
            each(self.tensor, at, &values[..here]);
            (at, values) = (at + here, &values[here..]);
        }
    }
}

#[cfg(test)]
mod tests;
