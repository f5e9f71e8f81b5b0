//! Files of uploads that nobody wants any more, removed beside the event loop.

use super::Shell;
use crate::server::{
    transfer::{blocking, clear},
    uploads::Rubbish,
};

impl Shell {
    /// Removes what no lease wants any more.
    pub(super) fn clear_away(&self, rubbish: Rubbish) {
        let (blobs, files, uploads) =
            (self.parts.blobs.clone(), self.parts.files.clone(), self.parts.knowledge.uploads.clone());
        tokio::spawn(async move {
            let removed = blocking(&files, move || clear(&uploads, &blobs, rubbish));
            if let Ok(Err(error)) = removed.await {
                tracing::warn!(%error, "what a lease left behind could not be removed");
            }
        });
    }

    /// Removes uploads that have belonged to no lease for long.
    pub(super) fn sweep_strays(&self) {
        let (blobs, files, uploads) =
            (self.parts.blobs.clone(), self.parts.files.clone(), self.parts.knowledge.uploads.clone());
        tokio::spawn(async move {
            let swept = blocking(&files, move || {
                let strays = uploads.strays(blobs.list_incoming()?.into_iter());
                strays.into_iter().try_for_each(|hash| blobs.discard(hash))
            });
            if let Ok(Err(error)) = swept.await {
                tracing::warn!(%error, "old uploads could not be removed");
            }
        });
    }
}
