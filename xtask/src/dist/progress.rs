//! How far it is: the step at hand, and how long the rest takes. Steps have a guess of their length; as they end, the
//! guesses of the others are corrected by how much the first ones were wrong.

use super::Platform;
use anyhow::Result;
use std::time::{Duration, Instant};

/// What each step takes on two cores, in seconds.
const PROGRAMS_S: f64 = 1500.0;
const FORMAT_S: f64 = 25.0;
const CONTAINER_S: f64 = 10.0;
const WINDOWS_S: f64 = 30.0;

pub struct Progress {
    /// The guesses of all steps, and how many of them are over.
    guesses_s: Vec<f64>,
    over: usize,
    took_s: f64,
}

impl Progress {
    pub fn new(builds: bool, packages: usize, platforms: &[Platform], formats: usize) -> Progress {
        let mut guesses_s = if builds { vec![PROGRAMS_S] } else { vec![] };
        for platform in platforms {
            match platform {
                Platform::Linux => guesses_s.extend(vec![FORMAT_S; formats * packages]),
                Platform::Container => guesses_s.extend(vec![CONTAINER_S; packages]),
                Platform::Windows => guesses_s.push(WINDOWS_S),
            }
        }
        Progress { guesses_s, over: 0, took_s: 0.0 }
    }

    /// Does a step, and says before it which of how many it is.
    pub fn step<T>(&mut self, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let left = Duration::from_secs_f64(left_s(&self.guesses_s, self.over, self.took_s).ceil());
        println!("{}/{}  {what}; about {} left", self.over + 1, self.guesses_s.len(), in_words(left));
        let since = Instant::now();
        let done = work()?;
        self.over += 1;
        self.took_s += since.elapsed().as_secs_f64();
        Ok(done)
    }
}

/// How long the steps that are not over take.
fn left_s(guesses_s: &[f64], over: usize, took_s: f64) -> f64 {
    let (past, rest) = guesses_s.split_at(over.min(guesses_s.len()));
    let guessed: f64 = past.iter().sum();
    // The first steps say little of the others until they are as long as a format.
    let ratio = if guessed > 0.0 { (took_s + FORMAT_S) / (guessed + FORMAT_S) } else { 1.0 };
    rest.iter().sum::<f64>() * ratio
}

fn in_words(time: Duration) -> String {
    match time.as_secs() {
        s @ 0..100 => format!("{s} s"),
        s => format!("{} min", s.div_ceil(60)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_corrected_by_what_is_over() {
        let guesses = [75.0, 25.0, 25.0];
        assert_eq!(left_s(&guesses, 0, 0.0), 125.0);
        assert_eq!(left_s(&guesses, 1, 175.0), 100.0, "twice as slow as it was guessed");
        assert_eq!(left_s(&guesses, 3, 500.0), 0.0);
        assert_eq!(
            (in_words(Duration::from_secs(99)), in_words(Duration::from_secs(121))),
            ("99 s".into(), "3 min".into())
        );
    }
}
