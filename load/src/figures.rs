//! What a process costs, as the system counts it, and what many durations come to.

use anyhow::{Context, Result};
use std::{fs, path::PathBuf, time::Duration};

/// In which Linux tells the time that processes took, whatever the kernel counts in.
const TICKS_A_SECOND: f64 = 100.0;

/// A process of which the system tells what it takes.
pub struct Process {
    id: u32,
}

/// What a process took until a moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Taken {
    /// Of all cores.
    pub cpu: Duration,
    /// Bytes of memory that it has now.
    pub memory: u64,
    /// Bytes that it had written to a disk.
    pub written: u64,
}

impl Process {
    /// That has this number.
    pub fn new(id: u32) -> Self {
        Process { id }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.id
    }

    fn read(&self, name: &str) -> Result<String> {
        let path = PathBuf::from(format!("/proc/{}/{name}", self.id));
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// What it has taken so far.
    pub fn taken(&self) -> Result<Taken> {
        let (stat, status, io) = (self.read("stat")?, self.read("status")?, self.read("io")?);
        // After the name in brackets, which may hold anything: state is the first, utime the twelfth, stime the next.
        let after = stat.rsplit_once(") ").map_or("", |(_, after)| after);
        let ticks: u64 = after.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        let value = |text: &str, key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        Ok(Taken {
            cpu: Duration::from_secs_f64(ticks as f64 / TICKS_A_SECOND),
            memory: value(&status, "VmRSS:") << 10,
            written: value(&io, "write_bytes:"),
        })
    }
}

/// The value below which this share of all lies; `values` are put in order. 0 of none.
pub fn percentile(values: &mut [u32], share: f64) -> u32 {
    values.sort_unstable();
    let at = (values.len() as f64 * share).ceil() as usize;
    values.get(at.saturating_sub(1)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let mut values: Vec<u32> = (1..=100).rev().collect();
        assert_eq!([0.5, 0.99, 1.0].map(|share| percentile(&mut values, share)), [50, 99, 100]);
        assert_eq!(percentile(&mut [], 0.5), 0);
    }

    #[test]
    fn this_process_takes_something() {
        let taken = Process::new(std::process::id()).taken().unwrap();
        assert!(taken.memory > 1 << 20, "{taken:?}");
    }
}
