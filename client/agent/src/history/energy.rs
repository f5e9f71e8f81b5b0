//! How much energy training takes, as far as this computer can tell. While it runs on its battery, the battery says so
//! for the whole machine; else RAPL counts for the processor and NVML for an NVIDIA GPU. What none of them covers is an
//! estimate, and is called one.
//!
//! Meters count whole devices, with whatever else runs on them, and only while training does.

mod battery;
mod nvml;
mod rapl;

use nightjar_shared::time::Mono;
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, mpsc},
};

/// Assumed of a processor's thread at work, in watts. A desktop's processor of 8 cores takes 65 to 105 W under full
/// load.
const WATTS_PER_THREAD: f64 = 10.0;
/// Assumed of a GPU at work, in watts: between a laptop's (60) and a desktop's (200).
const WATTS_PER_GPU: f64 = 120.0;
/// A longer time between two looks was no time of training: the computer slept, or the process was stopped.
const STEP_MAX_S: f64 = 60.0;

/// Energy.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Joules {
    /// By a meter.
    pub measured: f64,
    /// By assumption.
    pub estimated: f64,
}

/// What trains, for the estimate and for choosing meters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Load {
    /// What it computes on, in the worker's words.
    pub device: String,
    /// Whether that is a GPU.
    pub is_gpu: bool,
    /// Threads on the processor.
    pub threads: usize,
    /// Share of the time that it computes.
    pub duty: f64,
    /// Whether the computer runs on its battery.
    pub on_battery: bool,
}

impl std::ops::AddAssign for Joules {
    fn add_assign(&mut self, other: Joules) {
        self.measured += other.measured;
        self.estimated += other.estimated;
    }
}

/// The meters, read on a thread of their own: a driver whose GPU was lost may never answer, and the owner's computer
/// must not wait for that.
pub struct Metering {
    /// What is to be read next. One that is still busy with the last misses it.
    looks: mpsc::SyncSender<(Option<Load>, Mono)>,
    /// What was read since the last call, and where it came from.
    read: Arc<Mutex<(Joules, String)>>,
    was_loaded: bool,
}

impl Metering {
    /// Starts the thread; it ends with this.
    pub fn start(mut meters: Meters) -> Self {
        Self::by(move |load, now| {
            let joules = meters.sample(load, now);
            (joules, meters.source().unwrap_or_default().to_owned())
        })
    }

    fn by(mut meters: impl FnMut(Option<&Load>, Mono) -> (Joules, String) + Send + 'static) -> Self {
        let (looks, asked) = mpsc::sync_channel::<(Option<Load>, Mono)>(1);
        let read = Arc::new(Mutex::new((Joules::default(), String::new())));
        let shared = read.clone();
        let keep_reading = move || {
            while let Ok((load, now)) = asked.recv() {
                let (joules, source) = meters(load.as_ref(), now);
                let mut read = shared.lock().unwrap_or_else(PoisonError::into_inner);
                read.0 += joules;
                read.1 = source;
            }
        };
        if let Err(e) = std::thread::Builder::new().name("meters".into()).spawn(keep_reading) {
            tracing::warn!("no energy is counted: {e}");
        }
        Metering { looks, read, was_loaded: false }
    }

    /// Has the meters read while `load` trains; gives back the energy that is known by now and was not told before.
    /// While nothing trains the thread sleeps.
    pub fn sample(&mut self, load: Option<Load>, now: Mono) -> Joules {
        let is_loaded = load.is_some();
        // It is not taken while the thread waits for a driver.
        if (is_loaded || self.was_loaded) && self.looks.try_send((load, now)).is_ok() {
            self.was_loaded = is_loaded;
        }
        std::mem::take(&mut self.read.lock().unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Where the last figure came from, in words; for an estimate, what it assumes.
    pub fn source(&self) -> Option<String> {
        Some(self.read.lock().unwrap_or_else(PoisonError::into_inner).1.clone()).filter(|source| !source.is_empty())
    }
}

/// The meters. They are opened when training begins and let go when it ends: opening NVML keeps a GPU awake.
pub struct Meters {
    root: PathBuf,
    open: Option<Open>,
    source: String,
}

struct Open {
    since: Mono,
    rapl: Option<rapl::Counters>,
    nvml: Option<nvml::Counter>,
}

impl Meters {
    /// Those below this root, `/` on a computer that is not a test's.
    pub fn new(root: PathBuf) -> Self {
        Meters { root, open: None, source: String::new() }
    }

    /// Energy since the last call, while `load` trains. `None`: nothing trains.
    pub fn sample(&mut self, load: Option<&Load>, now: Mono) -> Joules {
        let Some(load) = load else {
            self.open = None;
            return Joules::default();
        };
        let Some(open) = &mut self.open else {
            self.open = Some(Open {
                since: now,
                rapl: rapl::Counters::open(&self.root),
                nvml: if load.is_gpu { nvml::Counter::open(&load.device) } else { None },
            });
            return Joules::default();
        };
        let seconds = now.since(open.since).as_secs_f64();
        open.since = now;
        let (cpu, gpu) =
            (open.rapl.as_mut().and_then(|c| c.joules()), open.nvml.as_mut().and_then(nvml::Counter::joules));
        if seconds > STEP_MAX_S {
            return Joules::default();
        }
        let battery = if load.on_battery { battery::watts(&self.root) } else { None };
        if let Some(watts) = battery {
            self.source = "the battery's discharge, for the whole computer".into();
            return Joules { measured: watts * seconds, estimated: 0.0 };
        }
        let (mut joules, mut sources) = (Joules::default(), vec![]);
        match (cpu, load.is_gpu) {
            (Some(measured), _) => {
                joules.measured += measured;
                sources.push("RAPL, for the whole processor".to_owned());
            }
            (None, false) => {
                joules.estimated += WATTS_PER_THREAD * load.threads.max(1) as f64 * load.duty * seconds;
                sources.push(format!("an estimate: {WATTS_PER_THREAD:.0} W a thread while it computes"));
            }
            (None, true) => {}
        }
        match (gpu, load.is_gpu) {
            (Some(measured), _) => {
                joules.measured += measured;
                sources.push("NVML, for the whole GPU".into());
            }
            (None, true) => {
                joules.estimated += WATTS_PER_GPU * load.duty * seconds;
                sources.push(format!("an estimate: {WATTS_PER_GPU:.0} W for the GPU while it computes"));
            }
            (None, false) => {}
        }
        self.source = sources.join("; ");
        joules
    }

    /// Where the last figure came from, in words; for an estimate, what it assumes.
    pub fn source(&self) -> Option<&str> {
        Some(self.source.as_str()).filter(|source| !source.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It would hang if it were asked where the owner's input is waited for.
    #[test]
    fn a_driver_that_never_answers_keeps_nobody_waiting() {
        let (answer, answers) = mpsc::channel::<f64>();
        let mut metering = Metering::by(move |_, _| {
            (Joules { measured: answers.recv().unwrap_or_default(), estimated: 0.0 }, "a meter".into())
        });
        for s in 0..5 {
            assert_eq!(metering.sample(Some(Load::default()), Mono { ms: 1000 * s }), Joules::default());
        }
        assert_eq!(metering.source(), None);
        answer.send(7.0).unwrap();
        let told =
            std::iter::repeat_with(|| metering.sample(None, Mono::default())).find(|joules| joules.measured > 0.0);
        assert_eq!(told, Some(Joules { measured: 7.0, estimated: 0.0 }));
        assert_eq!(metering.source().as_deref(), Some("a meter"));
    }
}
