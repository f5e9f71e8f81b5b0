//! A cohort's coordinator, by its HTTP API: weights go there, a series of rounds follows, and what comes of it comes back.

use crate::{http, job::Model};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;
use ureq::Agent;

/// Answers that hold no weights.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A request that came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// Nobody answered, or the coordinator is busy.
    #[error("the coordinator at {address} does not answer: {why}")]
    Unreachable {
        /// Where.
        address: String,
        /// What was seen.
        why: String,
    },
    /// It answered that it will not.
    #[error("the coordinator at {address} refuses {what} ({status}): {words}")]
    Refused {
        /// Where.
        address: String,
        /// What was asked.
        what: &'static str,
        /// As HTTP has it.
        status: u16,
        /// As it says itself.
        words: String,
    },
    /// The answer is none of this API.
    #[error("the coordinator at {address} answers {what} with what is no answer: is it of the same version?")]
    Nonsense {
        /// Where.
        address: String,
        /// What was asked.
        what: &'static str,
    },
}

impl FleetError {
    /// Whether asking again may help.
    pub fn may_pass(&self) -> bool {
        matches!(self, FleetError::Unreachable { .. })
    }

    /// Whether there is no such thing.
    pub fn is_missing(&self) -> bool {
        matches!(self, FleetError::Refused { status: 404, .. })
    }
}

/// A series, as the coordinator tells it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Series {
    /// As this program calls it.
    pub name: String,
    /// Rounds that are made of it.
    pub rounds: u32,
    /// Rounds that were made; `None` before devices can begin.
    pub rounds_done: Option<u32>,
    /// Whether its weights can be fetched.
    pub is_over: bool,
    /// Volunteers whose work counts.
    pub devices: u64,
    /// Samples that they trained on.
    pub samples: u64,
    /// Nats a token.
    pub train_loss: Option<f64>,
    /// Leases and deltas from other weights.
    pub left_out: u64,
    /// Held-out, nats a token.
    pub loss: Option<f64>,
    /// Samples that it was measured on.
    pub loss_samples: Option<u64>,
    /// Devices that are connected.
    pub connected: u64,
}

#[derive(Deserialize)]
struct Fault {
    error: String,
}

/// A way to a coordinator.
pub struct Fleet {
    agent: Agent,
    address: String,
    token: String,
}

impl Fleet {
    /// With an operator's token.
    pub fn new(agent: Agent, address: &str, token: &str) -> Self {
        let address = address.trim_end_matches('/').to_owned();
        Fleet { agent, address, token: token.trim().to_owned() }
    }

    fn answered(
        &self,
        what: &'static str,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
        most: usize,
    ) -> Result<Vec<u8>, FleetError> {
        let unreachable = |why: String| FleetError::Unreachable { address: self.address.clone(), why };
        let answer = answer.map_err(|error| unreachable(error.to_string()))?;
        let status = answer.status().as_u16();
        let body = http::body(answer, most).map_err(|error| unreachable(error.to_string()))?;
        if status == 200 {
            return Ok(body);
        }
        let words = serde_json::from_slice(&body).map_or_else(|_| http::words(&body), |Fault { error }| error);
        Err(match status {
            429 | 503 => unreachable(words),
            _ => FleetError::Refused { address: self.address.clone(), what, status, words },
        })
    }

    fn at(&self, path: &str) -> String {
        format!("{}/api/v1/{path}", self.address)
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }

    fn read<T: DeserializeOwned>(&self, what: &'static str, body: &[u8]) -> Result<T, FleetError> {
        serde_json::from_slice(body).map_err(|_| FleetError::Nonsense { address: self.address.clone(), what })
    }

    fn get(&self, what: &'static str, most: usize) -> Result<Vec<u8>, FleetError> {
        let answer = self.agent.get(self.at(what)).header("authorization", self.bearer()).call();
        self.answered(what, answer, most)
    }

    fn post(&self, what: &'static str, body: &serde_json::Value) -> Result<Series, FleetError> {
        let asked = self.agent.post(self.at(what)).header("authorization", self.bearer());
        let answer = asked.header("content-type", "application/json").send(body.to_string());
        self.read(what, &self.answered(what, answer, ANSWER_BYTES_MAX)?)
    }

    /// The model that the cohort trains.
    pub fn model(&self) -> Result<Model, FleetError> {
        self.read("model", &self.get("model", ANSWER_BYTES_MAX)?)
    }

    /// Stores weights, and gives their name.
    pub fn store(&self, flat: &[f32]) -> Result<String, FleetError> {
        let bytes: Vec<u8> = flat.iter().flat_map(|value| value.to_le_bytes()).collect();
        let name = blake3::hash(&bytes).to_hex().to_string();
        let asked = self.agent.put(self.at(&format!("weights/{name}"))).header("authorization", self.bearer());
        let answer = asked.header("content-type", "application/octet-stream").send(&bytes);
        self.answered("weights", answer, ANSWER_BYTES_MAX)?;
        Ok(name)
    }

    /// Begins a series, once under its name.
    pub fn begin(&self, name: &str, weights: &str, rounds: u32) -> Result<Series, FleetError> {
        self.post("series/begin", &json!({"name": name, "weights": weights, "rounds": rounds}))
    }

    /// Ends the series with whatever is there.
    pub fn cut(&self, name: &str) -> Result<Series, FleetError> {
        self.post("series/cut", &json!({"name": name}))
    }

    /// The newest series.
    pub fn series(&self) -> Result<Series, FleetError> {
        self.read("series", &self.get("series", ANSWER_BYTES_MAX)?)
    }

    /// What came of the newest series.
    pub fn weights(&self, model: &Model) -> Result<Vec<f32>, FleetError> {
        let expected = usize::try_from(model.parameters).unwrap_or(usize::MAX).saturating_mul(4);
        let bytes = self.get("series/weights", expected)?;
        if bytes.len() != expected {
            return Err(FleetError::Nonsense { address: self.address.clone(), what: "series/weights" });
        }
        Ok(bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect())
    }
}
