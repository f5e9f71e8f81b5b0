//! Which connections are let in. Until its valid hello a connection is a *stranger's*. Strangers have places
//! of their own, in all and by address, so they never take those of devices; and where their places are taken, the one
//! that has waited longest makes room. So whoever says hello at once gets in, whatever others hold. Time is an
//! argument.

use super::{
    bucket::{Buckets, Rate},
    subnet::Subnet,
};
use nightjar_shared::wire::limits::{
    ADDRESSES_MAX, NEW_PER_ADDRESS_BURST, NEW_PER_ADDRESS_S, STRANGERS_MAX, STRANGERS_PER_ADDRESS_MAX,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};
use tokio::sync::oneshot;

/// How many are let in.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Strangers in all.
    pub strangers: usize,
    /// Strangers of one subnet.
    pub of_subnet: usize,
    /// New connections of one subnet.
    pub new: Rate,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            strangers: STRANGERS_MAX,
            of_subnet: STRANGERS_PER_ADDRESS_MAX,
            new: Rate::new(NEW_PER_ADDRESS_BURST, NEW_PER_ADDRESS_S),
        }
    }
}

struct Waiting {
    bounds: Bounds,
    next: u64,
    /// By when they came.
    all: BTreeMap<u64, (Subnet, oneshot::Sender<()>)>,
    by_subnet: HashMap<Subnet, BTreeSet<u64>>,
    rates: Buckets<Subnet>,
}

/// The connections that are strangers'.
#[derive(Clone)]
pub struct Strangers {
    waiting: Arc<Mutex<Waiting>>,
}

/// The answer to a connection that begins.
pub enum Admission {
    /// Let it in, as a stranger.
    Admit(Slot),
    /// Let it prove its address first, at no cost to us: so forged addresses take no real one's place.
    Validate,
    /// There have been too many from there.
    Refuse,
}

/// A stranger's place; dropped, it is free again.
pub struct Slot {
    strangers: Strangers,
    number: u64,
    /// From where it came.
    pub subnet: Subnet,
    evicted: oneshot::Receiver<()>,
}

impl Strangers {
    /// With nobody there.
    pub fn new(bounds: Bounds) -> Self {
        let rates = Buckets::new(bounds.new, ADDRESSES_MAX);
        let waiting = Waiting { bounds, next: 0, all: BTreeMap::new(), by_subnet: HashMap::new(), rates };
        Strangers { waiting: Arc::new(Mutex::new(waiting)) }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Whoever panicked while holding the lock left whole maps behind.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection begins.
    pub fn arrives(&self, address: IpAddr, is_proven: bool, now: Instant) -> Admission {
        let subnet = Subnet::of(address);
        let mut waiting = self.lock();
        let (here, bounds) = (waiting.by_subnet.get(&subnet).map_or(0, BTreeSet::len), waiting.bounds);
        let is_crowded = waiting.all.len() >= bounds.strangers / 2 || here >= bounds.of_subnet / 2;
        let has_rate = !subnet.is_this_machine();
        if !is_proven && (is_crowded || (has_rate && waiting.rates.is_low(&subnet, now))) {
            return Admission::Validate;
        }
        if has_rate && waiting.rates.take(subnet, 1.0, now).is_err() {
            return Admission::Refuse;
        }
        if here >= bounds.of_subnet {
            let oldest = waiting.by_subnet.get(&subnet).and_then(|of_subnet| of_subnet.first().copied());
            oldest.into_iter().for_each(|number| waiting.remove(number));
        }
        if waiting.all.len() >= bounds.strangers {
            let oldest = waiting.all.keys().next().copied();
            oldest.into_iter().for_each(|number| waiting.remove(number));
        }
        let number = waiting.next;
        waiting.next += 1;
        // Removing the sender is what tells the stranger.
        let (held, evicted) = oneshot::channel();
        waiting.all.insert(number, (subnet, held));
        waiting.by_subnet.entry(subnet).or_default().insert(number);
        Admission::Admit(Slot { strangers: self.clone(), number, subnet, evicted })
    }

    /// Strangers now.
    pub fn len(&self) -> usize {
        self.lock().all.len()
    }
}

impl Waiting {
    fn remove(&mut self, number: u64) {
        let Some((subnet, _)) = self.all.remove(&number) else { return };
        if let Some(of_subnet) = self.by_subnet.get_mut(&subnet) {
            of_subnet.remove(&number);
            if of_subnet.is_empty() {
                self.by_subnet.remove(&subnet);
            }
        }
    }
}

impl Slot {
    /// Waits until the place is needed by a newer stranger.
    pub async fn evicted(&mut self) {
        // Nothing is ever sent: the sender goes.
        let _ = (&mut self.evicted).await;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.strangers.lock().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn strangers() -> Strangers {
        Strangers::new(Bounds { strangers: 8, of_subnet: 4, new: Rate::new(100, 10.0) })
    }

    fn enter(strangers: &Strangers, address: &str, now: Instant) -> Slot {
        match strangers.arrives(address.parse().unwrap(), true, now) {
            Admission::Admit(slot) => slot,
            _ => panic!("{address} was not let in"),
        }
    }

    #[test]
    fn the_stranger_that_waits_longest_makes_room_its_neighbours_first() {
        let (strangers, now) = (strangers(), Instant::now());
        let mut quiet = enter(&strangers, "192.0.2.1", now);
        let mut crowd: Vec<Slot> = (0..5).map(|_| enter(&strangers, "192.0.2.2", now)).collect();
        assert!(crowd[0].evicted.try_recv() != Err(oneshot::error::TryRecvError::Empty), "its own first");
        assert_eq!(quiet.evicted.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        assert_eq!(strangers.len(), 5);
        let others: Vec<Slot> = (3..7).map(|i| enter(&strangers, &format!("192.0.2.{i}"), now)).collect();
        assert_eq!(strangers.len(), 8);
        assert!(quiet.evicted.try_recv() != Err(oneshot::error::TryRecvError::Empty), "then the longest of all");
        drop((quiet, crowd, others));
        assert_eq!(strangers.len(), 0);
        assert!(strangers.lock().by_subnet.is_empty());
    }

    #[test]
    fn forged_addresses_take_nobodys_place() {
        let (strangers, now) = (strangers(), Instant::now());
        let arrives = |i: u8, proven| strangers.arrives(IpAddr::from([192, 0, 2, i]), proven, now);
        let held: Vec<Admission> = (0..4).map(|i| arrives(i, false)).collect();
        assert!(held.iter().all(|k| matches!(k, Admission::Admit(_))));
        assert!(matches!(arrives(9, false), Admission::Validate));
        assert!(matches!(arrives(9, true), Admission::Admit(_)));
    }

    #[test]
    fn an_address_begins_so_many_connections_and_no_more() {
        let (strangers, now) = (strangers(), Instant::now());
        let from = |address: &str, now| strangers.arrives(address.parse().unwrap(), true, now);
        let entered = (0..150).filter(|_| matches!(from("2001:db8::1", now), Admission::Admit(_))).count();
        assert_eq!(entered, 100);
        assert!(matches!(from("2001:db8::2", now), Admission::Refuse), "the same /64");
        assert!(matches!(from("2001:db8:0:1::1", now), Admission::Admit(_)));
        assert!(matches!(from("2001:db8::1", now + Duration::from_millis(100)), Admission::Admit(_)));
        assert!((0..150).all(|_| matches!(from("::1", now), Admission::Admit(_))), "this machine");
    }
}
