//! What a coordinator is to serve, and why it cannot.

use super::{
    http::HttpError,
    limits::Limit,
    public::PageFiles,
    quic::EndpointError,
    state::StateError,
    traces::Spans,
    track::{self, TrackError},
    trouble::Say,
};
use crate::{
    dataset::Dataset,
    engine::Mismatch,
    export::Companions,
    identity::IdentityError,
    replay::ReplayError,
    store::{BlobError, BucketUrl, DatabaseUrl, LedgerError, bucket::ClaimError},
};
use nightjar_shared::run_spec::RunSpec;
use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

/// What to serve.
#[derive(Clone)]
pub struct Setup {
    /// The run.
    pub spec: RunSpec,
    /// What it trains on.
    pub dataset: Dataset,
    /// Where its state is.
    pub state: PathBuf,
    /// The database that its ledger is in; `None`: where the state folder says, a file of its own for a new run.
    pub ledger: Option<DatabaseUrl>,
    /// The bucket that its blobs are in; `None`: where the state folder says, that folder for a new run.
    pub blobs: Option<BucketUrl>,
    /// Where devices connect (UDP).
    pub listen: SocketAddr,
    /// Whether browsers may connect there, too.
    pub web: bool,
    /// The page that makes them devices, where the public page is to have it.
    pub page: Option<Arc<PageFiles>>,
    /// Where the status page is (TCP, loopback).
    pub http: SocketAddr,
    /// What version 0 is; `None` draws it from the run spec. Not used once the run has begun.
    pub start: Option<Start>,
    /// Where lines for the person at the terminal go.
    pub say: Say,
    /// Limits that are otherwise than their defaults.
    pub limits: Vec<Limit>,
    /// Takes what traces are made of, where anybody wants them.
    pub spans: Option<Arc<dyn Spans>>,
    /// Where it is written down how the run goes.
    pub track: track::Places,
}

/// A model that a run starts from.
#[derive(Clone)]
pub struct Start {
    /// Its weights as one flat vector.
    pub weights: Vec<f32>,
    /// What is given back with an export.
    pub companions: Companions,
}

/// A run that cannot be served. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The dataset is not for this run.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// The state folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// The key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The UDP socket.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The TCP socket.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// Either socket has no address.
    #[error("a socket cannot be used: {0}")]
    Socket(#[source] io::Error),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The way back to the ledger's tip.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The blobs.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The bucket is not this run's.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// Where it is written down how the run goes.
    #[error(transparent)]
    Track(#[from] TrackError),
    /// The dataset's folder.
    #[error("the dataset cannot be read: {0}")]
    Dataset(#[source] io::Error),
    /// What belongs to the model that it starts from.
    #[error("what belongs to the model that the run starts from cannot be kept in the state folder: {0}")]
    Companions(#[source] io::Error),
    /// The ledger knows the spare as the key already.
    #[error("a change of the run's key was cut short: run `nightjar-coordinator key rotate` again, then start this")]
    RotationCutShort,
    /// A thread died.
    #[error("the start failed: {0}")]
    Thread(#[from] tokio::task::JoinError),
    /// A door without the run's key.
    #[error(
        "another process leads this run, and the state folder has no key to answer its devices with: copy the files \
         of that process's state folder, but for its reserve and incoming, to this one"
    )]
    NoKeyYet,
}

impl ServeError {
    /// Whether an address is taken; perhaps by what this process itself has just closed.
    pub fn is_in_use(&self) -> bool {
        matches!(self, ServeError::Endpoint(EndpointError::InUse { .. }) | ServeError::Http(HttpError::InUse(_)))
    }

    /// Whether another process leads, or may.
    pub fn is_fenced(&self) -> bool {
        matches!(self, ServeError::Ledger(LedgerError::Fenced(_)))
    }
}
