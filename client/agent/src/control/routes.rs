//! The control API's routes. Reads that need only files are answered here; all else is asked of the event loop.

use super::{AgentStatus, Asked, Command, ControlFile, Tickets, auth, auth::Gate, listener::Caller, ticket};
use crate::{
    history,
    length::{self, LengthError},
    page,
    pause::PAUSE_MAX,
};
use axum::{
    Json, Router,
    extract::{ConnectInfo, DefaultBodyLimit, Query, State, rejection::JsonRejection},
    http::{StatusCode, header},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
    routing::{get, post},
};
use futures_util::stream;
use jiff::{Zoned, civil::Date};
use nightjar_shared::{disk::FolderDisk, wire::limits};
use serde::Deserialize;
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::sync::{mpsc, oneshot, watch};

/// Largest body that is taken: a preference with a long list of programs.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Nothing was done before.
const YEAR_MIN: i16 = 2000;
/// Lines of the log that are told where nobody says how many.
const LOG_LINES: usize = 200;

/// What the routes answer from.
#[derive(Clone)]
pub(super) struct ApiState {
    pub queue: mpsc::Sender<Asked>,
    pub news: Arc<watch::Sender<Option<Arc<AgentStatus>>>>,
    pub disk: Arc<FolderDisk>,
    pub tickets: Tickets,
    pub file: ControlFile,
}

pub(super) fn routes(state: ApiState, gate: Gate) -> Router {
    let api = Router::new()
        .route("/status", get(|State(state): State<ApiState>| state.command(Command::Status)))
        .route("/why", get(why))
        .route("/history", get(day))
        .route("/preferences", get(preferences).post(set_preference))
        .route("/pause", post(|State(d): State<ApiState>, Query(q): Query<Length>| d.command_for(q, Command::Pause)))
        .route("/run-now", post(|State(d): State<ApiState>, Query(q): Query<Length>| d.command_for(q, Command::RunNow)))
        .route("/resume", post(|State(state): State<ApiState>| state.command(Command::Resume)))
        .route("/retry", post(|State(state): State<ApiState>| state.command(Command::Retry)))
        .route("/join", post(join))
        .route("/leave", post(|State(state): State<ApiState>| state.command(Command::Leave)))
        .route("/shutdown", post(|State(state): State<ApiState>| state.command(Command::Shutdown)))
        .route("/ticket", post(issue))
        .route("/events", get(events))
        .route("/ledger", get(ledger))
        .route("/log", get(log))
        .layer(axum::middleware::from_fn_with_state(gate.clone(), auth::check));
    let entrance = Router::new()
        .route("/enter", post(enter))
        .layer(axum::middleware::from_fn_with_state(gate.clone(), auth::check_page));
    let page = page::routes().layer(axum::middleware::from_fn_with_state(gate, auth::check_host));
    api.merge(entrance).merge(page).layer(DefaultBodyLimit::max(BODY_BYTES_MAX)).with_state(state)
}

impl ApiState {
    async fn command(self, command: Command) -> Response {
        match self.ask(|reply| Asked::Do(command, reply)).await {
            Ok(status) => Json(status).into_response(),
            Err(busy) => busy,
        }
    }

    async fn command_for(self, length: Length, command: fn(Option<Duration>) -> Command) -> Response {
        match length.read() {
            Ok(length) => self.command(command(length)).await,
            Err(e) => refusal(&e),
        }
    }

    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Asked) -> Result<T, Response> {
        let busy = || (StatusCode::SERVICE_UNAVAILABLE, "the agent is busy; try again").into_response();
        let (reply, answered) = oneshot::channel();
        self.queue.try_send(question(reply)).map_err(|_| busy())?;
        answered.await.map_err(|_| busy())
    }
}

/// For how long; without either, until it is ended.
#[derive(Deserialize)]
struct Length {
    seconds: Option<String>,
    /// In the owner's words, as the command line takes them: `2h`, `until 7pm`.
    words: Option<String>,
}

