//! How much each device, address and invite takes, held against the limits. What is over is answered with when to come
//! again, so a program that has lost its way costs little, and honest ones never notice. Refusals are counted, and told
//! in the log once a minute.

use super::{
    bucket::{Buckets, Rate},
    limits::{ALL, Bound, Kind, Limits, Per, place},
    members::Change,
    subnet::Subnet,
};
use nightjar_shared::{
    ids::DeviceId,
    wire::{
        Refusal, RefusalCode,
        limits::{ADDRESSES_MAX, RENAMES_BURST, RENAMES_PER_S},
    },
};
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A limit that bites is told in the log so often at most.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Who takes something.
#[derive(Clone, Debug)]
pub struct Who {
    /// The device.
    pub device: DeviceId,
    /// Where it is.
    pub subnet: Subnet,
    /// The invite that it came with, or comes with now.
    pub nonce: Option<Vec<u8>>,
}

/// Whom a bucket is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Device(DeviceId),
    Address(Subnet),
    Invite(Vec<u8>),
}

impl Who {
    fn key(&self, per: Per) -> Option<Key> {
        match per {
            Per::Device => Some(Key::Device(self.device)),
            // Whoever is on this machine needs no help to hinder it.
            Per::Address => (!self.subnet.is_this_machine()).then_some(Key::Address(self.subnet)),
            Per::Invite => self.nonce.clone().map(Key::Invite),
        }
    }
}

/// Of one limit: what is left to whom, how often it was refused, how much of that the leader was told, when it was last
/// refused, and when the log was told.
#[derive(Default)]
struct Counted {
    buckets: Option<(Bound, Buckets<Key>)>,
    refused: u64,
    reported: u64,
    last: Option<Instant>,
    told: Option<Instant>,
}

/// A limit that turned somebody away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bite {
    /// Its name.
    pub limit: &'static str,
    /// What it limits.
    pub kind: Kind,
    /// For whom.
    pub per: Per,
    /// How often, since this process began; at a leader its doors' too.
    pub times: u64,
    /// How long ago it did last.
    pub ago: Duration,
}

struct All {
    limits: [Counted; ALL.len()],
    renames: Buckets<DeviceId>,
}

/// See the module.
pub struct Rates {
    all: Mutex<All>,
    limits: Limits,
}

/// After how long, in whole seconds: nobody counts milliseconds.
fn later(code: RefusalCode, sentence: &str, wait: Duration) -> Refusal {
    Refusal::retry(code, sentence, Duration::from_secs(wait.as_secs() + 1))
}

