//! Objects that somebody else put into a bucket, to read.

use super::{BadBucket, BucketUrl, COMMAND_PATIENCE, Requests, missing, requests};
use crate::dataset::Objects;
use nightjar_shared::disk::Found;
use std::{io, sync::Arc};

/// See the module.
struct Inputs(Requests);

/// Opens the objects below an address, `s3://BUCKET/PREFIX`, with keys from the environment.
pub fn open_inputs(address: &str) -> io::Result<Arc<dyn Objects>> {
    let url: BucketUrl = address.parse().map_err(|bad: BadBucket| io::Error::new(io::ErrorKind::InvalidInput, bad))?;
    Ok(Arc::new(Inputs(requests(&url, COMMAND_PATIENCE)?)))
}

impl Objects for Inputs {
    fn list(&self) -> io::Result<Vec<Found>> {
        let mut found = self.0.list("", usize::MAX)?;
        if found.is_empty() {
            found.extend(self.0.look("")?);
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.0.get(name, offset, length)?.ok_or_else(missing)
    }
}
