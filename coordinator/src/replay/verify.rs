//! That a ledger and its blobs hold together: what must be true of the facts, of every blob, and of the replay from
//! version 0, or from the oldest checkpoint that the rule `[keep]` left. For what is before it stands the chain.

use super::{advance, at_checkpoint, before, chain::chained, from_first, has_deltas_since, merge_through, rows::Rows};
use crate::{
    engine::{
        merge::Merger,
        record::{Squash, VersionRecord},
    },
    store::{Blobs, Facts, Lineage, Link},
};
use nightjar_shared::{
    blob::BlobRef,
    ids::{BlobHash, Version},
    run_spec::RunSpec,
    shard::Manifest,
    version::update,
};
use std::collections::BTreeMap;

/// What [`verify`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// In the order in which they were made.
    pub checks: Vec<Check>,
}

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What must hold.
    pub name: &'static str,
    /// Whether it does.
    pub passed: bool,
    /// What was counted, or what is wrong.
    pub detail: String,
}

impl Check {
    /// Of what must hold: what was counted, or what is wrong.
    pub fn of(name: &'static str, result: Result<String, String>) -> Self {
        Check { name, passed: result.is_ok(), detail: result.unwrap_or_else(|why| why) }
    }
}

impl Report {
    /// Whether everything holds.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|c| c.passed)
    }
}

/// Checks the invariants of a ledger and its blobs, and of its chain of checkpoints; and replays what is kept.
pub fn verify(spec: &RunSpec, manifest: &Manifest, facts: &Facts, blobs: &Blobs) -> Report {
    let rows = rows_of(spec, manifest, facts);
    let set_aside = rows.set_aside();
    let mut checks = rows.checks();
    checks.extend(verify_blobs(spec, &facts.lineage, &facts.links, blobs));
    checks.push(set_aside);
    Report { checks }
}

/// Checks what can be checked without reading a blob.
pub fn verify_facts(spec: &RunSpec, manifest: &Manifest, facts: &Facts) -> Report {
    Report { checks: rows_of(spec, manifest, facts).checks() }
}

fn rows_of<'r>(spec: &'r RunSpec, manifest: &'r Manifest, facts: &Facts) -> Rows<'r> {
    let mut rows = Rows::new(spec, manifest);
    let mut facts = facts.clone();
    facts.lineage.deltas.sort_by_key(|delta| delta.lease);
    rows.take(&facts);
    rows
}

/// Checks all blobs that a ledger names and keeps, replays it, and follows its chain of checkpoints.
pub fn verify_blobs(spec: &RunSpec, lineage: &Lineage, links: &[Link], blobs: &Blobs) -> [Check; 4] {
    [
        Check::of("every blob is there and whole", all_blobs(lineage, blobs)),
        Check::of("replaying the ledger gives the same versions", replayed(spec, lineage, links, blobs)),
        Check::of("every squash is the sum of its updates", squashes(spec, lineage, blobs)),
        Check::of("the chain of checkpoints fits the ledger's rows", chained(lineage, links, blobs)),
    ]
}

/// All that are wrong are named, each with what it is. What is given up is not looked for.
fn all_blobs(lineage: &Lineage, blobs: &Blobs) -> Result<String, String> {
    let Lineage { versions, deltas, kept, .. } = lineage;
    let mut named: BTreeMap<BlobHash, (u64, String)> = BTreeMap::new();
    let mut name = |blob: BlobRef, what: String| drop(named.insert(blob.hash, (blob.bytes, what)));
    for d in deltas.iter().filter(|d| d.seq > kept.after_seq) {
        name(d.blob, format!("delta {} of lease {}", d.seq, d.lease));
    }
    for v in versions.iter().filter(|v| v.version >= kept.first_version) {
        for (blob, what) in [(v.update, "update"), (v.keyframe, "keyframe"), (v.given, "given weights")] {
            blob.into_iter().for_each(|blob| name(blob, format!("the {what} of version {}", v.version)));
        }
        for Squash { from, blob } in &v.squashes {
            name(*blob, format!("the squash from version {from} to {}", v.version));
        }
    }
    let (mut total, mut wrong) = (0, vec![]);
    for (hash, (bytes, what)) in &named {
        match blobs.read(*hash) {
            Ok(stored) if stored.len() as u64 == *bytes => total += bytes,
            Ok(stored) => {
                wrong.push(format!("blob {hash} has {} bytes, the ledger says {bytes} ({what})", stored.len()))
            }
            Err(error) => wrong.push(format!("{error} ({what})")),
        }
    }
    if wrong.is_empty() {
        let gone = match (kept.first_version.0, kept.after_seq) {
            (0, 0) => String::new(),
            (versions, deltas) => {
                format!("; those of {versions} versions and {deltas} deltas before are given up by the rule [keep]")
            }
        };
        return Ok(format!("{} blobs, {total} bytes{gone}", named.len()));
    }
    Err(format!("{} of {} are not: {}", wrong.len(), named.len(), wrong.join("; ")))
}

