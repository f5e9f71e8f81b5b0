//! The chain of checkpoints, held against the ledger's rows and the checkpoints that are there.

use crate::store::{Blobs, Lineage, Link, keeping::chain::Rows};
use nightjar_shared::ids::BlobHash;
use std::ops::Range;

/// Every link follows from the one before, from the rows between them, and names the checkpoint that is there.
pub(super) fn chained(lineage: &Lineage, links: &[Link], blobs: &Blobs) -> Result<String, String> {
    let mut before: Option<&Link> = None;
    for link in links {
        let wrong = |why: &str| format!("the link of version {}: {why}", link.version);
        let at = lineage.place(link.version).ok_or_else(|| wrong("the ledger has no row of it"))?;
        let from = before.map_or(0, |before| lineage.versions.partition_point(|v| v.version <= before.version));
        let again = Link::after(before, &lineage.versions[at], link.checkpoint, rows(lineage, before, from..at + 1));
        if (again.rows, again.through_seq, again.tokens) != (link.rows, link.through_seq, link.tokens) {
            let first = before.map_or(0, |before| before.through_seq) + 1;
            return Err(wrong(&format!(
                "the rows of versions {} to {}, or of deltas {first} to {}, are not those that it was made of",
                lineage.versions.get(from).map_or(link.version, |v| v.version),
                link.version,
                link.through_seq
            )));
        }
        if again.hash != link.hash {
            return Err(wrong("it does not follow from the one before"));
        }
        before = Some(link);
    }
    checkpoints(lineage, links, blobs)?;
    let Some(last) = links.last() else { return Ok("it has no link yet".into()) };
    let hash = BlobHash(last.hash);
    Ok(format!("{} links, {} tokens up to version {}, whose link is {hash}", links.len(), last.tokens, last.version))
}

/// The rows between two links: of these versions, and of their deltas.
fn rows(lineage: &Lineage, before: Option<&Link>, versions: Range<usize>) -> Rows {
    let versions = &lineage.versions[versions];
    let Some(last) = versions.last() else { return Rows::default() };
    let mut rows = Rows::default();
    let after = before.map_or(0, |before| before.through_seq);
    let deltas = lineage.deltas[lineage.deltas.partition_point(|d| d.seq <= after)..].iter();
    deltas.take_while(|d| d.seq <= last.through_seq).for_each(|d| rows.delta(d));
    versions.iter().for_each(|v| rows.version(v));
    rows.losses(before, last, &lineage.restarts, &lineage.lost_deltas);
    rows
}

/// The checkpoints that are there have the bytes that the chain names. The newest is compared with the replay, too.
fn checkpoints(lineage: &Lineage, links: &[Link], blobs: &Blobs) -> Result<(), String> {
    for number in blobs.checkpoints().map_err(|e| e.to_string())? {
        let Ok(at) = links.binary_search_by_key(&number, |link| link.version.0) else { continue };
        // Where merging began anew after the link was made, the checkpoint is another.
        if lineage.restarts.binary_search(&links[at].version).is_ok() {
            continue;
        }
        let bytes = blobs.checkpoint(number).map_err(|e| e.to_string())?;
        if bytes.is_some_and(|bytes| BlobHash::of(&bytes) != links[at].checkpoint) {
            return Err(format!("the checkpoint of version {number} has other bytes than the chain names"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
