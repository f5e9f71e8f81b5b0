//! Series, in a run whose `lease.pacing` says so: an operator gives weights, devices train from them for some rounds, and
//! what comes of it is fetched. The weights travel as f32, little-endian, tensor after tensor in the order of
//! `GET /api/v1/model`, without names.

use super::{
    Admin, ApiError, Fault, Sent,
    auth::{Operator, Viewer},
};
use crate::{
    engine::{
        merge::{self, Merger, given_bytes},
        orders::Order,
        series::{NAME_BYTES_MAX, ROUNDS_MAX, SeriesStatus},
    },
    store::{BlobError, Blobs},
};
use axum::{
    Json,
    body::Body,
    extract::{Path, State},
};
use futures_util::StreamExt;
use nightjar_shared::{blob::BlobRef, ids::BlobHash, model_spec::ModelSpec, run_spec::RunSpec};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::task::spawn_blocking;
use utoipa::ToSchema;

/// Bytes of weights that are written at once.
const PIECE_BYTES: usize = 1 << 20;

/// The model that a run trains.
#[derive(Serialize, ToSchema)]
pub(super) struct ModelAnswer {
    /// Values of all tensors together.
    parameters: u64,
    /// The tensors, in the order in which their values travel.
    tensors: Vec<TensorAnswer>,
}

/// One tensor.
#[derive(Serialize, ToSchema)]
pub(super) struct TensorAnswer {
    /// As Hugging Face names it.
    name: String,
    /// Its sizes; values lie row after row.
    shape: Vec<usize>,
}

/// Weights that are stored.
#[derive(Serialize, ToSchema)]
pub(super) struct WeightsAnswer {
    /// BLAKE3 of the bytes, in hexadecimal digits.
    hash: String,
    /// How many.
    bytes: u64,
}

/// A series to begin.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Beginning {
    /// What the operator calls it. Asked for again under the same name, it is not begun again.
    name: String,
    /// The weights, which were stored before.
    weights: String,
    /// Versions to be made of them; 0: they are only evaluated.
    rounds: u32,
}

/// A series to end.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Ending {
    /// What the operator called it.
    name: String,
}

/// The newest series.
#[derive(Serialize, ToSchema)]
pub(super) struct SeriesAnswer {
    /// Position among all series, from 1.
    number: u64,
    /// What the operator called it.
    name: String,
    /// The version that its weights became, or will.
    first_version: u64,
    /// Versions that are made of it.
    rounds: u32,
    /// Versions that were made so far; null while the first is not there.
    rounds_done: Option<u32>,
    /// Whether it is over: `GET /api/v1/series/weights` has what came of it.
    is_over: bool,
    /// Devices whose work counts in it so far.
    devices: u64,
    /// Samples that they trained on.
    samples: u64,
    /// Loss of their last steps, nats a token; null while there is none.
    train_loss: Option<f64>,
    /// Leases and deltas from other weights, which count for nothing.
    left_out: u64,
    /// Held-out loss of the newest version, nats a token, once an anchor node has measured it.
    loss: Option<f64>,
    /// Held-out samples that it was measured on.
    loss_samples: Option<u64>,
    /// Devices that are connected.
    connected: usize,
}

/// A disk that does not answer is no fault of whoever asks.
impl From<BlobError> for ApiError {
    fn from(error: BlobError) -> Self {
        tracing::warn!(%error, "an operator's call met the blobs");
        if error.may_pass() { ApiError::NotNow } else { ApiError::Internal(error.to_string()) }
    }
}

/// Work on files, on a thread for it.
async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    spawn_blocking(work).await.map_err(|died| ApiError::Internal(died.to_string()))
}

fn hash_of(text: &str) -> Result<BlobHash, ApiError> {
    text.parse().map_err(|_| ApiError::Wrong(format!("{text:?} is no BLAKE3 hash of 64 hexadecimal digits")))
}

impl Admin {
    fn spec(&self) -> &Arc<RunSpec> {
        &self.context.spec
    }