impl Rates {
    /// With these limits.
    pub fn new(limits: Limits) -> Self {
        let counted = limits.0.map(|bound| {
            let hourly = |n: u64| n as f64 / 3600.0;
            let buckets = |bound: Bound| {
                let rate = Rate { burst: bound.burst as f64, per_s: hourly(bound.an_hour) };
                (bound, Buckets::new(rate, ADDRESSES_MAX))
            };
            Counted { buckets: bound.filter(|bound| bound.an_hour > 0).map(buckets), ..Counted::default() }
        });
        let renames = Buckets::new(Rate::new(RENAMES_BURST, RENAMES_PER_S), ADDRESSES_MAX);
        Rates { all: Mutex::new(All { limits: counted, renames }), limits }
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        // Buckets are whole after any panic.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often each limit was refused since this process began, by the limits' names.
    pub fn refused(&self) -> [(&'static str, u64); ALL.len()] {
        let all = self.lock();
        std::array::from_fn(|at| (ALL[at].0, all.limits[at].refused))
    }

    /// Refusals that the leader was not told of, by the limits' names. They count as told.
    pub fn take(&self) -> Vec<(&'static str, u64)> {
        let mut all = self.lock();
        let limits = ALL.iter().zip(&mut all.limits);
        let taken = limits.map(|(limit, counted)| {
            let times = counted.refused - counted.reported;
            counted.reported = counted.refused;
            (limit.0, times)
        });
        taken.filter(|(_, times)| *times > 0).collect()
    }

    /// What was taken could not be told: it is taken again later.
    pub fn put_back(&self, taken: &[(&'static str, u64)]) {
        let mut all = self.lock();
        for (limit, times) in taken {
            all.of(limit).into_iter().for_each(|counted| counted.reported -= times);
        }
    }

    /// A limit turned devices away at a door. A name that this release does not have is passed over.
    pub fn add(&self, limit: &str, times: u64, now: Instant) {
        let mut all = self.lock();
        let Some(counted) = all.of(limit).filter(|_| times > 0) else { return };
        counted.refused = counted.refused.saturating_add(times);
        counted.last = Some(now);
    }

    /// The limits that turned somebody away not longer ago than that.
    pub fn bites(&self, within: Duration, now: Instant) -> Vec<Bite> {
        let all = self.lock();
        let limits = ALL.iter().zip(&all.limits);
        let bites = limits.filter_map(|(&(limit, kind, per), counted)| {
            let ago = now.saturating_duration_since(counted.last?);
            (ago <= within).then_some(Bite { limit, kind, per, times: counted.refused, ago })
        });
        bites.collect()
    }

    /// A device asks for something.
    pub fn asks(&self, who: &Who, now: Instant) -> Result<(), Refusal> {
        self.lock().take(Kind::Requests, who, 1.0, now).map_err(|(per, wait)| {
            let sentence = match per {
                Per::Device => "This device asks too often.".to_owned(),
                per => format!("Devices of {per} ask too often."),
            };
            later(RefusalCode::Busy, &sentence, wait)
        })
    }

    /// So many bytes are to travel.
    pub fn carries(&self, who: &Who, bytes: u64, now: Instant) -> Result<(), Refusal> {
        self.lock().take(Kind::Bytes, who, bytes as f64, now).map_err(|(per, wait)| {
            let sentence = match per {
                Per::Device => "This device has sent and fetched very much in a short time.".to_owned(),
                per => format!("Devices of {per} have sent and fetched very much in a short time."),
            };
            later(RefusalCode::Busy, &sentence, wait)
        })
    }

    /// A hello wants to change what the ledger says of its device.
    pub fn changes(&self, who: &Who, change: &Change, now: Instant) -> Result<(), Refusal> {
        match change {
            Change::Nothing => Ok(()),
            Change::Name => self.lock().renames.take(who.device, 1.0, now).map_err(|wait| {
                later(RefusalCode::Limit, "This device has changed its name or its description too often.", wait)
            }),
            Change::Enrols(nonce) => {
                let who = Who { nonce: Some(nonce.clone()), ..who.clone() };
                self.lock().take(Kind::Enrolments, &who, 1.0, now).map_err(|(per, wait)| {
                    let sentence = match per {
                        Per::Invite => "with this invite".to_owned(),
                        per => format!("from {per}"),
                    };
                    let sentence = format!("Too many devices have joined this run {sentence} in a short time.");
                    later(RefusalCode::Busy, &format!("{sentence} This one tries again later."), wait)
                })
            }
        }
    }

    /// A device wants to be connected, where so many of its address and of its invite are.
    pub fn connects(&self, who: &Who, [of_address, of_invite]: [usize; 2], now: Instant) -> Result<(), Refusal> {
        for (per, here) in [(Per::Address, of_address), (Per::Invite, of_invite)] {
            let most = self.limits.bound(Kind::Connections, per);
            if who.key(per).is_some() && most.is_some_and(|most| here as u64 >= most.burst) {
                self.lock().note_refusal(Kind::Connections, per, now);
                let sentence = format!("As many devices of {per} are connected as may be at once.");
                return Err(Refusal::retry(RefusalCode::Busy, sentence, Duration::from_secs(60)));
            }
        }
        Ok(())
    }
}

impl All {
    fn of(&mut self, limit: &str) -> Option<&mut Counted> {
        let at = ALL.iter().position(|(name, ..)| *name == limit)?;
        Some(&mut self.limits[at])
    }

    /// Takes so much for the device, its address and its invite; or, where one has no more, of none.
    fn take(&mut self, kind: Kind, who: &Who, amount: f64, now: Instant) -> Result<(), (Per, Duration)> {
        let mut taken: Vec<(usize, Key, f64)> = vec![];
        for per in [Per::Device, Per::Address, Per::Invite] {
            let (Some(at), Some(key)) = (place(kind, per), who.key(per)) else { continue };
            let Some((bound, buckets)) = &mut self.limits[at].buckets else { continue };
            // What is more than the whole burst waits for a full one, and then goes.
            let amount = amount.min(bound.burst as f64);
            if let Err(wait) = buckets.take(key.clone(), amount, now) {
                for (at, key, amount) in taken {
                    if let Some((_, buckets)) = &mut self.limits[at].buckets {
                        buckets.give_back(&key, amount);
                    }
                }
                self.note_refusal(kind, per, now);
                return Err((per, wait));
            }
            taken.push((at, key, amount));
        }
        Ok(())
    }

    fn note_refusal(&mut self, kind: Kind, per: Per, now: Instant) {
        let Some(at) = place(kind, per) else { return };
        let counted = &mut self.limits[at];
        counted.refused += 1;
        counted.last = Some(now);
        if counted.told.is_none_or(|told| now.saturating_duration_since(told) >= TOLD_EVERY) {
            counted.told = Some(now);
            tracing::warn!(limit = ALL[at].0, refused = counted.refused, "a limit turns devices away");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::limits::Limit;
    use nightjar_shared::{
        run_spec::RunSpec,
        wire::{
            RefusalAction,
            limits::{ENROLMENTS_BURST, ENROLMENTS_PER_ADDRESS_BURST, REQUESTS_BURST},
        },
    };

    fn rates(set: &[&str]) -> Rates {
        let set: Vec<Limit> = set.iter().map(|text| text.parse().unwrap()).collect();
        Rates::new(Limits::of(&RunSpec::new("x", 1)).with(&set))
    }

    fn who(device: u8, last: u8, nonce: u8) -> Who {
        let subnet = Subnet::of([192, 0, 2, last].into());
        Who { device: DeviceId([device; 32]), subnet, nonce: Some(vec![nonce]) }
    }

    fn refused(rates: &Rates, name: &str) -> u64 {
        rates.refused().into_iter().find(|(known, _)| *known == name).unwrap().1
    }

    #[test]
    fn enrolments_are_bounded_by_invite_and_by_address() {
        let (rates, now) = (rates(&[]), Instant::now());
        let enrols = |invite: u8, from: u8| rates.changes(&who(1, from, 0), &Change::Enrols(vec![invite]), now);
        let taken = (0..5000).filter(|_| enrols(1, 1).is_ok()).count();
        assert_eq!(taken as u32, ENROLMENTS_PER_ADDRESS_BURST);
        let refusal = enrols(2, 1).unwrap_err();
        assert!(refusal.sentence.contains("this address") && refusal.retry_ms > 60_000, "{refusal:?}");
        let more = (2..=200).flat_map(|from| [from; 100]).filter(|from| enrols(1, *from).is_ok()).count();
        assert_eq!((taken + more) as u32, ENROLMENTS_BURST, "what an address was refused, the invite has still");
        assert!(enrols(1, 250).unwrap_err().sentence.contains("this invite"));
        enrols(2, 250).unwrap();
        assert!(refused(&rates, "enrolments-per-address") > 4000 && refused(&rates, "enrolments-per-invite") > 4000);
    }

    #[test]
    fn this_machine_is_not_held_to_its_address() {
        let (rates, now) = (rates(&["enrolments-per-address=1/1"]), Instant::now());
        let here = Who { subnet: Subnet::of([127, 0, 0, 1].into()), ..who(1, 1, 1) };
        assert!((0..9).all(|_| rates.changes(&here, &Change::Enrols(vec![1]), now).is_ok()));
    }

    #[test]
    fn a_device_is_renamed_and_asks_so_often_and_no_more() {
        let (rates, now) = (rates(&[]), Instant::now());
        let owl = who(1, 1, 1);
        let renamed = |now| rates.changes(&owl, &Change::Name, now).is_ok();
        assert_eq!((0..1180).filter(|_| renamed(now)).count() as u32, RENAMES_BURST);
        assert!(renamed(now + Duration::from_secs(5)) && !renamed(now + Duration::from_secs(5)));
        let asked = (0..1000).filter(|_| rates.asks(&owl, now).is_ok()).count();
        assert_eq!(asked as u32, REQUESTS_BURST);
        assert_eq!(rates.asks(&owl, now).unwrap_err().action(), RefusalAction::Retry);
        rates.asks(&who(2, 1, 1), now).unwrap();
    }

    #[test]
    fn an_address_and_an_invite_can_be_held_to_requests_and_bytes() {
        let rates = rates(&["requests-per-invite=10/3600", "bytes-per-address=1M/1M", "bytes-per-device=4M/4M"]);
        let now = Instant::now();
        let asked = (0..20).filter(|n| rates.asks(&who(*n, *n, 1), now).is_ok()).count();
        assert_eq!((asked, refused(&rates, "requests-per-invite")), (10, 10));
        assert!(rates.asks(&who(1, 1, 1), now).unwrap_err().sentence.contains("this invite"));
        rates.asks(&who(1, 1, 2), now).unwrap();
        // A blob that is larger than all that is given at once travels when nothing else has.
        rates.carries(&who(1, 1, 1), 3 << 20, now).unwrap();
        let refusal = rates.carries(&who(2, 1, 1), 1, now).unwrap_err();
        assert!(refusal.sentence.contains("this address") && refusal.action() == RefusalAction::Retry, "{refusal:?}");
        rates.carries(&who(2, 2, 1), 1, now).unwrap();
        rates.carries(&who(2, 1, 1), 1 << 20, now + Duration::from_secs(3600)).unwrap();
    }

    #[test]
    fn connections_are_bounded_by_address_and_by_invite() {
        let (rates, now) = (rates(&["connections-per-address=3", "connections-per-invite=5"]), Instant::now());
        rates.connects(&who(1, 1, 1), [2, 4], now).unwrap();
        assert!(rates.connects(&who(1, 1, 1), [3, 4], now).unwrap_err().sentence.contains("this address"));
        assert!(rates.connects(&who(1, 1, 1), [2, 5], now).unwrap_err().sentence.contains("this invite"));
        assert_eq!(refused(&rates, "connections-per-address") + refused(&rates, "connections-per-invite"), 2);
    }

    #[test]
    fn what_doors_refuse_is_counted_once_at_the_leader() {
        let (door, leader, now) = (rates(&["connections-per-address=1"]), rates(&[]), Instant::now());
        let refuse = || door.connects(&who(1, 1, 1), [1, 0], now).unwrap_err();
        let report = |is_heard: bool| {
            let taken = door.take();
            match is_heard {
                true => taken.iter().for_each(|(limit, times)| leader.add(limit, *times, now)),
                false => door.put_back(&taken),
            }
        };
        refuse();
        refuse();
        report(false);
        refuse();
        report(true);
        report(true);
        leader.add("a limit of a later release", 9, now);
        assert_eq!(refused(&leader, "connections-per-address"), 3);
        let told: Vec<_> = leader.bites(Duration::ZERO, now).iter().map(|bite| (bite.limit, bite.times)).collect();
        assert_eq!(told, [("connections-per-address", 3)]);
    }

    #[test]
    fn limits_that_bit_of_late_are_told_apart() {
        let (rates, now) = (rates(&["connections-per-address=1", "connections-per-invite=1"]), Instant::now());
        let hour = Duration::from_secs(3600);
        assert_eq!(rates.bites(hour, now), []);
        for _ in 0..2 {
            rates.connects(&who(1, 1, 1), [1, 0], now).unwrap_err();
        }
        let later = now + hour;
        rates.connects(&who(1, 1, 1), [0, 1], later).unwrap_err();
        let told =
            |within, now| rates.bites(within, now).iter().map(|bite| (bite.limit, bite.times, bite.ago)).collect();
        let (of_address, of_invite) = ("connections-per-address", "connections-per-invite");
        let both: Vec<_> = told(hour, later);
        assert_eq!(both, [(of_address, 2, hour), (of_invite, 1, Duration::ZERO)]);
        let late: Vec<_> = told(hour, later + Duration::from_secs(60));
        assert_eq!(late, [(of_invite, 1, Duration::from_secs(60))]);
    }
}