/// A length that means nothing.
#[derive(Debug, thiserror::Error)]
enum QueryError {
    #[error("`seconds` is 0; without it, it lasts until it is ended")]
    Zero,
    #[error("`seconds` is `{0}`; it is a whole number from 1 on")]
    Seconds(String),
    #[error(transparent)]
    Length(#[from] LengthError),
}

impl Length {
    fn read(self) -> Result<Option<Duration>, QueryError> {
        match self {
            Length { seconds: Some(seconds), .. } => match seconds.parse() {
                Ok(0) => Err(QueryError::Zero),
                Ok(seconds) if Duration::from_secs(seconds) > PAUSE_MAX => Err(LengthError::TooLong.into()),
                Ok(seconds) => Ok(Some(Duration::from_secs(seconds))),
                Err(_) => Err(QueryError::Seconds(limits::tame(&seconds))),
            },
            Length { words: Some(words), .. } => Ok(length::parse(&words, &Zoned::now())?.map(|length| length.lasts)),
            Length { .. } => Ok(None),
        }
    }
}

/// What the owner asked for is refused in one line.
fn refusal(error: &impl std::error::Error) -> Response {
    (StatusCode::BAD_REQUEST, error.to_string()).into_response()
}

async fn why(State(state): State<ApiState>) -> Result<Response, Response> {
    let status = state.ask(|reply| Asked::Do(Command::Status, reply)).await?;
    Ok(Json(status.why).into_response())
}

#[derive(Deserialize)]
struct Day {
    day: Option<String>,
}

async fn day(State(state): State<ApiState>, Query(query): Query<Day>) -> Result<Response, Response> {
    let date: Option<Date> = query
        .day
        .map(|day| day.parse())
        .transpose()
        .map_err(|_| (StatusCode::BAD_REQUEST, "`day` is no date; write it like 2026-11-24").into_response())?;
    // The last days of the calendar have no morrow, and the first no day before.
    if date.is_some_and(|date| date > Zoned::now().date() || date.year() < YEAR_MIN) {
        return Err((StatusCode::BAD_REQUEST, "of that `day` there is nothing to tell").into_response());
    }
    Ok(Json(state.ask(|reply| Asked::Day(date, reply)).await?).into_response())
}

async fn preferences(State(state): State<ApiState>) -> Result<Response, Response> {
    Ok(Json(state.ask(Asked::Preferences).await?).into_response())
}

#[derive(Deserialize)]
struct NewValue {
    key: String,
    value: String,
}

/// A body as one expects it, or what it should be.
fn told<T>(body: Result<Json<T>, JsonRejection>, like: &str) -> Result<T, (StatusCode, String)> {
    let Json(told) = body.map_err(|e| (e.status(), format!("this is not understood; send JSON like {like}")))?;
    Ok(told)
}

async fn set_preference(
    State(state): State<ApiState>,
    new: Result<Json<NewValue>, JsonRejection>,
) -> Result<Response, Response> {
    let new = told(new, r#"{"key": "idle_minutes", "value": "5"}, with both as text"#)
        .map_err(IntoResponse::into_response)?;
    let rows = state.ask(|reply| Asked::Set { key: new.key.clone(), value: new.value, reply }).await?;
    let row = rows.map(|rows| rows.into_iter().find(|row| row.key == new.key));
    Ok(row.map_or_else(|e| refusal(&e), |row| Json(row).into_response()))
}

async fn issue(State(state): State<ApiState>) -> Response {
    match state.tickets.issue() {
        Ok(ticket) => ticket.into_response(),
        Err(e) => (StatusCode::SERVICE_UNAVAILABLE, e.to_string()).into_response(),
    }
}

/// Gives the token for a ticket.
async fn enter(
    State(state): State<ApiState>,
    ConnectInfo(Caller(client)): ConnectInfo<Caller>,
    shown: String,
) -> Response {
    // In this order: another user who has seen the ticket must not use it up.
    if ticket::is_of_this_user(client, state.file.address) == Some(true) && state.tickets.redeem(&shown) {
        state.file.token.into_response()
    } else {
        (StatusCode::FORBIDDEN, "this link has been used, or is too old").into_response()
    }
}

#[derive(Deserialize)]
struct Invitation {
    invite: String,
    name: Option<String>,
}

async fn join(
    State(state): State<ApiState>,
    said: Result<Json<Invitation>, JsonRejection>,
) -> Result<Response, Response> {
    let Invitation { invite, name } =
        told(said, r#"{"invite": "nightjar:..."}"#).map_err(IntoResponse::into_response)?;
    let joined = state.ask(|reply| Asked::Join { invite, name, reply }).await?;
    Ok(joined.map_or_else(|e| refusal(&e), |joined| Json(joined).into_response()))
}

/// Sends how the agent stands at once, and then whenever that has changed. The event loop sees to it that it is not too
/// often.
async fn events(State(state): State<ApiState>) -> Result<Response, Response> {
    let mut news = state.news.subscribe();
    news.mark_unchanged();
    let first = Arc::new(state.ask(|reply| Asked::Do(Command::Status, reply)).await?);
    let told = stream::unfold((Some(first), news), |(first, mut news)| async move {
        let status = match first {
            Some(status) => status,
            None => loop {
                news.changed().await.ok()?;
                if let Some(status) = news.borrow_and_update().clone() {
                    break status;
                }
            },
        };
        let event = Event::default().json_data(&*status).unwrap_or_else(|_| Event::default().comment("not told"));
        Some((Ok::<_, Infallible>(event), (None, news)))
    });
    Ok(Sse::new(told).keep_alive(KeepAlive::default()).into_response())
}

async fn ledger(State(state): State<ApiState>) -> Response {
    Json(history::deliveries(&*state.disk)).into_response()
}

#[derive(Deserialize)]
struct Lines {
    lines: Option<usize>,
}

async fn log(State(state): State<ApiState>, Query(query): Query<Lines>) -> Response {
    let lines = history::log_lines(&*state.disk, query.lines.unwrap_or(LOG_LINES));
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], lines.join("\n")).into_response()
}