    /// What stands of the series at the moment.
    async fn series(&self) -> Result<SeriesAnswer, ApiError> {
        let status = self.context.handle.status().await?;
        let Some(SeriesStatus { record, rounds_done, is_over, through_seq }) = status.series else {
            return Err(ApiError::Missing("no series was begun in this run yet".into()));
        };
        let merged = self.context.ledger.merged(record.after_seq, through_seq).await?;
        // Of no version before: whoever gave weights asks for the loss of those.
        let measured = status.evaluation.filter(|e| Some(e.version) == status.version && e.version >= record.first);
        let of_sample = self.spec().tokens_per_sample();
        Ok(SeriesAnswer {
            number: record.number,
            name: record.name,
            first_version: record.first.0,
            rounds: record.rounds,
            rounds_done,
            is_over,
            devices: merged.devices,
            samples: merged.tokens / of_sample,
            train_loss: (merged.tokens > 0).then(|| merged.nats / merged.tokens as f64),
            left_out: record.left_out,
            loss: measured.as_ref().map(|e| e.nats / e.tokens.max(1) as f64),
            loss_samples: measured.as_ref().map(|e| e.tokens / of_sample),
            connected: self.context.present.len(),
        })
    }
}

/// Show the model
#[utoipa::path(get, path = "/api/v1/model", responses((status = 200, description = "The model.", body = ModelAnswer)))]
pub(super) async fn model(State(admin): State<Arc<Admin>>, Viewer(_): Viewer) -> Json<ModelAnswer> {
    let model = &admin.spec().model;
    let tensors = model.tensors().into_iter().map(|t| TensorAnswer { name: t.name, shape: t.shape });
    Json(ModelAnswer { parameters: model.parameters() as u64, tensors: tensors.collect() })
}

/// Store weights for a series
///
/// The body holds 4 bytes a parameter. They are kept once a series begins with them; those that none begins with are
/// cleared away when the coordinator starts.
#[utoipa::path(
    put,
    path = "/api/v1/weights/{hash}",
    params(("hash" = String, Path, description = "BLAKE3 of the body, in hexadecimal digits.")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "They are stored.", body = WeightsAnswer),
        (status = 400, body = Fault, description = "They are no weights of this run's model.")
    )
)]
pub(super) async fn store(
    State(admin): State<Arc<Admin>>,
    Operator(_): Operator,
    Path(hash): Path<String>,
    body: Body,
) -> Result<Json<WeightsAnswer>, ApiError> {
    let (hash, bytes) = (hash_of(&hash)?, given_bytes(&admin.spec().model));
    let answer = || Json(WeightsAnswer { hash: hash.to_string(), bytes });
    let blobs = admin.context.blobs.clone();
    // One at a time: each is as large as the model.
    let _alone = admin.weights.lock().await;
    if !admin.context.reserve.fits(bytes) {
        return Err(ApiError::Conflict("these weights would fill the coordinator's disk; free some space".into()));
    }
    let begun = blobs.clone();
    on_disk(move || begun.discard(hash)).await??;
    let (mut stream, mut at, mut piece) = (body.into_data_stream(), 0, vec![]);
    loop {
        let next = stream.next().await.transpose();
        let next = next.map_err(|error| ApiError::Wrong(format!("the weights broke off: {error}")))?;
        piece.extend_from_slice(next.as_deref().unwrap_or_default());
        let to = at + piece.len() as u64;
        if to > bytes {
            return Err(ApiError::Wrong(format!("weights of this run's model are {bytes} bytes long, 4 a parameter")));
        }
        if piece.len() >= PIECE_BYTES || next.is_none() {
            let (blobs, whole) = (blobs.clone(), std::mem::take(&mut piece));
            on_disk(move || blobs.append(hash, at, &whole)).await??;
            at = to;
        }
        if next.is_none() {
            break;
        }
    }
    let model = admin.spec().model.clone();
    on_disk(move || taken_in(&blobs, &model, BlobRef { hash, bytes })).await??;
    Ok(answer())
}

/// Ends an upload of weights: what is none for the model does not stay.
fn taken_in(blobs: &Blobs, model: &ModelSpec, given: BlobRef) -> Result<(), ApiError> {
    match blobs.finish(given.hash, given.bytes) {
        Err(BlobError::Corrupt(hash)) => {
            let why = format!("the body is not {} bytes of the hash {hash}; 4 bytes a parameter are", given.bytes);
            return Err(ApiError::Wrong(why));
        }
        finished => finished?,
    }
    if let Err(why) = merge::read_given(model, &blobs.read(given.hash)?) {
        blobs.remove(given.hash)?;
        return Err(ApiError::Wrong(why.to_string()));
    }
    Ok(())
}

