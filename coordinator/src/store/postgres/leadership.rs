//! Which of a run's processes leads. The leader holds an advisory lock in the database, on a session of its own. That
//! session is all that is known of it: its name says where the leader answers its doors, and the time of its last
//! statement whether it is alive. Both end with it, so nothing is left behind that could be wrong.
//!
//! The lock alone does not make it safe: a leader that is paused, and followed by another, may wake up and believe that
//! it leads. Its commits are refused by their generation ([`LedgerError::Fenced`]). And only who has the lock raises that:
//! whoever lost it on the way to the ledger is refused there, too.

use super::CONNECT_MAX;
use crate::store::{
    DatabaseUrl, LedgerError,
    sql::tables::{Tables, sql},
};
use sqlx::{Connection, PgConnection, Row, postgres::PgRow, query};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// How often a leader shows that it is alive, and a door looks.
const BEAT: Duration = Duration::from_secs(1);
/// A leader that has been silent for so long is followed by another.
const SILENT_MAX: Duration = Duration::from_secs(5);
/// What a leader's session is called, with its address behind it.
const NAME: &str = "nightjar leader at ";
/// How things are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// This process leads.
    Leads,
    /// Another one does: where it answers its doors, once it does.
    Follows(Option<SocketAddr>),
}

/// This process among the others.
pub struct Leadership {
    url: DatabaseUrl,
    /// The session that the lock belongs to, if this process has it. It is taken out while something is asked: where
    /// nobody waits for the answer any more, it ends, and the lock with it.
    session: Option<PgConnection>,
    /// The lock that this process had last.
    lock: Option<Lock>,
}

/// A lock that a process has, or had. It ends with its session, which no other is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    pid: i64,
    started: String,
}

impl Lock {
    /// Whether it is held still. Whoever takes it next has to wait for this transaction, if it has locked the run's row.
    pub(super) async fn is_held(&self, tx: &mut impl Tables) -> Result<bool, LedgerError> {
        Ok(tx.number(sql(IS_HELD).bind(self.pid).bind(&*self.started)).await? > 0)
    }
}

impl Leadership {
    /// Of the run in this database.
    pub fn of(url: DatabaseUrl) -> Self {
        Leadership { url, session: None, lock: None }
    }

    /// Leads, if nobody else does. A leader that is silent is ended, and followed at the next try.
    pub async fn stand(&mut self) -> Result<Standing, LedgerError> {
        let mut session = self.taken().await?;
        let (stood, own) = self.in_time(stand(&mut session)).await?;
        self.session = Some(session);
        if stood == Standing::Leads {
            self.lock = Some(own);
        }
        Ok(stood)
    }

    /// Looks every second until this process leads, or follows another leader than this one.
    pub async fn until_other_than(&mut self, leader: SocketAddr) -> Standing {
        loop {
            sleep(BEAT).await;
            match self.stand().await {
                Ok(Standing::Follows(Some(address))) if address == leader => {}
                Ok(standing) => return standing,
                // Without the database nobody can lead; who led before may still be there.
                Err(error) => tracing::debug!(%error, "it cannot be seen who leads"),
            }
        }
    }

    /// Shows every second that this process leads, and where; done once another one does. A database that was away
    /// for a moment may have let go of the lock: then it is taken again.
    pub async fn keep(&mut self, address: watch::Receiver<Option<SocketAddr>>) {
        loop {
            let at = *address.borrow();
            match self.beat(at).await {
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(%error, "it cannot be shown that this process leads");
                    if matches!(self.stand().await, Ok(Standing::Follows(_))) {
                        return;
                    }
                }
            }
            sleep(BEAT).await;
        }
    }

    /// The lock that this process had last, and has perhaps.
    pub fn lock(&self) -> Option<Lock> {
        self.lock.clone()
    }

    /// Whether this process leads by the lock that it had then: so nobody else can have led meanwhile.
    pub async fn has_led_since(&mut self, then: &Option<Lock>) -> bool {
        matches!(self.stand().await, Ok(Standing::Leads)) && self.lock == *then
    }

    /// Leads no longer.
    pub fn let_go(&mut self) {
        self.session = None;
    }

    async fn beat(&mut self, address: Option<SocketAddr>) -> Result<(), LedgerError> {
        let mut session = self.session.take().ok_or_else(|| self.url.away("the session that held the lock is gone"))?;
        self.in_time(beat(&mut session, address)).await?;
        self.session = Some(session);
        Ok(())
    }

    async fn taken(&mut self) -> Result<PgConnection, LedgerError> {
        match self.session.take() {
            Some(session) => Ok(session),
            None => self.in_time(async { Ok(PgConnection::connect_with(&self.url.options()).await?) }).await,
        }
    }

    async fn in_time<T>(&self, asked: impl Future<Output = Result<T, LedgerError>>) -> Result<T, LedgerError> {
        match timeout(CONNECT_MAX, asked).await {
            Ok(answer) => answer.map_err(|error| self.url.named(error)),
            Err(_) => Err(self.url.away("it does not answer")),
        }
    }
}

