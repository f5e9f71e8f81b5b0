//! Which source counts, and how sources are kept going.

use super::*;
use crate::sensor::facts::{Facts, Input};
use std::{collections::VecDeque, path::PathBuf};
use tokio::task::JoinHandle;

fn readings() -> (Arc<Readings>, Arc<Notify>) {
    let changed = Arc::new(Notify::new());
    let wants = Wants { home: PathBuf::new(), programs: vec![], idle: Duration::from_secs(60) };
    (Readings::new(Facts::new(), wants, changed.clone()), changed)
}

fn metered(readings: &Arc<Readings>, rank: usize) -> Reporter<bool> {
    Reporter::new(readings, |facts| &mut facts.metered, rank)
}

fn read(readings: &Readings) -> (Option<bool>, Option<&'static str>) {
    let (reading, source) = readings.facts().metered.read();
    (reading.known().copied(), source)
}

#[test]
fn the_best_source_that_answers_counts_and_one_that_is_asked_is_waited_for() {
    let (readings, _) = readings();
    let (best, last) = (metered(&readings, 0), metered(&readings, 1));
    last.says(Reading::Known(false));
    assert_eq!(read(&readings), (None, None));
    assert!(!readings.facts().metered.ready());
    best.silent("it is not there".into());
    assert!(readings.facts().metered.ready());
    assert_eq!(read(&readings), (Some(false), Some("the default route")));
    best.says(Reading::Known(true));
    assert_eq!(read(&readings), (Some(true), Some("NetworkManager")));
    best.passes("it does not know");
    assert_eq!(read(&readings), (Some(false), Some("the default route")));
    best.says(Reading::Unknown("nobody can know".into()));
    assert_eq!(read(&readings).0, None);
    best.says_for(Reading::Known(true), Duration::ZERO);
    std::thread::sleep(Duration::from_millis(2));
    assert_eq!(read(&readings).0, None, "what is stale is not known");
}

#[tokio::test]
async fn only_what_may_forbid_is_told_at_once() {
    let (readings, changed) = readings();
    let told = async || tokio::time::timeout(Duration::from_millis(20), changed.notified()).await.is_ok();
    let idle: Reporter<Input> = Reporter::new(&readings, |facts| &mut facts.idle, 0);
    idle.says(Reading::Known(Input::Never));
    assert!(told().await, "the first answer");
    idle.says(Reading::Known(Input::Now));
    assert!(told().await, "input after a long time");
    idle.says(Reading::Known(Input::ago(Duration::ZERO)));
    assert!(!told().await, "more input");
    idle.says(Reading::Unknown("it went away".into()));
    assert!(told().await, "what is not known forbids");
    idle.silent("it went away".into());
    assert!(!told().await);
}

/// A script of what a source does each time it is asked.
enum Act {
    Fails,
    Hangs,
    SaysAndEnds(bool),
    SaysAndStays(bool),
}

const QUICK: Pace = Pace {
    limit: Duration::from_millis(30),
    back_off: Duration::from_millis(20),
    back_off_max: Duration::from_millis(40),
};

fn play(readings: &Arc<Readings>, rank: usize, acts: Vec<Act>) -> (JoinHandle<()>, Arc<Mutex<usize>>) {
    play_at(readings, rank, QUICK, acts)
}

fn play_at(readings: &Arc<Readings>, rank: usize, pace: Pace, acts: Vec<Act>) -> (JoinHandle<()>, Arc<Mutex<usize>>) {
    let (acts, asked) = (Arc::new(Mutex::new(VecDeque::from(acts))), Arc::new(Mutex::new(0)));
    let count = asked.clone();
    let ask = move |reporter: Reporter<bool>| {
        *count.lock().unwrap() += 1;
        let act = acts.lock().unwrap().pop_front();
        async move {
            match act {
                None | Some(Act::Fails) => "it fails".to_owned(),
                Some(Act::Hangs) => std::future::pending().await,
                Some(Act::SaysAndEnds(value)) => {
                    reporter.says(Reading::Known(value));
                    tokio::time::sleep(Duration::from_millis(60)).await;
                    "it went away".to_owned()
                }
                Some(Act::SaysAndStays(value)) => {
                    reporter.says(Reading::Known(value));
                    std::future::pending().await
                }
            }
        }
    };
    (tokio::spawn(keep(metered(readings, rank), pace, ask)), asked)
}

/// Patience for what must happen; nothing asserts speed.
const PATIENCE: Duration = Duration::from_secs(20);

async fn becomes(readings: &Readings, wanted: (Option<bool>, Option<&'static str>)) {
    let since = Instant::now();
    while read(readings) != wanted {
        assert!(since.elapsed() < PATIENCE, "{:?} instead of {wanted:?}", read(readings));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_source_that_hangs_is_given_up_and_asked_again_and_takes_over_when_it_answers() {
    let (readings, _) = readings();
    let (best, asked) =
        play(&readings, 0, vec![Act::Hangs, Act::Fails, Act::SaysAndEnds(true), Act::Fails, Act::SaysAndStays(true)]);
    let (last, of_last) = play(&readings, 1, vec![Act::SaysAndStays(false), Act::SaysAndStays(false)]);
    assert_eq!(read(&readings), (None, None), "both are still being asked");
    let (network_manager, route) = ((Some(true), Some("NetworkManager")), (Some(false), Some("the default route")));
    becomes(&readings, route).await;
    becomes(&readings, network_manager).await;
    becomes(&readings, route).await;
    becomes(&readings, network_manager).await;
    assert_eq!((*asked.lock().unwrap(), *of_last.lock().unwrap()), (5, 2));
    best.abort();
    last.abort();
}

#[tokio::test]
async fn a_nudge_ends_the_waiting() {
    let (readings, _) = readings();
    let never = Pace { back_off: PATIENCE * 10, back_off_max: PATIENCE * 10, ..QUICK };
    let (best, asked) = play_at(&readings, 0, never, vec![Act::Fails, Act::SaysAndStays(true)]);
    while *asked.lock().unwrap() == 0 {
        tokio::task::yield_now().await;
    }
    readings.nudge();
    becomes(&readings, (Some(true), Some("NetworkManager"))).await;
    best.abort();
}
