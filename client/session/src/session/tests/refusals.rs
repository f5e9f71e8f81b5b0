//! What a device does with a refusal, and when it asks again.

use super::*;

#[test]
fn what_a_device_waits_for_is_known_and_when_it_asks_again() {
    let mut bench = Bench::new(Journal::default());
    assert_eq!(bench.online().session.waits_for(), None, "it has just asked");
    let wait = Refusal::retry(RefusalCode::NoWork, "later", Duration::from_secs(30));
    bench.answers(answer::Body::Refusal(wait));
    let (what, at) = bench.session.waits_for().expect("it asks again");
    assert_eq!(what, "waiting for work; the coordinator says: later");
    assert!(at.is_some_and(|at| at >= bench.now + Duration::from_secs(30)));
    bench.does(Event::Disconnected { why: "the connection timed out.".into() });
    let (what, at) = bench.session.waits_for().expect("it connects again");
    assert_eq!(what, "the coordinator cannot be reached (the connection timed out)");
    assert_eq!(at, bench.session.next_deadline());
    bench.waits();
    assert_eq!(bench.session.waits_for(), Some((what, None)), "it tries just now");
    bench.does(Event::Connected).answers(welcome());
    assert_eq!(bench.session.waits_for(), None);
    let mut training = Bench::new(Journal::default());
    training.training().does(Event::Disconnected { why: "gone".into() });
    assert_eq!(training.session.waits_for(), None, "it trains on");
}

/// Who was refused for want of memory asks again as soon as there is enough, and as soon as the owner changes
/// something.
#[test]
fn what_a_refusal_was_for_may_be_over_before_it_ends() {
    let mut bench = Bench::new(Journal::default());
    bench.online();
    let needed = bench.session.spec().expect("it was welcomed").model.training_bytes();
    let refused = |bench: &mut Bench| {
        let wait = Refusal::retry(RefusalCode::NoWork, "too little memory", Duration::from_secs(600));
        bench.answers(answer::Body::Refusal(wait));
        assert!(bench.session.waits_for().is_some_and(|(what, _)| what.contains("too little memory")));
    };
    bench.session.set_memory(needed - 2);
    refused(&mut bench);
    bench.does(Event::Retry);
    refused(&mut bench);
    bench.session.set_memory(needed - 1);
    bench.does(Event::Tick);
    assert!(bench.session.waits_for().is_some(), "still too little");
    bench.session.set_memory(needed);
    bench.does(Event::Tick);
    assert_eq!(bench.session.waits_for(), None, "it has just asked");
    refused(&mut bench);
    bench.does(Event::Retry);
    assert_eq!(bench.session.waits_for(), None, "it has just asked");
}

/// The owner lifts a cap: it asks at once, since they changed something, and only the next look at the computer tells
/// how much there is now. The answer to a question of before that holds nobody up; nor does memory that comes bit by
/// bit.
#[test]
fn memory_that_came_while_a_question_was_open_counts() {
    let mut bench = Bench::new(Journal::default());
    bench.online();
    let needed = bench.session.spec().expect("it was welcomed").model.training_bytes();
    let refusal = || {
        let wait = Refusal::retry(RefusalCode::NoWork, "too little memory", Duration::from_secs(600));
        answer::Body::Refusal(wait)
    };
    for lifted in [needed, 0] {
        bench.session.set_memory(needed / 2);
        bench.answers(refusal());
        assert_eq!(bench.session.lacks_memory(), Some(needed));
        bench.does(Event::Retry);
        bench.session.set_memory(lifted);
        bench.answers(refusal());
        assert_eq!(
            (bench.session.waits_for(), bench.session.lacks_memory()),
            (None, None),
            "it has just asked, with {lifted}"
        );
    }
}

#[test]
fn each_refusal_is_taken_at_its_word() {
    let mut bench = Bench::new(Journal::default());
    bench.online();
    let wait = Refusal::retry(RefusalCode::NoWork, "later", Duration::from_secs(30));
    let before = bench.now;
    bench.answers(answer::Body::Refusal(wait));
    assert!(bench.asked().is_none());
    assert_eq!(bench.session.status().doing, "waiting for work; the coordinator says: later");
    bench.waits();
    assert!((30_000..=37_500).contains(&(bench.now.since(before).as_millis() as u64)));
    bench.answers(refusal(RefusalAction::HelloAgain)).waits();
    assert!(matches!(bench.asked(), Some((_, ask::Body::Hello(_)))));
    bench.answers(welcome()).answers(refusal(RefusalAction::Upgrade));
    assert!(bench.wants(&Action::Exit(Ending::Refused("no".into()))));
}
