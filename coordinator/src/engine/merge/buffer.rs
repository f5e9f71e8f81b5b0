//! The quorum buffer: deltas come in, are judged, corrected and weighted, and go out as one averaged pseudo-gradient.
//!
//! Each delta is weighted by its tokens (PAPAYA, Huba et al., arXiv 2111.04877) and its staleness s(τ). Whatever the
//! average, lengths are divided by Σ tokens without s (FedBuff, Nguyen et al., arXiv 2106.06639, divides by the number
//! of deltas): stale deltas make a smaller step, not the same step by others' votes.
//!
//! All sums run in the order of the flat vector, value by value, whatever runs a codec decodes to.

use super::{
    heloco::{self, Correction},
    robust::{COMPANY, clip, direction::Voices},
};
use nightjar_shared::{
    delta::{self, DeltaError, square_of},
    model_spec::{ModelSpec, Role, TensorSpec},
    run_spec::{self, Average, MergeRule, Robust, RunSpec},
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
    robust: Robust,
    /// The share of the momentum that is a version's usual step.
    centre: f64,
    /// Deltas that wait to be judged together, fewer than [`COMPANY`].
    held: Vec<(Measured, Vec<u8>)>,
    /// What those that were judged before say.
    voices: Voices,
    /// The mean: Σ share·Δ, share being tokens·s(τ). RDA: Σ share·Δ/‖Δ‖ in every tensor but the embedding.
    sum: Vec<f32>,
    /// RDA: Σ share·‖Δ‖, a tensor.
    tensor_lengths: Vec<f64>,
    tokens: u64,
    /// Σ of the lengths of what was added to `sum`, and Σ of their squares.
    pub lengths: f64,
    pub squares: f64,
}

/// A delta, measured.
#[derive(Clone, Debug, PartialEq)]
struct Measured {
    tokens: u64,
    /// Of its staleness.
    weight: f64,
    /// ‖Δ‖² of each tensor.
    squares: Vec<f64>,
    /// Δ·m of each, where there is a momentum to go by; else empty.
    dots: Vec<f64>,
}

/// What the others make of a delta.
struct Verdict {
    /// From 0 to 1, how much it counts.
    vote: f64,
    /// How far each tensor may be from the centre; empty for as far as it likes.
    radii: Vec<f64>,
}

/// A tensor of a delta beside the momentum.
#[derive(Clone, Copy)]
struct Place {
    /// ‖Δ‖².
    square: f64,
    /// Δ·m.
    dot: f64,
    /// ‖m‖².
    momentum_square: f64,
}

impl Place {
    /// After a correction; the momentum stays.
    fn after(self, by: Correction) -> Place {
        let Place { square, dot, momentum_square } = self;
        let (a, b) = (by.of_delta, by.of_momentum);
        // ‖aΔ + bm‖² = a²‖Δ‖² + 2abΔ·m + b²‖m‖²
        let square = (a * a * square + 2.0 * a * b * dot + b * b * momentum_square).max(0.0);
        Place { square, dot: a * dot + b * momentum_square, momentum_square }
    }

    /// ‖Δ − c·m‖, c being the centre.
    fn distance_from(self, centre: f64) -> f64 {
        let far = Correction { of_delta: 1.0, of_momentum: -centre };
        self.after(far).square.sqrt()
    }
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
    pub fn new(spec: &RunSpec) -> Self {
        let layout = spec.model.tensors();
        let fade = match spec.merge.rule {
            MergeRule::Nesterov { momentum } if momentum > 0.0 => momentum,
            MergeRule::DelayedNesterov { momentum, .. } => momentum,
            MergeRule::Mean | MergeRule::Nesterov { .. } => f64::from(heloco::FADE),
        };
        Buffer {
            model: spec.model.clone(),
            average: spec.average(),
            correction: spec.merge.correction,
            robust: spec.robust(),
            centre: 1.0 - fade,
            held: vec![],
            voices: Voices::default(),
            sum: vec![0.0; spec.model.parameters()],
            tensor_lengths: vec![0.0; layout.len()],
            layout,
            tokens: 0,
            lengths: 0.0,
            squares: 0.0,
        }
    }

    /// Whether nothing waits for the next version.
    pub fn is_empty(&self) -> bool {
        self.tokens == 0 && self.held.is_empty()
    }

