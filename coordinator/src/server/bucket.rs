//! How often something may happen: a bucket of tokens that refills with time, and many buckets by key. Time is an
//! argument.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

/// How often.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// So many at once.
    pub burst: f64,
    /// So many a second in the long run.
    pub per_s: f64,
}

impl Rate {
    /// The rate in numbers of the table of limits.
    pub const fn new(burst: u32, per_s: f64) -> Self {
        Rate { burst: burst as f64, per_s }
    }
}

/// What is left of a rate.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    left: f64,
    since: Instant,
}

impl Bucket {
    /// A full one.
    pub fn full(rate: Rate, now: Instant) -> Self {
        Bucket { left: rate.burst, since: now }
    }

    fn refill(&mut self, rate: Rate, now: Instant) {
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        self.left = (self.left + passed * rate.per_s).min(rate.burst);
        self.since = self.since.max(now);
    }

    /// Takes so many, or says how long to wait for them.
    pub fn take(&mut self, rate: Rate, amount: f64, now: Instant) -> Result<(), Duration> {
        self.refill(rate, now);
        if self.left < amount {
            return Err(Duration::from_secs_f64(((amount - self.left) / rate.per_s).min(86_400.0)));
        }
        self.left -= amount;
        Ok(())
    }

    /// Puts so many back.
    pub fn give_back(&mut self, rate: Rate, amount: f64) {
        self.left = (self.left + amount).min(rate.burst);
    }

    /// Whether less than half is left.
    pub fn is_low(&mut self, rate: Rate, now: Instant) -> bool {
        self.refill(rate, now);
        self.left < rate.burst / 2.0
    }

    fn is_full(&mut self, rate: Rate, now: Instant) -> bool {
        self.refill(rate, now);
        self.left >= rate.burst
    }
}

/// A bucket for each key; of those that nobody used for long nothing is kept.
pub struct Buckets<K> {
    rate: Rate,
    most: usize,
    buckets: HashMap<K, Bucket>,
}

impl<K: Eq + Hash> Buckets<K> {
    /// With at most so many keys remembered.
    pub fn new(rate: Rate, most: usize) -> Self {
        Buckets { rate, most, buckets: HashMap::new() }
    }

    /// See [`Bucket::take`].
    pub fn take(&mut self, key: K, amount: f64, now: Instant) -> Result<(), Duration> {
        let rate = self.rate;
        self.of(key, now).take(rate, amount, now)
    }

    /// How long there is to wait until so many can be taken; `None` if they can be now.
    pub fn wait(&mut self, key: &K, amount: f64, now: Instant) -> Option<Duration> {
        let mut copy = *self.buckets.get(key)?;
        copy.take(self.rate, amount, now).err()
    }

    /// See [`Bucket::give_back`].
    pub fn give_back(&mut self, key: &K, amount: f64) {
        if let Some(bucket) = self.buckets.get_mut(key) {
            bucket.give_back(self.rate, amount);
        }
    }

    /// See [`Bucket::is_low`].
    pub fn is_low(&mut self, key: &K, now: Instant) -> bool {
        self.buckets.get_mut(key).is_some_and(|bucket| bucket.is_low(self.rate, now))
    }

    fn of(&mut self, key: K, now: Instant) -> &mut Bucket {
        let rate = self.rate;
        if self.buckets.len() >= self.most && !self.buckets.contains_key(&key) {
            // A full bucket says nothing that a new one would not. Where all are in use, all begin anew: whoever makes
            // up so many keys pays for each with a handshake.
            self.buckets.retain(|_, bucket| !bucket.is_full(rate, now));
            if self.buckets.len() >= self.most {
                self.buckets.clear();
            }
        }
        self.buckets.entry(key).or_insert_with(|| Bucket::full(rate, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_at_once_and_refills_with_time() {
        let (rate, start) = (Rate::new(3, 2.0), Instant::now());
        let mut bucket = Bucket::full(rate, start);
        for _ in 0..3 {
            bucket.take(rate, 1.0, start).unwrap();
        }
        assert_eq!(bucket.take(rate, 1.0, start), Err(Duration::from_millis(500)));
        bucket.take(rate, 1.0, start + Duration::from_millis(500)).unwrap();
        assert!(bucket.take(rate, 1.0, start + Duration::from_millis(500)).is_err());
        bucket.give_back(rate, 1.0);
        bucket.take(rate, 1.0, start + Duration::from_millis(500)).unwrap();
        assert!(bucket.is_low(rate, start) && !bucket.is_low(rate, start + Duration::from_secs(60)));
        assert!(
            bucket.take(rate, 3.1, start + Duration::from_secs(600)).is_err(),
            "it never holds more than the burst"
        );
    }

    #[test]
    fn keys_are_apart_and_their_number_is_bounded() {
        let start = Instant::now();
        let mut buckets = Buckets::new(Rate::new(1, 1.0), 2);
        buckets.take("a", 1.0, start).unwrap();
        assert!(buckets.take("a", 1.0, start).is_err());
        buckets.take("b", 1.0, start).unwrap();
        for key in ["c", "d", "e", "f"] {
            buckets.take(key, 1.0, start + Duration::from_secs(9)).unwrap();
            assert!(buckets.buckets.len() <= 2);
        }
    }
}
