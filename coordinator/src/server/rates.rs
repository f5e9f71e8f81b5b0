//! How often a device may ask, enrol and be renamed. What is over is answered with when to come again, so a program
//! that has lost its way costs little, and honest ones never notice.

use super::{
    bucket::{Buckets, Rate},
    members::Change,
    subnet::Subnet,
};
use nightjar_shared::{
    ids::DeviceId,
    wire::{
        Refusal, RefusalCode,
        limits::{
            ADDRESSES_MAX, ENROLMENTS_BURST, ENROLMENTS_PER_S, RENAMES_BURST, RENAMES_PER_S, REQUESTS_BURST,
            REQUESTS_PER_S,
        },
    },
};
use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

struct All {
    requests: Buckets<DeviceId>,
    renames: Buckets<DeviceId>,
    by_invite: Buckets<Vec<u8>>,
    by_subnet: Buckets<Subnet>,
}

/// See the module.
pub struct Rates {
    all: Mutex<All>,
}

impl Default for Rates {
    fn default() -> Self {
        let enrolments = Rate::new(ENROLMENTS_BURST, ENROLMENTS_PER_S);
        Rates {
            all: Mutex::new(All {
                requests: Buckets::new(Rate::new(REQUESTS_BURST, REQUESTS_PER_S), ADDRESSES_MAX),
                renames: Buckets::new(Rate::new(RENAMES_BURST, RENAMES_PER_S), ADDRESSES_MAX),
                by_invite: Buckets::new(enrolments, ADDRESSES_MAX),
                by_subnet: Buckets::new(enrolments, ADDRESSES_MAX),
            }),
        }
    }
}

/// After how long, in whole seconds: nobody counts milliseconds.
fn later(code: RefusalCode, sentence: &str, wait: Duration) -> Refusal {
    Refusal::retry(code, sentence, Duration::from_secs(wait.as_secs() + 1))
}

impl Rates {
    fn with<T>(&self, of: impl FnOnce(&mut All) -> T) -> T {
        // Buckets are whole after any panic.
        of(&mut self.all.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A device asks for something.
    pub fn asks(&self, device: DeviceId, now: Instant) -> Result<(), Refusal> {
        self.with(|all| all.requests.take(device, 1.0, now))
            .map_err(|wait| later(RefusalCode::Busy, "This device asks too often.", wait))
    }

    /// A hello wants to change what the ledger says of its device.
    pub fn changes(&self, device: DeviceId, subnet: Subnet, change: &Change, now: Instant) -> Result<(), Refusal> {
        match change {
            Change::Nothing => Ok(()),
            Change::Name => self.with(|all| all.renames.take(device, 1.0, now)).map_err(|wait| {
                later(RefusalCode::Limit, "This device has changed its name or its description too often.", wait)
            }),
            Change::Enrols(nonce) => self.with(|all| {
                let many = "Too many devices have joined this run in a short time";
                all.by_invite.take(nonce.clone(), 1.0, now).map_err(|wait| {
                    later(RefusalCode::Busy, &format!("{many} with this invite. Try again later."), wait)
                })?;
                all.by_subnet.take(subnet, 1.0, now).map_err(|wait| {
                    all.by_invite.give_back(nonce, 1.0);
                    later(RefusalCode::Busy, &format!("{many} from this address. Try again later."), wait)
                })
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightjar_shared::wire::RefusalAction;

    fn subnet(last: u8) -> Subnet {
        Subnet::of([192, 0, 2, last].into())
    }

    #[test]
    fn enrolments_are_bounded_by_invite_and_by_address() {
        let (rates, now) = (Rates::default(), Instant::now());
        let enrols =
            |invite: u8, from: u8| rates.changes(DeviceId([1; 32]), subnet(from), &Change::Enrols(vec![invite]), now);
        let taken = (0..5000).filter(|_| enrols(1, 1).is_ok()).count();
        assert_eq!(taken as u32, ENROLMENTS_BURST);
        let refusal = enrols(1, 2).unwrap_err();
        assert!(refusal.sentence.contains("this invite") && refusal.retry_ms > 0, "{refusal:?}");
        assert!(enrols(2, 1).unwrap_err().sentence.contains("this address"));
        enrols(2, 2).unwrap();
    }

    #[test]
    fn a_device_is_renamed_and_asks_so_often_and_no_more() {
        let (rates, now) = (Rates::default(), Instant::now());
        let device = DeviceId([1; 32]);
        let renamed = |now| rates.changes(device, subnet(1), &Change::Name, now).is_ok();
        assert_eq!((0..1180).filter(|_| renamed(now)).count() as u32, RENAMES_BURST);
        assert!(renamed(now + Duration::from_secs(5)) && !renamed(now + Duration::from_secs(5)));
        let asked = (0..1000).filter(|_| rates.asks(device, now).is_ok()).count();
        assert_eq!(asked as u32, REQUESTS_BURST);
        assert_eq!(rates.asks(device, now).unwrap_err().action(), RefusalAction::Retry);
        rates.asks(DeviceId([2; 32]), now).unwrap();
    }
}
