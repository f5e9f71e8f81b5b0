//! What is kept of a run, in memory.

use super::{MemoryLedger, open_leases};
use crate::{
    engine::record::{DeltaRecord, VersionRecord},
    store::{
        Keeping, Kept, LedgerError, Lineage, Link, Point, Span, Standing, Weight,
        ledger::{Answer, integer},
    },
};
use nightjar_shared::ids::{BlobHash, Version};
use std::{collections::BTreeSet, future::ready};

impl MemoryLedger {
    fn note_given_up(&self, first_version: Version, after_seq: u64) -> Result<(), LedgerError> {
        integer("kept.first_version", first_version.0)?;
        integer("kept.after_seq", after_seq)?;
        let mut state = self.to_write()?;
        let last_lease = state.facts.leases.last().map(|l| l.lease.id).unwrap_or_default();
        let kept = &mut state.facts.lineage.kept;
        if kept.first_version < first_version {
            (kept.first_version, kept.last_lease) = (first_version, last_lease);
        }
        kept.after_seq = kept.after_seq.max(after_seq);
        Ok(())
    }

    fn note_gone(&self, before: Version, through_seq: u64) -> Result<(), LedgerError> {
        let mut state = self.to_write()?;
        let kept = &mut state.facts.lineage.kept;
        if before > kept.first_version || through_seq > kept.after_seq {
            return Err(LedgerError::Contradiction("something is removed that was not given up".into()));
        }
        kept.removed_versions = kept.removed_versions.max(before);
        kept.removed_deltas = kept.removed_deltas.max(through_seq);
        Ok(())
    }

    fn lengthen(&self, link: &Link) -> Result<(), LedgerError> {
        let mut state = self.to_write()?;
        let is_there = state.facts.links.iter().any(|known| known.version == link.version);
        if is_there || state.facts.lineage.place(link.version).is_none() {
            return Err(LedgerError::Contradiction(format!("a link of version {}", link.version)));
        }
        let links = &mut state.facts.links;
        links.insert(links.partition_point(|known| known.version < link.version), *link);
        Ok(())
    }

    fn stands(&self) -> Standing {
        let state = self.state();
        let Lineage { versions, deltas, kept, .. } = &state.facts.lineage;
        Standing {
            kept: *kept,
            newest: versions.last().map(|v| v.version),
            last_seq: deltas.last().map_or(0, |d| d.seq),
            oldest_base: open_leases(&state.facts).map(|l| l.base_version).min(),
            oldest_lease: open_leases(&state.facts).map(|l| l.id).min(),
            last_link: state.facts.links.last().copied(),
        }
    }

    fn weigh(&self, span: Span) -> Weight {
        let state = self.state();
        let mut weight = Weight::default();
        for v in state.facts.lineage.versions.iter().filter(|v| (span.from..span.before).contains(&v.version)) {
            let stays = span.milestone_every > 0 && v.version.0.is_multiple_of(span.milestone_every);
            let keyframe = v.keyframe.filter(|_| stays).map_or(0, |blob| blob.bytes);
            weight.versions += 1;
            weight.version_bytes += v.blobs().map(|blob| blob.bytes).sum::<u64>() - keyframe;
        }
        let deltas = &state.facts.lineage.deltas;
        for d in deltas.iter().filter(|d| (span.after_seq + 1..=span.through_seq).contains(&d.seq)) {
            weight.deltas += 1;
            weight.delta_bytes += d.blob.bytes;
        }
        weight
    }
}

impl Keeping for MemoryLedger {
    fn kept(&self) -> Answer<'_, Kept> {
        Box::pin(ready(Ok(self.state().facts.lineage.kept)))
    }

    fn standing(&self) -> Answer<'_, Standing> {
        Box::pin(ready(Ok(self.stands())))
    }

    fn give_up(&self, first_version: Version, after_seq: u64) -> Answer<'_, ()> {
        Box::pin(ready(self.note_given_up(first_version, after_seq)))
    }

    fn note_removed(&self, before: Version, through_seq: u64) -> Answer<'_, ()> {
        Box::pin(ready(self.note_gone(before, through_seq)))
    }

    fn add_link<'a>(&'a self, link: &'a Link) -> Answer<'a, ()> {
        Box::pin(ready(self.lengthen(link)))
    }

    fn links(&self, from: Version, most: usize) -> Answer<'_, Vec<Link>> {
        let links = self.state().facts.links.iter().filter(|link| link.version >= from).take(most).copied().collect();
        Box::pin(ready(Ok(links)))
    }

    fn versions_from(&self, from: Version, most: usize) -> Answer<'_, Vec<VersionRecord>> {
        let state = self.state();
        let page = state.facts.lineage.versions.iter().filter(|v| v.version >= from).take(most).cloned().collect();
        Box::pin(ready(Ok(page)))
    }

    fn keyframe_upto(&self, upto: Version) -> Answer<'_, Option<Point>> {
        let state = self.state();
        let newest = state.facts.lineage.versions.iter().rfind(|v| v.version <= upto && v.keyframe.is_some());
        let point = newest.map(|v| {
            let VersionRecord { version, through_seq, published_at, .. } = *v;
            Point { version, through_seq, published_at }
        });
        Box::pin(ready(Ok(point)))
    }

    fn deltas_after(&self, seq: u64, most: usize) -> Answer<'_, Vec<DeltaRecord>> {
        let state = self.state();
        let page = state.facts.lineage.deltas.iter().filter(|d| d.seq > seq).take(most).cloned().collect();
        Box::pin(ready(Ok(page)))
    }

    fn named_after(&self, seq: u64, blobs: BTreeSet<BlobHash>) -> Answer<'_, BTreeSet<BlobHash>> {
        let state = self.state();
        let after = state.facts.lineage.deltas.iter().filter(|d| d.seq > seq).map(|d| d.blob.hash);
        Box::pin(ready(Ok(after.filter(|hash| blobs.contains(hash)).collect())))
    }

    fn given_from(&self, from: Version, blobs: BTreeSet<BlobHash>) -> Answer<'_, BTreeSet<BlobHash>> {
        let state = self.state();
        let later = state.facts.lineage.versions.iter().filter(|v| v.version >= from);
        let given = later.filter_map(|v| v.given.map(|blob| blob.hash));
        Box::pin(ready(Ok(given.filter(|hash| blobs.contains(hash)).collect())))
    }

    fn losses(&self) -> Answer<'_, (Vec<Version>, Vec<u64>)> {
        let Lineage { restarts, lost_deltas, .. } = &self.state().facts.lineage;
        Box::pin(ready(Ok((restarts.clone(), lost_deltas.clone()))))
    }

    fn weight(&self, span: Span) -> Answer<'_, Weight> {
        Box::pin(ready(Ok(self.weigh(span))))
    }
}
