//! Idle time for computers without a desktop that can be asked: logind knows the sessions. A graphical one counts as
//! idle while its screen is locked or it says so itself; what is typed at terminals, also over the network, they tell.

use super::{bus, terminals::Terminals};
use crate::{
    clock,
    policy::Reading,
    sensor::{facts::Input, places::Places, readings::Reporter},
};
use futures_util::StreamExt;
use nightjar_shared::time::Mono;
use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};
use zbus::{Connection, MatchRule, MessageStream, Proxy, message, zvariant::OwnedObjectPath};

const NAME: &str = "org.freedesktop.login1";
const FRESH: Duration = Duration::from_secs(30);
/// More sessions than anybody has.
const SESSIONS_MAX: usize = 64;
/// Sessions are asked this often besides when they say that they changed.
const ASK_EVERY: Duration = Duration::from_secs(10);

/// Whose sessions are looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Everybodys,
    /// Those of other users: this user's own have better sources.
    Others,
}

/// Asks logind until it fails; returns why.
pub async fn idle(places: Places, reporter: Reporter<Input>) -> String {
    watch(&places, &reporter, Whose::Everybodys).await.err().unwrap_or_else(bus::gone)
}

/// Asks logind of other users' sessions, and looks at all terminals, until that fails; returns why.
pub async fn others(places: Places, reporter: Reporter<Input>) -> String {
    watch(&places, &reporter, Whose::Others).await.err().unwrap_or_else(bus::gone)
}

async fn watch(places: &Places, reporter: &Reporter<Input>, whose: Whose) -> Result<(), String> {
    let bus = bus::connect(&places.system_bus).await?;
    let manager = bus::proxy(&bus, NAME, "/org/freedesktop/login1", "org.freedesktop.login1.Manager").await?;
    let mut owner = bus::within(manager.receive_owner_changed()).await?;
    let mut changes = bus::within(property_changes(&bus)).await?;
    let mut terminals = Terminals::new(&places.root);
    let mut locked = HashMap::new();
    let mut graphical = sessions(&bus, &manager, &mut locked, whose).await?;
    let mut asked = clock::mono_now();
    loop {
        let typed = terminals.look().map_err(|e| format!("the terminals cannot be read ({e})"))?;
        reporter.says_for(latest(&graphical, typed), FRESH);
        let ask = tokio::select! {
            () = terminals.wait() => clock::mono_now().since(asked) >= ASK_EVERY,
            change = changes.next() => { change.ok_or_else(bus::gone)?.map_err(|e| e.to_string())?; true }
            owner = owner.next() => if matches!(owner, Some(Some(_))) { true } else { return Err("it went away".into()) },
        };
        if ask {
            graphical = sessions(&bus, &manager, &mut locked, whose).await?;
            asked = clock::mono_now();
        }
    }
}

async fn property_changes(bus: &Connection) -> zbus::Result<MessageStream> {
    let rule = MatchRule::builder().msg_type(message::Type::Signal).sender(NAME)?;
    let rule = rule.path_namespace("/org/freedesktop/login1/session")?.interface("org.freedesktop.DBus.Properties")?;
    MessageStream::for_match_rule(rule.build(), bus, Some(16)).await
}

/// The latest of what graphical sessions and terminals say; unknown where one of the former says nothing of use.
fn latest(graphical: &[Reading<Input>], typed: Input) -> Reading<Input> {
    let now = clock::mono_now();
    let mut latest = typed;
    for session in graphical {
        match session {
            Reading::Known(input) if input.idle(now) < latest.idle(now) => latest = *input,
            Reading::Known(_) => {}
            Reading::Unknown(why) => return Reading::Unknown(why.clone()),
        }
    }
    Reading::Known(latest)
}

/// What the users' graphical sessions say.
async fn sessions(
    bus: &Connection,
    manager: &Proxy<'_>,
    locked: &mut HashMap<String, Mono>,
    whose: Whose,
) -> Result<Vec<Reading<Input>>, String> {
    let all: Vec<(String, u32, String, String, OwnedObjectPath)> = bus::call(manager, "ListSessions", &()).await?;
    let mut seen = vec![];
    let own = rustix::process::geteuid().as_raw();
    for (id, user, _, _, path) in all.into_iter().take(SESSIONS_MAX) {
        if whose == Whose::Others && user == own {
            continue;
        }
        let session = bus::proxy(bus, NAME, path.as_str(), "org.freedesktop.login1.Session").await?;
        // A session may end between two questions.
        let (Ok(class), Ok(kind), Ok(state)) = (
            bus::within(session.get_property::<String>("Class")).await,
            bus::within(session.get_property::<String>("Type")).await,
            bus::within(session.get_property::<String>("State")).await,
        ) else {
            continue;
        };
        // Nobody can type in a session that is switched away from.
        let is_in_view = state != "online" || whose == Whose::Everybodys;
        if !is_in_view || class != "user" || !["wayland", "x11", "mir"].contains(&kind.as_str()) || state == "closing" {
            continue;
        }
        let says_idle = bus::within(session.get_property::<bool>("IdleHint")).await.unwrap_or(false);
        let since = bus::within(session.get_property::<u64>("IdleSinceHint")).await.unwrap_or(0);
        if bus::within(session.get_property::<bool>("LockedHint")).await.unwrap_or(false) {
            let since = *locked.entry(id).or_insert_with(clock::mono_now);
            seen.push(Reading::Known(Input::At(since)));
            continue;
        }
        locked.remove(&id);
        seen.push(if says_idle {
            let since = SystemTime::UNIX_EPOCH + Duration::from_micros(since.min(i64::MAX as u64));
            Reading::Known(Input::ago(SystemTime::now().duration_since(since).unwrap_or_default()))
        } else {
            Reading::Unknown(
                "the desktop has no idle monitor that answers, and logind says only that it is in use".into(),
            )
        });
    }
    Ok(seen)
}
