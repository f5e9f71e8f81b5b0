//! The gate: which connections are let in. Until its valid hello a connection is a *stranger's*. Strangers have places
//! of their own, in all and by address, so they never take those of devices; and where their places are taken, the one
//! that has waited longest makes room. So whoever says hello at once gets in, whatever others hold. Time is an
//! argument.

use super::bucket::{Buckets, Rate};
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

/// Whom an address stands for: IPv4 the address, IPv6 its /64, which is what a household or a rented computer is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place(IpAddr);

impl Place {
    /// The place of an address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) if !v6.is_loopback() => {
                let [a, b, c, d, ..] = v6.segments();
                Place(IpAddr::V6([a, b, c, d, 0, 0, 0, 0].into()))
            }
            other => Place(other),
        }
    }

    /// Whoever is on this machine needs no help to hinder it; and its own tests come by the thousand.
    pub fn is_this_machine(self) -> bool {
        self.0.is_loopback()
    }
}

/// What a gate allows.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Strangers in all.
    pub strangers: usize,
    /// Strangers of one place.
    pub of_place: usize,
    /// New connections of one place.
    pub new: Rate,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            strangers: STRANGERS_MAX,
            of_place: STRANGERS_PER_ADDRESS_MAX,
            new: Rate::new(NEW_PER_ADDRESS_BURST, NEW_PER_ADDRESS_S),
        }
    }
}

struct Strangers {
    bounds: Bounds,
    next: u64,
    /// By when they came.
    all: BTreeMap<u64, (Place, oneshot::Sender<()>)>,
    by_place: HashMap<Place, BTreeSet<u64>>,
    rates: Buckets<Place>,
}

/// See the module.
#[derive(Clone)]
pub struct Gate {
    strangers: Arc<Mutex<Strangers>>,
}

/// The answer to a connection that begins.
pub enum Knock {
    /// Let it in, as a stranger.
    Enter(Ticket),
    /// Let it prove its address first, at no cost to us: so forged addresses take no real one's place.
    Prove,
    /// There have been too many from there.
    Refuse,
}

/// A stranger's place; dropped, it is free again.
pub struct Ticket {
    gate: Gate,
    number: u64,
    /// From where it came.
    pub place: Place,
    evicted: oneshot::Receiver<()>,
}

impl Gate {
    /// A gate with nobody before it.
    pub fn new(bounds: Bounds) -> Self {
        let rates = Buckets::new(bounds.new, ADDRESSES_MAX);
        let strangers = Strangers { bounds, next: 0, all: BTreeMap::new(), by_place: HashMap::new(), rates };
        Gate { strangers: Arc::new(Mutex::new(strangers)) }
    }

    fn lock(&self) -> MutexGuard<'_, Strangers> {
        // Whoever panicked while holding the lock left whole maps behind.
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection begins.
    pub fn knock(&self, address: IpAddr, is_proven: bool, now: Instant) -> Knock {
        let place = Place::of(address);
        let mut strangers = self.lock();
        let (here, bounds) = (strangers.by_place.get(&place).map_or(0, BTreeSet::len), strangers.bounds);
        let is_crowded = strangers.all.len() >= bounds.strangers / 2 || here >= bounds.of_place / 2;
        let has_rate = !place.is_this_machine();
        if !is_proven && (is_crowded || (has_rate && strangers.rates.is_low(&place, now))) {
            return Knock::Prove;
        }
        if has_rate && strangers.rates.take(place, 1.0, now).is_err() {
            return Knock::Refuse;
        }
        if here >= bounds.of_place {
            let oldest = strangers.by_place.get(&place).and_then(|of_place| of_place.first().copied());
            oldest.into_iter().for_each(|number| strangers.remove(number));
        }
        if strangers.all.len() >= bounds.strangers {
            let oldest = strangers.all.keys().next().copied();
            oldest.into_iter().for_each(|number| strangers.remove(number));
        }
        let number = strangers.next;
        strangers.next += 1;
        // Removing the sender is what tells the stranger.
        let (held, evicted) = oneshot::channel();
        strangers.all.insert(number, (place, held));
        strangers.by_place.entry(place).or_default().insert(number);
        Knock::Enter(Ticket { gate: self.clone(), number, place, evicted })
    }