    /// Adds a delta that counts as `tokens`, with staleness weight `weight`; `momentum` is what a correction goes by.
    /// An error leaves the buffer as it was.
    pub fn add(&mut self, tokens: u64, weight: f64, bytes: &[u8], momentum: &[f32]) -> Result<(), DeltaError> {
        let squares = delta::measure(&self.model, bytes)?.squares;
        let measured = Measured { tokens, weight, squares, dots: self.dots(bytes, self.relevant(momentum))? };
        if self.robust == Robust::None {
            return self.take(&measured, bytes, &Verdict { vote: 1.0, radii: vec![] }, momentum);
        }
        self.held.push((measured, bytes.to_vec()));
        if self.held.len() < COMPANY { Ok(()) } else { self.settle(momentum) }
    }

    /// Judges the deltas that wait by each other, and adds them. Before [`Buffer::average`].
    pub fn settle(&mut self, momentum: &[f32]) -> Result<(), DeltaError> {
        let held = std::mem::take(&mut self.held);
        for ((delta, bytes), verdict) in held.iter().zip(self.verdicts(&held, momentum)?) {
            self.take(delta, bytes, &verdict, momentum)?;
        }
        Ok(())
    }

    fn verdicts(&mut self, held: &[(Measured, Vec<u8>)], momentum: &[f32]) -> Result<Vec<Verdict>, DeltaError> {
        let votes = match self.robust {
            Robust::Direction => {
                let company: Vec<&[u8]> = held.iter().map(|(_, bytes)| bytes.as_slice()).collect();
                self.voices.judge(&self.model, &company)?
            }
            Robust::None | Robust::Clip => vec![1.0; held.len()],
        };
        let mut verdicts: Vec<Verdict> = votes.into_iter().map(|vote| Verdict { vote, radii: vec![] }).collect();
        if self.robust == Robust::Clip {
            let tokens: Vec<u64> = held.iter().map(|(delta, _)| delta.tokens).collect();
            for tensor in 0..self.layout.len() {
                let distance =
                    |(delta, _): &(Measured, Vec<u8>)| self.place(tensor, delta, momentum).distance_from(self.centre);
                let radii = clip::radii(&held.iter().map(distance).collect::<Vec<_>>(), &tokens);
                verdicts.iter_mut().zip(radii).for_each(|(verdict, radius)| verdict.radii.push(radius));
            }
        }
        Ok(verdicts)
    }

    /// Adds a delta as the verdict has it.
    fn take(&mut self, delta: &Measured, bytes: &[u8], verdict: &Verdict, momentum: &[f32]) -> Result<(), DeltaError> {
        if verdict.vote == 0.0 {
            return Ok(());
        }
        let momentum = self.relevant(momentum);
        let tokens = delta.tokens as f64 * verdict.vote;
        let entries: Vec<Entry> = (0..self.layout.len())
            .map(|tensor| {
                let radius = verdict.radii.get(tensor).copied().unwrap_or(f64::INFINITY);
                self.entry(tensor, tokens * delta.weight, self.place(tensor, delta, momentum), radius)
            })
            .collect();
        self.enter(bytes, &entries, momentum)?;
        self.note(entries.iter().map(|e| e.square).sum());
        self.tokens += tokens as u64;
        Ok(())
    }

    /// The momentum, where deltas are held against it.
    fn relevant<'m>(&self, momentum: &'m [f32]) -> &'m [f32] {
        let looks_back = self.correction == run_spec::Correction::Heloco || self.robust == Robust::Clip;
        if looks_back { momentum } else { &[] }
    }

    fn place(&self, tensor: usize, delta: &Measured, momentum: &[f32]) -> Place {
        let dot = delta.dots.get(tensor).copied().unwrap_or_default();
        Place { square: delta.squares[tensor], dot, momentum_square: squares_of(&self.layout[tensor], momentum) }
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

    /// How a tensor enters the sum: clipped, then corrected, then weighted.
    fn entry(&self, tensor: usize, share: f64, place: Place, radius: f64) -> Entry {
        let clipped = clip::clip(place.distance_from(self.centre), radius, self.centre);
        let then = place.after(clipped);
        let corrected = match self.correction {
            run_spec::Correction::None => Correction::NONE,
            run_spec::Correction::Heloco => heloco::correct(then.square.sqrt(), then.momentum_square.sqrt(), then.dot),
        };
        let of_delta = corrected.of_delta * clipped.of_delta;
        let of_momentum = corrected.of_delta * clipped.of_momentum + corrected.of_momentum;
        let square = place.after(Correction { of_delta, of_momentum }).square;
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
        self.voices = Voices::default();
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
