//! What keeps an agent from training, and how it is told: a disk that refuses, a run that is over, work that nobody
//! takes.

use super::*;

/// Lets the session hear of these, and looks.
fn hears(agent: &mut Agent, events: Vec<session::Event>) {
    agent.waiting.extend(events);
    agent.settle();
    agent.look(clock::mono_now());
    agent.settle();
}

/// Welcome in a run, with a lease asked for.
fn welcomed() -> Vec<session::Event> {
    let spec = serde_json::json!({ "name": "night", "token_budget": 1000, "model": ModelSpec::tiny() });
    let welcome = wire::Welcome { run_id: vec![1; 32], run_spec_json: spec.to_string(), ..Default::default() };
    let body = wire::coordinator_message::Body::Welcome(welcome);
    vec![
        session::Event::Permission(session::Permission::Allowed),
        session::Event::Connected,
        session::Event::Answered { request: 1, body },
    ]
}

/// A full disk holds training, whatever else the owner does is served, and nobody needs to start it again.
#[tokio::test]
async fn a_disk_that_refuses_holds_and_does_not_end_the_agent() {
    let mut fixture = Fixture::new(false);
    // In the way of the file that a write begins with.
    let in_the_way = fixture.folder.path().join("journal.json.new");
    std::fs::create_dir(&in_the_way).unwrap();
    hears(&mut fixture.agent, welcomed());
    let why = fixture.agent.why();
    assert!(why.kind == Some(ReasonKind::Disk) && why.reason.contains("the disk refuses"), "{why:?}");
    assert!(why.reason.contains(&fixture.folder.path().display().to_string()), "{why:?}");
    let (reply, answer) = oneshot::channel();
    fixture.agent.answer(Asked::Do(Command::RunNow(None), reply));
    let status = answer.await.unwrap();
    assert_eq!(status.why.kind, Some(ReasonKind::Disk), "it is no matter of comfort");
    assert!(status.session.trouble.is_some_and(|trouble| trouble.contains("the disk refuses")));
    let (reply, answer) = oneshot::channel();
    fixture.agent.answer(Asked::Do(Command::Pause(None), reply));
    assert_eq!(answer.await.unwrap().why.kind, Some(ReasonKind::Paused), "that outlasts it");
    fixture.agent.answer(Asked::Do(Command::Resume, oneshot::channel().0));

    std::fs::remove_dir(&in_the_way).unwrap();
    let later = clock::mono_now() + Duration::from_secs(60);
    for action in fixture.agent.session.handle(session::Event::Tick, later) {
        fixture.agent.perform(action).unwrap();
    }
    fixture.agent.session.handle(session::Event::Tick, later);
    hears(&mut fixture.agent, vec![]);
    assert!(fixture.agent.why().allowed, "{:?}", fixture.agent.why());
    assert!(Journal::load(&*fixture.agent.home.disk()).unwrap().run.is_some(), "what could not be written is written");
}

/// A disk that does not let the journal be read at the start is waited for as well.
#[tokio::test]
async fn a_journal_that_cannot_be_read_yet_is_waited_for() {
    let mut fixture = Fixture::in_no_run();
    let in_the_way = fixture.folder.path().join("journal.json");
    std::fs::create_dir(&in_the_way).unwrap();
    let membership = Membership::from_link(&invite_until(0), "den", 0).unwrap();
    let member = Member::of(membership, &fixture.agent.device.identity).unwrap();
    fixture.agent.take_up(member).unwrap();
    hears(&mut fixture.agent, vec![]);
    assert_eq!(fixture.agent.why().kind, Some(ReasonKind::Disk), "{:?}", fixture.agent.why());
    std::fs::remove_dir(&in_the_way).unwrap();
    hears(&mut fixture.agent, vec![]);
    assert!(fixture.agent.why().allowed, "{:?}", fixture.agent.why());
}

/// Leaving does not wait for the disk: what could not be read does not bring the run back.
#[tokio::test]
async fn a_run_that_is_left_before_its_journal_was_read_is_left() {
    let mut fixture = Fixture::in_no_run();
    let in_the_way = fixture.folder.path().join("journal.json");
    std::fs::create_dir(&in_the_way).unwrap();
    let membership = Membership::from_link(&invite_until(0), "den", 0).unwrap();
    fixture.agent.take_up(Member::of(membership, &fixture.agent.device.identity).unwrap()).unwrap();
    fixture.agent.stay_without_run(&Ending::Left).await;
    std::fs::remove_dir(&in_the_way).unwrap();
    hears(&mut fixture.agent, vec![]);
    assert_eq!(fixture.agent.why().kind, Some(ReasonKind::NotJoined), "{:?}", fixture.agent.why());
}

/// The run's end is the reason, and no time is named at which it would go on.
#[tokio::test]
async fn a_run_that_is_over_is_told_as_such() {
    let mut fixture = Fixture::new(false);
    let over =
        wire::Refusal::retry(wire::RefusalCode::RunOver, "The run is over. Thank you.", Duration::from_secs(3600));
    let body = wire::coordinator_message::Body::Refusal(over);
    let over = session::Event::Answered { request: 2, body };
    hears(&mut fixture.agent, welcomed().into_iter().chain([over]).collect());
    let why = fixture.agent.why();
    assert_eq!((why.kind, why.until), (Some(ReasonKind::RunOver), None), "{}", why.reason);
    assert_eq!(why.reason, "the run is over. Thank you");
}

/// Leases that nobody takes are a reason to hold, and the coordinator's words are told.
#[tokio::test]
async fn a_device_whose_work_nobody_takes_holds_and_says_why() {
    let mut fixture = Fixture::new(false);
    hears(&mut fixture.agent, welcomed());
    for _ in 0..5 {
        fixture.agent.session.set_back("the coordinator says: its norm is far out.", clock::mono_now());
    }
    hears(&mut fixture.agent, vec![]);
    let why = fixture.agent.why();
    assert_eq!(why.kind, Some(ReasonKind::Fruitless), "{why:?}");
    assert!(
        why.reason.contains("the last 5 leases") && why.reason.contains("its norm is far out)") && why.until.is_some(),
        "{why:?}"
    );
    fixture.agent.answer(Asked::Do(Command::Retry, oneshot::channel().0));
    hears(&mut fixture.agent, vec![]);
    assert!(fixture.agent.why().allowed, "{:?}", fixture.agent.why());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_closed_terminal_is_heard_as_an_end() {
    use rustix::process::{Signal, getpid, kill_process};
    if signals::hangups_are_ignored() {
        println!("skipped: whoever started this has it ignore SIGHUP");
        return;
    }
    let ended = signals::terminated().unwrap();
    kill_process(getpid(), Signal::HUP).unwrap();
    tokio::time::timeout(Duration::from_secs(20), ended).await.expect("it is heard");
}
