//! `--blobs`: where a run's blobs are, for every command that reads them.

use super::Failure;
use clap::Args;
use nightjar_coordinator::store::BucketUrl;

/// Where the blobs are.
#[derive(Args, Default)]
pub struct BlobsFlag {
    /// Keep blobs and checkpoints in this S3 bucket: s3://BUCKET/PREFIX [default: where the state folder says; that
    /// folder for a new run]
    ///
    /// For another server than Amazon's: s3://BUCKET/PREFIX?endpoint=https://HOST:PORT&region=REGION. The state folder
    /// remembers the address. Keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and are never written down.
    // Text here, since an argument that cannot be read is shown as it was given, and a key with it.
    #[arg(long, value_name = "URL", env = "NIGHTJAR_BLOBS", hide_env_values = true)]
    blobs: Option<String>,
}

impl BlobsFlag {
    /// The bucket's address, where one was given.
    pub fn bucket(&self) -> Result<Option<BucketUrl>, Failure> {
        self.blobs.as_deref().map(str::parse).transpose().map_err(Failure::input)
    }
}
