//! Joining a run from the page, and an agent in none.

use super::*;

/// Without a run it holds for want of one, whatever its owner allows, and refuses what is no invite for now in one
/// line.
#[tokio::test]
async fn an_agent_in_no_run_holds_and_looks_at_invites() {
    let mut bench = Bench::in_no_run();
    let join = async |agent: &mut Agent, invite: String| {
        let (reply, answer) = oneshot::channel();
        agent.answer(Asked::Join { invite, name: None, reply });
        answer.await.unwrap().unwrap_err()
    };
    let status = bench.agent.status();
    assert_eq!((status.why.kind, status.run), (Some(ReasonKind::NotJoined), None));
    assert!(join(&mut bench.agent, "hello".into()).await.contains("starts with \"nightjar:\""));
    assert!(join(&mut bench.agent, invite_until(1)).await.contains("expired"));
    bench.agent.answer(Asked::Do(Command::RunNow(None), oneshot::channel().0));
    assert_eq!(bench.agent.why().kind, Some(ReasonKind::NotJoined));
    // Nothing of it left a trace.
    assert!(!bench.folder.path().join("membership.json").exists());
}

/// The coordinator is asked away from the loop, so that the owner is served meanwhile; one that does not answer may
/// tonight.
#[tokio::test]
async fn it_joins_once_the_coordinator_was_asked() {
    let mut bench = Bench::in_no_run();
    let (reply, answer) = oneshot::channel();
    bench.agent.answer(Asked::Join { invite: invite_until(0), name: Some(" den ".into()), reply });
    let (second, refused) = oneshot::channel();
    bench.agent.answer(Asked::Join { invite: invite_until(0), name: None, reply: second });
    assert!(refused.await.unwrap().unwrap_err().contains("joining already"));
    assert_eq!(bench.agent.why().kind, Some(ReasonKind::NotJoined));
    let knocked = bench.events.recv().await.unwrap();
    bench.agent.take(knocked);
    let joined = answer.await.unwrap().unwrap();
    assert_eq!((joined.name.as_str(), joined.coordinator_answers), ("den", false));
    let status = bench.agent.status();
    assert!(status.why.allowed && status.run.is_some(), "{status:?}");
    assert_eq!(Membership::load(&*bench.agent.home.disk()).unwrap().name, "den");
}

/// "Ready" with the coordinator away, or with somebody else in its place, would be untrue: page and tray say which it
/// is, and what the owner can do about it is done at once.
#[tokio::test]
async fn a_coordinator_that_is_away_is_told_from_one_that_is_another() {
    let mut bench = Bench::new(false);
    let stands = |agent: &Agent| (agent.status().standing.state, agent.face().state);
    let tried = |bench: &mut Bench, failed: LinkError| {
        bench.agent.look(clock::mono_now());
        bench.agent.settle();
        let serial = bench.agent.connection.serial;
        bench.agent.take(Event::Connected { serial, made: Err(failed) });
        bench.agent.settle();
    };
    assert_eq!(stands(&bench.agent), (State::Ready, tray::State::Running), "nothing was tried yet");
    tried(&mut bench, LinkError::Unreachable { address: "h:1".into(), why: "nobody answers".into() });
    assert_eq!(stands(&bench.agent), (State::Offline, tray::State::Held));
    let standing = bench.agent.status().standing;
    assert!(standing.detail.contains("h:1: nobody answers") && standing.offers[0].deed == Deed::Retry, "{standing:?}");
    assert!(
        bench.agent.why().reason.contains("cannot be reached")
            && bench.agent.face().sentence.contains("cannot be reached")
    );

    let before = bench.agent.connection.serial;
    bench.agent.answer(Asked::Do(Command::Retry, oneshot::channel().0));
    assert!(bench.agent.connection.serial > before, "it tries again at the owner's word");
    tried(&mut bench, LinkError::WrongKey("h:1".into()));
    assert_eq!(stands(&bench.agent), (State::NeedsYou, tray::State::Trouble));
    bench.agent.rest(&Ending::RunOver("Thank you.".into())).await;
    let standing = bench.agent.status().standing;
    assert_eq!((standing.state, standing.headline.as_str()), (State::NeedsYou, "the run is over: Thank you"));
    bench.agent.rest(&Ending::Left).await;
    assert_eq!(stands(&bench.agent), (State::NotJoined, tray::State::Held));
}

/// What its people write comes with the coordinator's first welcome: before that nobody knows whether they wrote
/// anything.
#[tokio::test]
async fn a_run_that_was_not_heard_of_yet_is_not_said_to_be_silent() {
    let bench = Bench::new(false);
    let run = bench.agent.status().run.unwrap();
    assert_eq!((run.told, run.sentence.as_str()), (false, ""));
}