    /// Strangers now.
    #[cfg(test)]
    fn strangers(&self) -> usize {
        self.lock().all.len()
    }
}

impl Strangers {
    fn remove(&mut self, number: u64) {
        let Some((place, _)) = self.all.remove(&number) else { return };
        if let Some(of_place) = self.by_place.get_mut(&place) {
            of_place.remove(&number);
            if of_place.is_empty() {
                self.by_place.remove(&place);
            }
        }
    }
}

impl Ticket {
    /// Waits until the place is needed by a newer stranger.
    pub async fn evicted(&mut self) {
        // Nothing is ever sent: the sender goes.
        let _ = (&mut self.evicted).await;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.gate.lock().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn gate() -> Gate {
        Gate::new(Bounds { strangers: 8, of_place: 4, new: Rate::new(100, 10.0) })
    }

    fn enter(gate: &Gate, address: &str, now: Instant) -> Ticket {
        match gate.knock(address.parse().unwrap(), true, now) {
            Knock::Enter(ticket) => ticket,
            _ => panic!("{address} was not let in"),
        }
    }

    #[test]
    fn an_address_stands_for_a_household() {
        let place = |text: &str| Place::of(text.parse().unwrap());
        assert_eq!(place("2001:db8:1:2::3"), place("2001:db8:1:2:ffff::9"));
        assert_ne!(place("2001:db8:1:2::3"), place("2001:db8:1:3::3"));
        assert_eq!(place("::ffff:192.0.2.1"), place("192.0.2.1"));
        assert_ne!(place("192.0.2.1"), place("192.0.2.2"));
    }

    #[test]
    fn the_stranger_that_waits_longest_makes_room_its_neighbours_first() {
        let (gate, now) = (gate(), Instant::now());
        let mut quiet = enter(&gate, "192.0.2.1", now);
        let mut crowd: Vec<Ticket> = (0..5).map(|_| enter(&gate, "192.0.2.2", now)).collect();
        assert!(crowd[0].evicted.try_recv() != Err(oneshot::error::TryRecvError::Empty), "its own first");
        assert_eq!(quiet.evicted.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        assert_eq!(gate.strangers(), 5);
        let others: Vec<Ticket> = (3..7).map(|i| enter(&gate, &format!("192.0.2.{i}"), now)).collect();
        assert_eq!(gate.strangers(), 8);
        assert!(quiet.evicted.try_recv() != Err(oneshot::error::TryRecvError::Empty), "then the longest of all");
        drop((quiet, crowd, others));
        assert_eq!(gate.strangers(), 0);
        assert!(gate.lock().by_place.is_empty());
    }

    #[test]
    fn forged_addresses_take_nobodys_place() {
        let (gate, now) = (gate(), Instant::now());
        let knock = |i: u8, proven| gate.knock(IpAddr::from([192, 0, 2, i]), proven, now);
        let held: Vec<Knock> = (0..4).map(|i| knock(i, false)).collect();
        assert!(held.iter().all(|k| matches!(k, Knock::Enter(_))));
        assert!(matches!(knock(9, false), Knock::Prove));
        assert!(matches!(knock(9, true), Knock::Enter(_)));
    }

    #[test]
    fn an_address_begins_so_many_connections_and_no_more() {
        let (gate, now) = (gate(), Instant::now());
        let from = |address: &str, now| gate.knock(address.parse().unwrap(), true, now);
        let entered = (0..150).filter(|_| matches!(from("2001:db8::1", now), Knock::Enter(_))).count();
        assert_eq!(entered, 100);
        assert!(matches!(from("2001:db8::2", now), Knock::Refuse), "the same /64");
        assert!(matches!(from("2001:db8:0:1::1", now), Knock::Enter(_)));
        assert!(matches!(from("2001:db8::1", now + Duration::from_millis(100)), Knock::Enter(_)));
        assert!((0..150).all(|_| matches!(from("::1", now), Knock::Enter(_))), "this machine");
    }
}
