//! Joining a run from the page, and an agent in none.

use super::*;

/// Without a run it holds for want of one, whatever its owner allows, and refuses what is no invite for now in one
/// line.
#[tokio::test]
async fn an_agent_in_no_run_holds_and_looks_at_invites() {
    let mut fixture = Fixture::in_no_run();
    let join = async |agent: &mut Agent, invite: String| {
        let (reply, answer) = oneshot::channel();
        agent.answer(Asked::Join { invite, name: None, reply });
        answer.await.unwrap().unwrap_err().to_string()
    };
    let status = fixture.agent.status();
    assert_eq!((status.why.kind, status.run), (Some(ReasonKind::NotJoined), None));
    assert!(join(&mut fixture.agent, "hello".into()).await.contains("starts with \"nightjar:\""));
    assert!(join(&mut fixture.agent, invite_until(1)).await.contains("expired"));
    fixture.agent.answer(Asked::Do(Command::RunNow(None), oneshot::channel().0));
    assert_eq!(fixture.agent.why().kind, Some(ReasonKind::NotJoined));
    // Nothing of it left a trace.
    assert!(!fixture.folder.path().join("membership.json").exists());
}

/// The coordinator is asked away from the loop, so that the owner is served meanwhile; one that does not answer may
/// tonight.
#[tokio::test]
async fn it_joins_once_the_coordinator_was_asked() {
    let mut fixture = Fixture::in_no_run();
    let (reply, answer) = oneshot::channel();
    fixture.agent.answer(Asked::Join { invite: invite_until(0), name: Some(" den ".into()), reply });
    let (second, refused) = oneshot::channel();
    fixture.agent.answer(Asked::Join { invite: invite_until(0), name: None, reply: second });
    assert!(matches!(refused.await.unwrap(), Err(JoinError::Busy)));
    assert_eq!(fixture.agent.why().kind, Some(ReasonKind::NotJoined));
    let join_answered = fixture.events.recv().await.unwrap();
    fixture.agent.take(join_answered);
    let joined = answer.await.unwrap().unwrap();
    assert_eq!((joined.name.as_str(), joined.coordinator_answers), ("den", false));
    let status = fixture.agent.status();
    assert!(status.why.allowed && status.run.is_some(), "{status:?}");
    assert_eq!(Membership::load(&*fixture.agent.home.disk()).unwrap().name, "den");
}

/// "Ready" with the coordinator away, or with somebody else in its place, would be untrue: page and tray say which it
/// is, and what the owner can do about it is done at once.
#[tokio::test]
async fn a_coordinator_that_is_away_is_told_from_one_that_is_another() {
    let mut fixture = Fixture::new(false);
    let stands = |agent: &Agent| (agent.status().summary.state, agent.view().state);
    let tried = |fixture: &mut Fixture, failed: LinkError| {
        fixture.agent.look(clock::mono_now());
        fixture.agent.settle();
        let serial = fixture.agent.connection.serial;
        fixture.agent.take(Event::Connected { serial, made: Err(failed) });
        fixture.agent.settle();
    };
    assert_eq!(stands(&fixture.agent), (State::Ready, tray::State::Running), "nothing was tried yet");
    tried(&mut fixture, LinkError::Unreachable { address: "h:1".into(), why: "nobody answers".into() });
    assert_eq!(stands(&fixture.agent), (State::Offline, tray::State::Held));
    let summary = fixture.agent.status().summary;
    assert!(summary.detail.contains("h:1: nobody answers") && summary.offers[0].deed == Deed::Retry, "{summary:?}");
    assert!(
        fixture.agent.why().reason.contains("cannot be reached")
            && fixture.agent.view().sentence.contains("cannot be reached")
    );

    let before = fixture.agent.connection.serial;
    fixture.agent.answer(Asked::Do(Command::Retry, oneshot::channel().0));
    assert!(fixture.agent.connection.serial > before, "it tries again at the owner's word");
    tried(&mut fixture, LinkError::WrongKey("h:1".into()));
    assert_eq!(stands(&fixture.agent), (State::NeedsYou, tray::State::Trouble));
    fixture.agent.stay_without_run(&Ending::RunOver("Thank you.".into())).await;
    let summary = fixture.agent.status().summary;
    assert_eq!((summary.state, summary.headline.as_str()), (State::NeedsYou, "the run is over: Thank you"));
    fixture.agent.stay_without_run(&Ending::Left).await;
    assert_eq!(stands(&fixture.agent), (State::NotJoined, tray::State::Held));
}

/// What its people write comes with the coordinator's first welcome: before that nobody knows whether they wrote
/// anything.
#[tokio::test]
async fn a_run_that_was_not_heard_of_yet_is_not_said_to_be_silent() {
    let fixture = Fixture::new(false);
    let run = fixture.agent.status().run.unwrap();
    assert_eq!((run.told, run.sentence.as_str()), (false, ""));
}
