//! Devices whose deltas are refused again and again: after a few in a row they are given no work for a while, twice as long
//! each time, and are told why. One that counts again makes it good. Time is an argument.

use nightjar_shared::{
    ids::DeviceId,
    wire::{
        Refusal, RefusalAction, RefusalCode, coordinator_message as answer,
        limits::{ADDRESSES_MAX, REFUSED_IN_A_ROW_MAX, REFUSED_WAIT_S, REFUSED_WAIT_S_MAX, tame},
    },
};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

struct Refused {
    in_a_row: u32,
    until: Instant,
    why: String,
}

/// See the module.
#[derive(Default)]
pub struct Standing {
    refused: HashMap<DeviceId, Refused>,
}

/// Seconds of waiting after so many refusals in a row.
fn wait_s(in_a_row: u32) -> u64 {
    match in_a_row.checked_sub(REFUSED_IN_A_ROW_MAX) {
        Some(beyond) => REFUSED_WAIT_S.saturating_mul(1 << beyond.min(20)).min(REFUSED_WAIT_S_MAX),
        None => 0,
    }
}

impl Standing {
    /// A delta of the device was refused. Says how long it is given no work.
    pub fn refused(&mut self, device: DeviceId, why: &str, now: Instant) -> Duration {
        if self.refused.len() >= ADDRESSES_MAX && !self.refused.contains_key(&device) {
            self.refused.retain(|_, refused| refused.until > now);
        }
        let refused = self.refused.entry(device).or_insert(Refused { in_a_row: 0, until: now, why: String::new() });
        refused.in_a_row += 1;
        let wait = Duration::from_secs(wait_s(refused.in_a_row));
        (refused.until, refused.why) = (now + wait, tame(why));
        wait
    }

    /// Takes note of the answer to an offer, and adds to a refusal when the device may ask for work again.
    pub fn answered(&mut self, device: DeviceId, body: &mut answer::Body, now: Instant) {
        match body {
            answer::Body::Done(done) if done.merged => drop(self.refused.remove(&device)),
            answer::Body::Done(done) => drop(self.refused(device, &done.note, now)),
            answer::Body::Refusal(refusal) if is_final(refusal) => {
                refusal.retry_ms = self.refused(device, &refusal.sentence, now).as_millis() as u64;
            }
            _ => {}
        }
    }

    /// Why the device is given no work now.
    pub fn holds(&self, device: DeviceId, now: Instant) -> Option<Refusal> {
        let Refused { in_a_row, until, why } = self.refused.get(&device)?;
        let wait = until.saturating_duration_since(now);
        let sentence = format!("The last {in_a_row} deltas of this device were refused, so it is given no work for now: {why}");
        (!wait.is_zero()).then(|| Refusal::retry(RefusalCode::Limit, tame(&sentence), wait))
    }
}

/// Whether a refusal is the last word about a delta. A lease whose time was over is nobody's fault.
fn is_final(refusal: &Refusal) -> bool {
    refusal.code() == RefusalCode::BadDelta && refusal.action() == RefusalAction::DropLease
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightjar_shared::wire::Done;

    const DEVICE: DeviceId = DeviceId([1; 32]);

    fn done(merged: bool) -> answer::Body {
        answer::Body::Done(Done { version: 1, merged, note: "Its norm is off.".into() })
    }

    #[test]
    fn work_is_held_back_after_a_few_refusals_and_ever_longer() {
        let (mut standing, start) = (Standing::default(), Instant::now());
        let mut refuse = |now| standing.answered(DEVICE, &mut done(false), now);
        (1..REFUSED_IN_A_ROW_MAX).for_each(|_| refuse(start));
        assert_eq!(standing.holds(DEVICE, start), None, "anybody may be unlucky");
        standing.answered(DEVICE, &mut done(false), start);
        let refusal = standing.holds(DEVICE, start).unwrap();
        assert!(refusal.sentence.contains("Its norm is off."), "{}", refusal.sentence);
        assert_eq!(refusal.retry_ms, REFUSED_WAIT_S * 1000);
        let later = start + Duration::from_secs(REFUSED_WAIT_S);
        assert_eq!(standing.holds(DEVICE, later), None);
        standing.answered(DEVICE, &mut done(false), later);
        assert_eq!(standing.holds(DEVICE, later).unwrap().retry_ms, 2 * REFUSED_WAIT_S * 1000);
        standing.answered(DEVICE, &mut done(true), later);
        assert_eq!(standing.holds(DEVICE, later), None);
        assert_eq!([wait_s(100), wait_s(u32::MAX)], [REFUSED_WAIT_S_MAX; 2]);
    }

    #[test]
    fn the_last_word_about_a_delta_says_when_to_ask_again() {
        let (mut standing, now) = (Standing::default(), Instant::now());
        let bad = || answer::Body::Refusal(Refusal::with(RefusalCode::BadDelta, RefusalAction::DropLease, "No."));
        let mut waits = (0..REFUSED_IN_A_ROW_MAX).map(|_| {
            let mut body = bad();
            standing.answered(DEVICE, &mut body, now);
            match body {
                answer::Body::Refusal(refusal) => refusal.retry_ms,
                _ => 0,
            }
        });
        assert_eq!(waits.next(), Some(0));
        assert_eq!(waits.last(), Some(REFUSED_WAIT_S * 1000));
        let mut late = answer::Body::Refusal(Refusal::lease_gone("Over."));
        Standing::default().answered(DEVICE, &mut late, now);
        assert!(matches!(late, answer::Body::Refusal(r) if r.retry_ms == 0));
    }
}
