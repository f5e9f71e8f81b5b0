//! Measuring weights on samples, under the same limits as training: a micro-batch at a time at no more than the allowed
//! duty and memory, and never much ahead of the device.

use super::{duty::Duty, environment::Environment, error::WorkError, steps};
use crate::{
    batches::Batch,
    model::Model,
    submits::Gauge,
    trainer::{self, TrainError},
};
use nightjar_shared::wire::worker::{Saved, from_worker};

/// The sum of nats over all tokens, and their number; `at_once` says before each micro-batch how many samples may go
/// through the model together. Ends as [`TrainError::Stopped`] if Stop comes: half a measurement is worth nothing.
pub(super) fn run(
    model: &Model,
    samples: &Batch,
    at_once: impl FnMut() -> usize,
    mut gauge: Gauge,
    env: &Environment<'_>,
) -> Result<(f64, u64), WorkError> {
    let _in_steps = env.live.in_steps();
    let mut duty = Duty::new(env.live);
    let heard = || {
        env.live.give_sign();
        if env.live.take_checkpoint() {
            // There is nothing to save.
            (env.say)(from_worker::Body::Saved(Saved::default()));
        }
        steps::stopped(env)
    };
    let go_on = |gate| steps::pass(gate, &mut gauge, &mut duty, env, heard);
    trainer::evaluate_while(model, samples, at_once, go_on).map_err(|e: TrainError| e.into())
}