/// The lock is a number of ours, and the schema that the run is in.
const TRY_LOCK: &str =
    "/* try to lead */ SELECT pg_try_advisory_lock(1852794732, current_schema()::regnamespace::oid::int4) AS leads";

/// This session.
const SELF: &str = "/* self */ SELECT pid, extract(epoch FROM backend_start)::text AS started
    FROM pg_stat_activity WHERE pid = pg_backend_pid()";

/// The session that holds it: who, what it is called, and for how long it has been silent.
const HOLDER: &str = "/* who leads */
    SELECT pid, application_name AS name, (extract(epoch FROM clock_timestamp() - state_change) * 1000)::int8 AS silent_ms
    FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND classid = 1852794732 AND objid = current_schema()::regnamespace::oid AND granted
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";

/// Counts the sessions that hold it and are this one.
const IS_HELD: &str = "/* does it lead */ SELECT count(*) AS n
    FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND classid = 1852794732 AND objid = current_schema()::regnamespace::oid AND granted
      AND pid = $1 AND extract(epoch FROM backend_start)::text = $2
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";

/// Ends sessions that began to write to the run, and have said nothing since.
const END_WRITERS: &str = "/* end silent writers */ SELECT pg_terminate_backend(pid)
    FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'relation' AND relation = to_regclass('run') AND mode = 'RowExclusiveLock' AND granted
      AND state = 'idle in transaction' AND clock_timestamp() - state_change > interval '1 second'";

/// How things are for this session, and what its lock is, if it has it.
async fn stand(session: &mut PgConnection) -> Result<(Standing, Lock), LedgerError> {
    let own = query(SELF).fetch_one(&mut *session).await?;
    let own = Lock { pid: own.try_get::<i32, _>("pid")?.into(), started: own.try_get("started")? };
    Ok((compare(session, &own).await?, own))
}

async fn compare(session: &mut PgConnection, own: &Lock) -> Result<Standing, LedgerError> {
    let holder = query(HOLDER).fetch_optional(&mut *session).await?;
    let pid = |holder: &PgRow| holder.try_get::<i32, _>("pid");
    let Some(holder) = holder else {
        let leads: bool = query(TRY_LOCK).fetch_one(session).await?.try_get("leads")?;
        return Ok(if leads { Standing::Leads } else { Standing::Follows(None) });
    };
    // A session that has the lock already would take it once more, and then have to let go of it twice.
    if i64::from(pid(&holder)?) == own.pid {
        return Ok(Standing::Leads);
    }
    let silent: Option<i64> = holder.try_get("silent_ms")?;
    if silent.is_some_and(|ms| u128::from(ms.unsigned_abs()) > SILENT_MAX.as_millis()) {
        tracing::warn!(silent_ms = silent, "the leader is silent: its session is ended");
        // What it was writing is undone: a transaction that it does not end would hold up whoever follows.
        query(END_WRITERS).execute(&mut *session).await?;
        query("/* end a silent leader */ SELECT pg_terminate_backend($1)").bind(pid(&holder)?).execute(session).await?;
        return Ok(Standing::Follows(None));
    }
    let name: Option<String> = holder.try_get("name")?;
    Ok(Standing::Follows(name.and_then(|name| name.strip_prefix(NAME)?.parse().ok())))
}

/// Says where this process answers its doors: on this port, at this address or, where it listens on all of them, the
/// one that the database sees it at.
async fn beat(session: &mut PgConnection, at: Option<SocketAddr>) -> Result<(), LedgerError> {
    let name = match at {
        None => "nightjar leader that starts".to_owned(),
        Some(at) if !at.ip().is_unspecified() => format!("{NAME}{at}"),
        Some(at) => {
            let seen = query("/* own address */ SELECT host(inet_client_addr()) AS address").fetch_one(&mut *session);
            let seen: Option<String> = seen.await?.try_get("address")?;
            // A session over a socket of the same machine has none.
            let ip = seen.and_then(|seen| seen.parse().ok()).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
            format!("{NAME}{}", SocketAddr::new(ip, at.port()))
        }
    };
    query("/* beat */ SELECT set_config('application_name', $1, false)").bind(name).execute(session).await?;
    Ok(())
}
