//! Every bound that the engine holds a device's word against, with its reason; docs/protocol.md has the same table.
//! What is larger than one is refused, or counts only as far as it is plausible. A bound on time only ever makes a
//! device wait.

// ---- how fast a device can train: `credit.rs`

/// Shortest inner step of any device, in seconds: even of the smallest model it is some hundred launches, one after the
/// other.
pub const STEP_S_LEAST: f64 = 0.001;
/// Most floating-point operations a second: two of the fastest accelerators' dense bf16 peak.
pub const FLOPS_MOST: f64 = 2e15;
/// A forward and a backward pass take so many operations a parameter and token.
pub const FLOPS_PER_WEIGHT: f64 = 6.0;
/// The same two bounds for a volunteer's device that has shown nothing yet: ten times the steps that a processor makes
/// of the smallest model, and what a common graphics card does of a large one.
pub const STRANGER_STEP_S: f64 = 0.02;
/// See [`STRANGER_STEP_S`].
pub const STRANGER_FLOPS: f64 = 1e13;
/// After each so many seconds of merged work a device may be twice as fast as before: credit needs time.
pub const CREDIT_DOUBLES_S: f64 = 60.0;
/// A lease is credited with so many times what it takes at least, however long it was held.
pub const CREDIT_FACTOR: f64 = 4.0;
/// A device is at most so many times as fast as it was measured: an owner may have given it a fiftieth of its time
/// until now.
pub const SPEED_FACTOR: f64 = 64.0;

// ---- what an offer says: `work.rs`

/// A device's clock may run so much faster than the coordinator's.
pub const CLOCK_DRIFT: f64 = 1.1;
/// And its time in inner steps may be so much longer than a lease that was as short as its messages.
pub const CLOCK_SLACK_S: f64 = 5.0;
/// By so much the calendar may have been set while no coordinator was running.
pub const CALENDAR_SLACK_S: f64 = 86_400.0;
/// Largest loss of one token, in nats: a model that has diverged may be wrong by thousands.
pub const LOSS_MAX: f64 = 1e6;

// ---- how far a delta can move the weights: `screen.rs`, whose unit is the way that its steps could go at most

/// Room above Adam's largest step for what rounding and error feedback add.
pub const WAY_SLACK: f64 = 1.25;
/// An optimizer that starts afresh takes whole steps at first, as much more in all as so many of them.
pub const FRESH_STEPS: f64 = 3.0;
/// No value of a delta is more than so many times as long a way as Adam's steps, which bound each value by itself: room
/// for the decay of large weights, and for the rounding of what is added to the next. Without it, all that a delta may
/// be could go into the few values of one small tensor.
pub const VALUE_MAX: f64 = 8.0;
/// So long a way passes whatever the others do, where all the others' ways are short: else a few devices that send next
/// to nothing could keep everybody out.
pub const WAY_ALWAYS: f64 = 0.2;
/// A delta of less than this share was not trained, or is worth nothing: no simulated device's was below 0.08.
pub const WAY_LEAST: f64 = 1e-4;
/// Nor is one so many times shorter than the others'.
pub const SHORTER_MAX: f64 = 100.0;
/// Devices that it takes for a median; an anchor node's word counts by itself.
pub const SAY_DEVICES_MIN: usize = 3;
/// Deltas that a device has a say with, merged or refused for being longer than the others'.
pub const SAY_DELTAS_MIN: usize = 2;
/// For how long a device that sends nothing more has its say, in seconds, or for so many leases.
pub const SAY_LASTS_S: f64 = 3600.0;
/// See [`SAY_LASTS_S`].
pub const SAY_LASTS_LEASES: f64 = 8.0;

// ---- a device whose deltas are refused: `roster.rs`

/// So many refusals in a row cost nothing but the work.
pub const REFUSALS_FREE: u32 = 2;
/// The next costs so many seconds without a lease, and each one more twice as many.
pub const REFUSED_HOLD_S: f64 = 60.0;
/// But at most so many. What is merged takes back half of the refusals.
pub const REFUSED_HOLD_S_MAX: f64 = 6.0 * 3600.0;

// ---- rounds: `round.rs`

/// A device that ended so many leases in a row without a delta does not count towards the run's speed, by which all
/// work out their learning rates.
pub const IDLE_LEASES_MAX: u32 = 3;
/// A lease's cost besides training counts as so many times the median of its round at most: no device alone makes
/// rounds long.
pub const OVERHEAD_FACTOR_MAX: f64 = 4.0;
