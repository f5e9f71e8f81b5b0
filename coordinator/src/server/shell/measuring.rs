//! Measuring deltas beside the event loop: each takes a core, and its blob's length in memory.

use super::{RETRY, Shell};
use crate::{
    engine::event::{Event, ReplyTo},
    store::{BlobError, Measure},
};
use nightjar_shared::{
    ids::DeviceId,
    lease::Offer,
    wire::{Refusal, RefusalCode, UploadFrom, coordinator_message as answer},
};
use std::{sync::Arc, thread::available_parallelism};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Deltas measured at once on each core: one is read while another is decoded.
const A_CORE: usize = 2;
/// Memory for deltas that are being measured.
const BYTES_MAX: usize = 256 << 20;
/// It is counted in units of so many bytes.
const UNIT_BYTES: usize = 64 << 10;

/// Places for those that are measured: by cores, and by memory.
#[derive(Clone)]
pub(super) struct Places {
    cores: Arc<Semaphore>,
    memory: Arc<Semaphore>,
}

impl Default for Places {
    fn default() -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        Places { cores: Semaphore::new(A_CORE * cores).into(), memory: Semaphore::new(BYTES_MAX / UNIT_BYTES).into() }
    }
}

impl Places {
    /// A place for a delta of this length. One that is longer than all of the memory for them is measured alone.
    async fn take(&self, bytes: u64) -> [Option<OwnedSemaphorePermit>; 2] {
        let units = (bytes.div_ceil(UNIT_BYTES as u64)).min((BYTES_MAX / UNIT_BYTES) as u64) as u32;
        // Neither is ever closed. Memory comes first: who waits for it keeps no core from others.
        let memory = self.memory.clone().acquire_many_owned(units).await;
        [memory.ok(), self.cores.clone().acquire_owned().await.ok()]
    }
}

/// A delta that was measured, or could not be.
pub(super) struct Measurement {
    to: ReplyTo,
    device: DeviceId,
    offer: Offer,
    result: Result<Measure, BlobError>,
}

impl Shell {
    pub(super) fn measure(&self, to: ReplyTo, device: DeviceId, offer: Offer) {
        let (blobs, spec) = (self.parts.blobs.clone(), self.parts.spec.clone());
        let delta = offer.trained.delta;
        // What a version was published as is nobody's delta, and is not read, nor removed, as one.
        let is_ours = self.parts.knowledge.catalog.get(delta.hash).is_some();
        self.parts.knowledge.uploads.offered(offer.lease, delta.hash);
        self.parts.traces.screens(offer.lease);
        let (places, measurements) = (self.measuring.clone(), self.measurements.clone());
        tokio::spawn(async move {
            let _places = places.take(delta.bytes).await;
            let measuring = tokio::task::spawn_blocking(move || {
                let result = match is_ours {
                    true => Ok(Measure::Done(Err("The offer names a blob of the coordinator's own.".into()))),
                    false => blobs.measure(&spec, delta),
                };
                Measurement { to, device, offer, result }
            });
            match measuring.await {
                // Fails only where the loop has ended.
                Ok(measurement) => drop(measurements.send(measurement).await),
                Err(panic) => tracing::error!(%panic, "measuring a delta failed"),
            }
        });
    }

    pub(super) fn measured(&mut self, Measurement { to, device, offer, result }: Measurement) {
        match result {
            Ok(Measure::Done(measured)) => self.decide(Event::DeltaMeasured { reply_to: to, device, offer, measured }),
            Ok(Measure::Missing { have }) => self.reply(to, answer::Body::Upload(UploadFrom { offset: have })),
            Err(error) => {
                tracing::error!(lease = offer.lease.0, device = device.short(), %error, "a delta could not be measured");
                let refusal = Refusal::retry(RefusalCode::Internal, "The coordinator could not read the delta.", RETRY);
                self.reply(to, answer::Body::Refusal(refusal));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn memory_bounds_what_is_measured_at_once() {
        let places = Places { cores: Semaphore::new(8).into(), ..Places::default() };
        let small = places.take(1).await;
        let mut whole = Box::pin(places.take(u64::MAX));
        assert!(at_once(&mut whole).await.is_none(), "a small one is being measured");
        drop(small);
        let whole = whole.await;
        assert_eq!(places.memory.available_permits(), 0);
        assert!(at_once(Box::pin(places.take(1))).await.is_none(), "the largest is measured alone");
        assert_eq!(places.cores.available_permits(), 7, "who waits for memory keeps no core from others");
        drop(whole);
        places.take(1).await;
    }

    /// What comes at once, if it does.
    async fn at_once<T>(work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = std::future::ready(()) => None,
        }
    }
}