/// Begin a series
///
/// One that is not over ends without an answer. What devices have on their way from other weights counts for nothing.
#[utoipa::path(
    post,
    path = "/api/v1/series/begin",
    request_body = Beginning,
    responses(
        (status = 200, description = "It has begun.", body = SeriesAnswer),
        (status = 404, body = Fault, description = "The weights are not stored."),
        (status = 409, body = Fault, description = "It cannot begin in this run, or now.")
    )
)]
pub(super) async fn begin(
    State(admin): State<Arc<Admin>>,
    Operator(caller): Operator,
    Sent(Beginning { name, weights, rounds }): Sent<Beginning>,
) -> Result<Json<SeriesAnswer>, ApiError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(char::is_control) {
        return Err(ApiError::Wrong(format!("a series' name is plain text of 1 to {NAME_BYTES_MAX} bytes")));
    }
    if rounds > ROUNDS_MAX {
        return Err(ApiError::Wrong(format!("a series has at most {ROUNDS_MAX} rounds")));
    }
    let weights = BlobRef { hash: hash_of(&weights)?, bytes: given_bytes(&admin.spec().model) };
    let blobs = admin.context.blobs.clone();
    if !on_disk(move || blobs.is_sound(weights.hash, weights.bytes)).await?? {
        return Err(ApiError::Missing(format!("no weights {} are stored; send them first", weights.hash)));
    }
    admin.order(Order::BeginSeries { name, weights, rounds }, &caller).await?;
    Ok(Json(admin.series().await?))
}

/// End the newest series with whatever is there
#[utoipa::path(
    post,
    path = "/api/v1/series/cut",
    request_body = Ending,
    responses(
        (status = 200, description = "It ends.", body = SeriesAnswer),
        (status = 404, body = Fault, description = "It is not the newest.")
    )
)]
pub(super) async fn cut(
    State(admin): State<Arc<Admin>>,
    Operator(caller): Operator,
    Sent(Ending { name }): Sent<Ending>,
) -> Result<Json<SeriesAnswer>, ApiError> {
    admin.order(Order::CutSeries { name }, &caller).await?;
    Ok(Json(admin.series().await?))
}

/// Show the newest series
#[utoipa::path(
    get,
    path = "/api/v1/series",
    responses(
        (status = 200, description = "The newest series.", body = SeriesAnswer),
        (status = 404, body = Fault, description = "None was begun.")
    )
)]
pub(super) async fn show(State(admin): State<Arc<Admin>>, Viewer(_): Viewer) -> Result<Json<SeriesAnswer>, ApiError> {
    Ok(Json(admin.series().await?))
}

/// Fetch what came of the newest series
///
/// The weights as they were given, to the bit, plus what its rounds made of them: 4 bytes a parameter.
#[utoipa::path(
    get,
    path = "/api/v1/series/weights",
    responses(
        (status = 200, content_type = "application/octet-stream", description = "The weights."),
        (status = 404, body = Fault, description = "None was begun, or what came of it is gone."),
        (status = 409, body = Fault, description = "It is not over.")
    )
)]
pub(super) async fn weights(State(admin): State<Arc<Admin>>, Viewer(_): Viewer) -> Result<Vec<u8>, ApiError> {
    let status = admin.context.handle.status().await?;
    let Some(series) = status.series else {
        return Err(ApiError::Missing("no series was begun in this run yet".into()));
    };
    if !series.is_over {
        return Err(ApiError::Conflict(format!("series {} is not over yet", series.record.number)));
    }
    let (blobs, spec, last) = (admin.context.blobs.clone(), admin.spec().clone(), series.record.last());
    let _alone = admin.weights.lock().await;
    let wanted = on_disk(move || -> Result<_, BlobError> {
        let merger = blobs.checkpoint(last.0)?.and_then(|bytes| Merger::restore((*spec).clone(), &bytes));
        Ok(merger.map(|merger| merger.wanted().iter().flat_map(|value| value.to_le_bytes()).collect()))
    });
    let gone = format!("the checkpoint of version {last}, which has what came of the series, is gone or damaged");
    wanted.await??.ok_or(ApiError::Missing(gone))
}
