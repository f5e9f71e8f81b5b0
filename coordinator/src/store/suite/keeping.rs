//! What every ledger promises of what is kept.

use super::*;
use crate::store::{Keeping, Kept, Link, Span};

fn link(version: u64) -> Link {
    let hash = |what: u8| [what + version as u8; 32];
    let (checkpoint, rows) = (BlobHash(hash(1)), hash(2));
    Link { version: Version(version), through_seq: 2 * version, tokens: 16 * version, checkpoint, rows, hash: hash(3) }
}

/// A run with squashes, and its model.
async fn run<P: Place>(place: &P) -> (Arc<dyn Ledger>, MemoryLedger) {
    let (ledger, model) = (place.open(1).await, MemoryLedger::new().open(1));
    for records in &eventful().0.commits {
        let records: Vec<Record> = records.iter().map(with_squashes).collect();
        ledger.commit(&records).await.unwrap();
        model.commit(&records).unwrap();
    }
    (ledger, model)
}

pub(super) async fn what_is_kept_is_noted_and_only_moves_on<P: Place>() {
    let Some(place) = P::new() else { return };
    let (ledger, model) = run(&place).await;
    let agree = async || {
        assert_eq!(ledger.standing().await.unwrap(), model.standing().await.unwrap());
        assert_eq!(ledger.kept().await.unwrap(), model.kept().await.unwrap());
        assert_eq!(ledger.facts().await.unwrap(), model.facts());
    };
    agree().await;
    assert_eq!(ledger.kept().await.unwrap(), Kept::default());
    for (version, seq) in [(4, 6), (2, 9), (4, 3), (8, 9)] {
        for notes in [&*ledger, &model as &dyn Ledger] {
            notes.give_up(Version(version), seq).await.unwrap();
        }
        agree().await;
    }
    let kept = ledger.kept().await.unwrap();
    assert_eq!((kept.first_version, kept.after_seq), (Version(8), 9));
    assert_eq!(Some(kept.last_lease), model.facts().leases.last().map(|l| l.lease.id));
    for (version, seq) in [(3, 4), (1, 9), (8, 2)] {
        for notes in [&*ledger, &model as &dyn Ledger] {
            notes.note_removed(Version(version), seq).await.unwrap();
        }
        agree().await;
    }
    for notes in [&*ledger, &model as &dyn Ledger] {
        for (version, seq) in [(9, 0), (0, 10)] {
            let refused = notes.note_removed(Version(version), seq).await;
            assert!(matches!(refused, Err(LedgerError::Contradiction(_))), "it was not given up: {refused:?}");
        }
        for version in [0, 4] {
            notes.add_link(&link(version)).await.unwrap();
        }
        for version in [4, 9999] {
            assert!(matches!(notes.add_link(&link(version)).await, Err(LedgerError::Contradiction(_))));
        }
    }
    agree().await;
    assert_eq!(ledger.links(Version(1), 9).await.unwrap(), [link(4)]);
    assert_eq!(ledger.links(Version(0), 1).await.unwrap(), [link(0)]);
    // A commit that is refused takes none of it back.
    let twice = Record::Version(model.facts().lineage.versions[0].clone());
    assert!(ledger.commit(std::slice::from_ref(&twice)).await.is_err() && model.commit(&[twice]).is_err());
    agree().await;
    let (before, newer) = (ledger.facts().await.unwrap(), place.open(1).await);
    assert!(matches!(ledger.give_up(Version(9), 20).await, Err(LedgerError::Fenced(_))));
    assert!(matches!(ledger.note_removed(Version(8), 9).await, Err(LedgerError::Fenced(_))));
    assert!(matches!(ledger.add_link(&link(5)).await, Err(LedgerError::Fenced(_))));
    assert_eq!(newer.facts().await.unwrap(), before);
    assert_eq!(newer.lineage(Version(3)).await.unwrap().kept, before.lineage.kept);
}

pub(super) async fn a_page_of_rows_is_the_same<P: Place>() {
    let Some(place) = P::new() else { return };
    let (ledger, model) = run(&place).await;
    let facts = model.facts();
    let (mut versions, mut deltas) = (vec![], vec![]);
    while let page = ledger.versions_from(Version(versions.len() as u64), 3).await.unwrap()
        && !page.is_empty()
    {
        versions.extend(page);
    }
    while let page = ledger.deltas_after(deltas.len() as u64, 4).await.unwrap()
        && !page.is_empty()
    {
        deltas.extend(page);
    }
    assert_eq!((versions, deltas), (facts.lineage.versions.clone(), facts.lineage.deltas.clone()));
    for upto in (0..12).map(Version) {
        assert_eq!(ledger.keyframe_upto(upto).await.unwrap(), model.keyframe_upto(upto).await.unwrap());
    }
    assert_eq!(ledger.keyframe_upto(Version(7)).await.unwrap().map(|k| k.version), Some(Version(4)));
    for (from, before, milestone_every, after_seq, through_seq) in
        [(0, 99, 0, 0, 99), (0, 99, u64::MAX, 3, 9), (1, 6, 4, 5, 5), (7, 2, 1, 9, 3), (2, 9, 1, 0, 1)]
    {
        let span = Span { from: Version(from), before: Version(before), milestone_every, after_seq, through_seq };
        assert_eq!(ledger.weight(span).await.unwrap(), model.weight(span).await.unwrap(), "{span:?}");
    }
    let names: BTreeSet<BlobHash> =
        facts.lineage.deltas.iter().map(|d| d.blob.hash).chain([BlobHash([9; 32])]).collect();
    for seq in [0, 5, 1000] {
        let named = ledger.named_after(seq, names.clone()).await.unwrap();
        assert_eq!(named, facts.lineage.deltas.iter().filter(|d| d.seq > seq).map(|d| d.blob.hash).collect());
    }
    ledger.note_losses(Some(Version(3)), &[5, 2]).await.unwrap();
    assert_eq!(ledger.losses().await.unwrap(), (vec![Version(3)], vec![2, 5]));
}
