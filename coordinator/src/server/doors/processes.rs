//! A process of several: it leads or holds the door, for as long as it is so, and changes over when that changes.

use super::door::{Door, Ended};
use crate::{
    server::{
        http::Names,
        serve::{EndError, Server},
        setup::{ServeError, Setup},
        shell::ShellError,
        trouble::Say,
        wish::{Wish, Wishes, wishes as wishes_of},
    },
    store::{
        DatabaseUrl, LedgerError,
        postgres::leadership::{Leadership, Standing},
    },
};
use std::{
    future::Future,
    net::TcpListener,
    pin::pin,
    time::{Duration, Instant},
};
use tokio::{sync::watch, time::sleep};

/// How long a start waits for a database that is away.
const AWAY_MAX: Duration = Duration::from_secs(60);
/// How often it tries.
const AGAIN: Duration = Duration::from_millis(500);
/// Connections that end keep an address for a moment.
const IN_USE_MAX: Duration = Duration::from_secs(10);

/// Why a process serves no longer, besides being asked to stop.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It could not begin.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// It led, and cannot go on.
    #[error(transparent)]
    End(#[from] EndError),
    /// A coordinator that does not ask who leads has the ledger.
    #[error(
        "another coordinator took the ledger over without asking who leads: stop it. Of several, each is started with \
         both URLs, --ledger and --blobs"
    )]
    TakenOver,
}

/// What a process has begun to do, for whoever tells the person at the terminal.
pub enum Began<'a> {
    /// It leads.
    Leads(&'a Server),
    /// It holds the door.
    Door(&'a Door),
}

/// What the pages of a process are besides.
pub struct Pages {
    /// Names that they answer to.
    pub names: Vec<String>,
    /// Where strangers are shown the run.
    pub public: Option<TcpListener>,
}

impl Pages {
    /// Gives a server these pages. A socket that cannot be had again is told of in the log: the run goes on without it.
    pub fn of(&self, server: Server) -> Server {
        let server = server.with_http_names(self.names.clone());
        match self.public.as_ref().map(TcpListener::try_clone) {
            Some(Ok(public)) => server.with_public_page(public),
            Some(Err(error)) => {
                tracing::error!(%error, "the public page cannot be served");
                server
            }
            None => server,
        }
    }
}

/// Serves a run whose ledger is in this database together with all others that do, until an end is wanted. `tell` gives
/// the line that is said once it is ready.
pub async fn serve(
    mut setup: Setup,
    pages: Pages,
    url: DatabaseUrl,
    mut tell: impl FnMut(Began<'_>) -> String,
    wishes: &mut Wishes,
) -> Result<(), ProcessError> {
    let mut leadership = Leadership::of(url.clone());
    loop {
        let standing = tokio::select! {
            standing = stand(&mut leadership, &setup) => standing?,
            () = wishes.end() => return Ok(()),
        };
        if standing == Standing::Leads {
            let lock = leadership.lock();
            setup.ledger = Some(url.under(lock.clone()));
            let led = lead(&mut setup, &pages, &mut leadership, &mut tell, wishes).await?;
            if led == Led::Fenced && leadership.has_led_since(&lock).await {
                return Err(ProcessError::TakenOver);
            }
            leadership.let_go();
            if led == Led::Stopped {
                return Ok(());
            }
            (setup.say)("followed  another process leads now");
        } else {
            let door = opened(&setup.say, || Door::open(setup.clone(), Names::new(pages.names.clone()))).await?;
            // Whatever port it was given: its devices find it there when it leads, too.
            setup.listen = door.address().map_err(ServeError::Socket)?;
            setup.http = door.http_address().map_err(ServeError::Socket)?;
            let ready = tell(Began::Door(&door));
            if door.run(&mut leadership, ready, wishes.end()).await? == Ended::Stopped {
                return Ok(());
            }
        }
    }
}

/// How a time of leading ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Led {
    Stopped,
    Lost,
    Fenced,
}

async fn lead(
    setup: &mut Setup,
    pages: &Pages,
    leadership: &mut Leadership,
    tell: &mut impl FnMut(Began<'_>) -> String,
    wishes: &mut Wishes,
) -> Result<Led, ProcessError> {
    let (announce, address) = watch::channel(None);
    let mut lost = pin!(leadership.keep(address));
    let server = tokio::select! {
        server = opened(&setup.say, || Server::open(setup.clone())) => match server {
            // It lost the lock while it began.
            Err(error) if error.is_fenced() => return Ok(Led::Fenced),
            server => pages.of(server?),
        },
        () = &mut lost => return Ok(Led::Lost),
        () = wishes.end() => return Ok(Led::Stopped),
    };
    setup.listen = server.address().map_err(ServeError::Socket)?;
    setup.http = server.http_address().map_err(ServeError::Socket)?;
    let ready = tell(Began::Leads(&server));
    announce.send_replace(Some(setup.listen));
    // What is wished of this process is wished of the server, and its end besides, once it leads no longer.
    let (wish, mut its_wishes) = wishes_of();
    let mut is_lost = false;
    let ended = {
        let running = server.run(ready, &mut its_wishes);
        let mut running = pin!(running);
        loop {
            let wished = tokio::select! {
                ended = &mut running => break ended,
                () = &mut lost, if !is_lost => {
                    is_lost = true;
                    // At once: nothing that it has begun can be ended any more.
                    drop(wish.try_send(Wish::End));
                    Some(Wish::End)
                }
                wished = wishes.next(), if !is_lost => Some(wished.unwrap_or(Wish::End)),
            };
            // A full queue has an end in it already, or is asked for one by somebody who is in no hurry.
            wished.into_iter().for_each(|wished| drop(wish.try_send(wished)));
        }
    };
    if let Some(spec) = its_wishes.taken_over() {
        setup.spec = spec;
    }
    setup.start = None;
    match ended {
        Ok(()) if is_lost => Ok(Led::Lost),
        Ok(()) => Ok(Led::Stopped),
        Err(EndError::Shell(ShellError::Ledger(LedgerError::Fenced(_)))) => Ok(Led::Fenced),
        Err(EndError::Again(error)) if error.is_fenced() => Ok(Led::Fenced),
        Err(error) => Err(error.into()),
    }
}

async fn stand(leadership: &mut Leadership, setup: &Setup) -> Result<Standing, ServeError> {
    let begun = Instant::now();
    loop {
        match leadership.stand().await {
            Err(error) if error.may_pass() && begun.elapsed() < AWAY_MAX => {
                tracing::warn!(%error, "it cannot be seen who leads");
                (setup.say)(&format!("waiting   {error}"));
                sleep(AGAIN.max(begun.elapsed() / 4)).await;
            }
            stood => return Ok(stood?),
        }
    }
}

/// Opens on addresses that this process itself had a moment ago, and by a database that may go away at any moment.
async fn opened<T, F: Future<Output = Result<T, ServeError>>>(
    say: &Say,
    open: impl Fn() -> F,
) -> Result<T, ServeError> {
    let begun = Instant::now();
    loop {
        match open().await {
            Err(error) if error.is_in_use() && begun.elapsed() < IN_USE_MAX => sleep(AGAIN).await,
            Err(ServeError::Ledger(error)) if error.may_pass() && begun.elapsed() < AWAY_MAX => {
                say(&format!("waiting   {error}"));
                sleep(AGAIN.max(begun.elapsed() / 4)).await;
            }
            opened => return opened,
        }
    }
}