/// Invariant 6: replaying gives every version's bits again, and the bytes of every checkpoint. Behind a fault it goes on
/// where the next checkpoint or restart allows, so that a later one is found, too.
fn replayed(spec: &RunSpec, lineage: &Lineage, links: &[Link], blobs: &Blobs) -> Result<String, String> {
    let Some(first) = lineage.versions.first() else { return Ok("nothing is published yet".into()) };
    let text = |e: &dyn std::error::Error| e.to_string();
    let checkpoints = blobs.checkpoints().map_err(|e| text(&e))?;
    // A checkpoint may be newer than the ledger: written, and then its version was never committed.
    let newest = checkpoints.iter().copied().find(|v| lineage.place(Version(*v)).is_some());
    let (mut wrong, mut merger) = (vec![], None);
    let begin = match lineage.kept.after_seq {
        0 => from_first(spec, first, blobs).map_err(|e| text(&e)),
        after_seq => oldest_checkpoint(spec, lineage, &checkpoints, blobs).ok_or_else(|| {
            format!("no checkpoint is sound from which the deltas after {after_seq} can be merged again")
        }),
    };
    match begin {
        Ok(start) => merger = Some(start),
        Err(why) => wrong.push(why),
    }
    let begun = merger.as_ref().map_or(Version(0), |merger| merger.weights().version);
    let before_it = lineage.versions.partition_point(|v| v.version <= begun && lineage.kept.after_seq > 0);
    for version in &lineage.versions[before_it..] {
        let advanced = merger.as_mut().map(|merger| advance(merger, lineage, blobs, version));
        if let Some(Err(error)) = advanced {
            let and_on = "the versions from there to the next checkpoint or restart are not compared";
            wrong.push(format!("version {}: {error}; {and_on}", version.version));
            merger = None;
        }
        let restarts = lineage.restarts.binary_search(&version.version).is_ok();
        let Some(there) = &merger else {
            if checkpoints.contains(&version.version.0) || restarts {
                merger = before(spec, lineage, blobs, Some(version.version.next())).ok().filter(|merger| {
                    merger.weights().version == version.version && merger.last_seq() == version.through_seq
                });
            }
            continue;
        };
        let link = links.binary_search_by_key(&version.version, |link| link.version);
        let link = link.ok().map(|at| links[at]);
        if newest != Some(version.version.0) && link.is_none() {
            continue;
        }
        let bytes = there.checkpoint();
        if newest == Some(version.version.0)
            && blobs.checkpoint(version.version.0).map_err(|e| text(&e))?.as_ref() != Some(&bytes)
        {
            wrong
                .push(format!("the checkpoint of version {} is damaged; a start uses the one before", version.version));
        }
        // Where merging began anew after the link was made, the checkpoint is another.
        if link.is_some_and(|link| link.checkpoint != BlobHash::of(&bytes)) && !restarts {
            wrong.push(format!("the chain names another checkpoint of version {}", version.version));
        }
    }
    if let Some(Err(error)) = merger.as_mut().map(|merger| merge_through(merger, lineage, blobs, u64::MAX)) {
        wrong.push(text(&error));
    }
    if !wrong.is_empty() {
        return Err(wrong.join("; "));
    }
    let checkpoint = newest.map_or("no checkpoint".into(), |v| format!("and the checkpoint of version {v}"));
    let restarts = match &lineage.restarts[..] {
        [] => String::new(),
        restarts => {
            let versions: Vec<String> = restarts.iter().map(ToString::to_string).collect();
            format!("; merging began anew at version {}, where blobs were lost", versions.join(", "))
        }
    };
    let unproven = match before_it {
        0 => String::new(),
        _ => format!(
            "; versions 0 to {begun} are not merged again, since their deltas are given up: the chain stands for them"
        ),
    };
    let compared = lineage.versions.len() - before_it;
    Ok(format!("{compared} versions bit for bit, {checkpoint}{restarts}{unproven}"))
}

/// The merger at the oldest checkpoint after which all deltas are kept.
fn oldest_checkpoint(spec: &RunSpec, lineage: &Lineage, checkpoints: &[u64], blobs: &Blobs) -> Option<Merger> {
    let oldest_first = checkpoints.iter().rev().filter_map(|v| lineage.place(Version(*v)));
    let mut kept = oldest_first.map(|at| &lineage.versions[at]).filter(|v| has_deltas_since(lineage, v));
    kept.find_map(|version| at_checkpoint(spec, version, blobs))
}

/// A squash leads where the updates lead: made of them again, it has the same name.
fn squashes(spec: &RunSpec, lineage: &Lineage, blobs: &Blobs) -> Result<String, String> {
    let at = |v: Version| lineage.place(v);
    let (mut checked, mut all_wrong) = (0, vec![]);
    let one = |version: &VersionRecord, Squash { from, blob }: &Squash| -> Result<(), String> {
        let wrong = |why: &str| format!("the squash from version {from} to {}: {why}", version.version);
        let parts = at(*from).zip(at(version.version)).and_then(|(from, to)| lineage.versions.get(from + 1..=to));
        let parts = parts.filter(|parts| !parts.is_empty()).ok_or_else(|| wrong("there is no such version"))?;
        if parts[..parts.len() - 1].iter().any(|v| v.keyframe.is_some()) {
            return Err(wrong("it leads across a keyframe"));
        }
        let updates =
            parts.iter().filter_map(|v| v.update).map(|update| blobs.read(update.hash)).collect::<Result<Vec<_>, _>>();
        let updates = updates.map_err(|e| wrong(&e.to_string()))?;
        let again = update::squash(&spec.model, &updates.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let again = again.map_err(|e| wrong(&e.to_string()))?;
        if BlobRef::of(&again) != *blob {
            return Err(wrong("its updates give another"));
        }
        Ok(())
    };
    for version in &lineage.versions {
        for squash in version.squashes.iter().filter(|squash| squash.from >= lineage.kept.first_version) {
            checked += 1;
            all_wrong.extend(one(version, squash).err());
        }
    }
    if all_wrong.is_empty() { Ok(format!("{checked} squashes")) } else { Err(all_wrong.join("; ")) }
}
