//! A race of all the coordinator's addresses, as RFC 8305 ("Happy Eyeballs") has it: the next is tried while those
//! before it have not answered yet, IPv6 and IPv4 in turn, and the first that answers with the right key wins. So an
//! address that leads nowhere costs a moment, and stands for nothing.

use super::LinkError;
use std::{collections::VecDeque, io, net::SocketAddr, time::Duration};
use tokio::{task::JoinSet, time::Instant};

/// The next address is tried after this time without an answer.
const STAGGER: Duration = Duration::from_millis(250);
/// Names lead to more addresses than this only by mistake.
const WAYS_MAX: usize = 32;

/// One way to the coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// As the invite has it.
    pub address: String,
    /// Where that leads.
    pub to: SocketAddr,
}

/// The ways that are still to be tried.
#[derive(Debug, Default)]
struct Lineup {
    known: Vec<SocketAddr>,
    waiting: VecDeque<Way>,
    was_ipv6: Option<bool>,
}

impl Lineup {
    /// More of them, each tried once.
    fn add(&mut self, address: &str, found: impl IntoIterator<Item = SocketAddr>) {
        for to in found {
            if self.known.len() < WAYS_MAX && !self.known.contains(&to) {
                self.known.push(to);
                self.waiting.push_back(Way { address: address.to_owned(), to });
            }
        }
    }

    /// The next: of the other family than the last, where there is one.
    fn next(&mut self) -> Option<Way> {
        let other = self.waiting.iter().position(|way| Some(way.to.is_ipv6()) != self.was_ipv6);
        let way = self.waiting.remove(other.unwrap_or(0))?;
        self.was_ipv6 = Some(way.to.is_ipv6());
        Some(way)
    }
}

/// Connects by the first way that answers; else says what is the matter with all of them together.
pub(super) async fn first<T, F>(addresses: &[String], connect: impl Fn(Way) -> F) -> Result<T, LinkError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, LinkError>> + Send + 'static,
{
    let (mut lookups, mut attempts) = (JoinSet::new(), JoinSet::new());
    for address in addresses.iter().take(WAYS_MAX).cloned() {
        lookups.spawn(async move {
            let found = tokio::net::lookup_host(&address).await.map(Iterator::collect::<Vec<_>>);
            (address, found)
        });
    }
    let (mut lineup, mut failures, mut next_at) = (Lineup::default(), vec![], Instant::now());
    loop {
        if (attempts.is_empty() || Instant::now() >= next_at)
            && let Some(way) = lineup.next()
        {
            attempts.spawn(connect(way));
            next_at = Instant::now() + STAGGER;
        }
        tokio::select! {
            Some(looked_up) = lookups.join_next() => match looked_up {
                Ok((address, Ok(found))) if !found.is_empty() => lineup.add(&address, found),
                Ok((address, Ok(_))) => failures.push(LinkError::Address(address)),
                Ok((address, Err(e))) => failures.push(unresolved(address, &e)),
                Err(e) => failures.push(LinkError::Local(e.to_string())),
            },
            Some(attempt) = attempts.join_next() => match attempt {
                Ok(Ok(made)) => return Ok(made),
                Ok(Err(e)) => {
                    failures.push(e);
                    next_at = Instant::now();
                }
                Err(e) => failures.push(LinkError::Local(e.to_string())),
            },
            () = tokio::time::sleep_until(next_at), if !lineup.waiting.is_empty() => {}
            else => break,
        }
    }
    Err(together(failures))
}

fn unresolved(address: String, e: &io::Error) -> LinkError {
    // Not of the form `host:port`.
    if e.kind() == io::ErrorKind::InvalidInput { LinkError::Address(address) } else { LinkError::UnknownHost(address) }
}

/// The one failure that tells most. That nobody answers is said of all addresses where it holds.
fn together(mut failures: Vec<LinkError>) -> LinkError {
    let silent: Vec<String> = failures
        .iter()
        .filter_map(|failure| match failure {
            LinkError::Silent(address) => Some(address.clone()),
            _ => None,
        })
        .fold(vec![], |mut silent, address| {
            if !silent.contains(&address) {
                silent.push(address);
            }
            silent
        });
    failures.sort_by_key(telling);
    match failures.into_iter().next() {
        None => LinkError::Address("(none)".into()),
        Some(LinkError::Silent(_)) => LinkError::Silent(silent.join(", ")),
        Some(failure) => failure,
    }
}

fn telling(failure: &LinkError) -> u8 {
    match failure {
        LinkError::WrongKey(_) => 0,
        LinkError::Unreachable { .. } | LinkError::Broken(_) | LinkError::Frame(_) => 1,
        LinkError::Silent(_) => 2,
        LinkError::UnknownHost(_) => 3,
        LinkError::Address(_) => 4,
        LinkError::Local(_) => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    #[test]
    fn families_take_turns_and_no_address_is_tried_twice() {
        let mut lineup = Lineup::default();
        lineup.add("a", ["[2001:db8::1]:1", "[2001:db8::2]:1", "192.0.2.1:1", "192.0.2.2:1"].map(at));
        lineup.add("b", ["192.0.2.1:1", "192.0.2.3:1"].map(at));
        let order: Vec<String> = std::iter::from_fn(|| lineup.next()).map(|way| way.to.to_string()).collect();
        assert_eq!(order, ["[2001:db8::1]:1", "192.0.2.1:1", "[2001:db8::2]:1", "192.0.2.2:1", "192.0.2.3:1"]);
        lineup.add("c", (0..100).map(|port| SocketAddr::from(([192, 0, 2, 9], port))));
        assert_eq!(lineup.waiting.len(), WAYS_MAX - 5);
    }

    #[test]
    fn of_several_failures_the_one_that_tells_most_is_told() {
        let silent = |address: &str| LinkError::Silent(address.into());
        let unknown = || LinkError::UnknownHost("nowhere:1".into());
        let all = together(vec![silent("a:1"), unknown(), silent("b:2"), silent("a:1")]).to_string();
        assert!(all.contains("a:1, b:2") && all.contains("UDP"), "{all}");
        assert!(matches!(together(vec![unknown(), LinkError::Local(String::new())]), LinkError::UnknownHost(_)));
        assert!(matches!(together(vec![silent("a:1"), LinkError::WrongKey("b:1".into())]), LinkError::WrongKey(_)));
        assert!(matches!(together(vec![]), LinkError::Address(_)));
    }

    /// The first address never answers; the race is won by the second all the same.
    #[tokio::test]
    async fn an_address_that_leads_nowhere_stands_for_nothing() {
        let addresses = ["127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned()];
        let won = first(&addresses, |way| async move {
            if way.address.ends_with(":1") {
                std::future::pending::<()>().await;
            }
            Ok(way.address)
        });
        assert_eq!(won.await.unwrap(), "127.0.0.1:2");
        let none = ["host.invalid:1".to_owned(), "no port".to_owned()];
        let lost = first(&none, |way| async move { Ok(way) }).await.unwrap_err();
        assert!(matches!(&lost, LinkError::UnknownHost(address) if address == "host.invalid:1"), "{lost}");
    }
}
