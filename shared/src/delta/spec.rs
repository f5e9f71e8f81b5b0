//! `[delta]`: how a run's deltas are coded.

use super::CodecId;
use serde::{Deserialize, Serialize};

/// How a delta's values are coded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeltaSpec {
    /// The codec.
    pub codec: CodecId,
    /// With `sparse2`: how many of each 4096 values are sent.
    pub k: u32,
    /// Error feedback (SparseLoCo, arXiv 2508.15706): before a delta is encoded, the residual of earlier ones, times
    /// this, is added. 0: none; 1: all of it.
    pub feedback: f64,
    /// What becomes of a residual whose delta never counted, or that has grown old.
    pub residual: ResidualSpec,
}

impl Default for DeltaSpec {
    fn default() -> Self {
        DeltaSpec { codec: CodecId::Blocks4, k: 64, feedback: 1.0, residual: ResidualSpec::Keep }
    }
}

/// What becomes of a residual that is `tau` versions older than the weights of the lease it is to be added to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResidualSpec {
    /// It is kept as it is.
    #[default]
    Keep,
    /// It is multiplied by the staleness weight of its age.
    Decay,
    /// It is dropped where it is older than one version.
    Drop,
}
