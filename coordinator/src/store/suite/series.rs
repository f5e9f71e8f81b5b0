//! What every ledger promises of series and of weights that were given.

use super::*;
use crate::engine::record::SeriesRecord;

fn blob(name: u8) -> BlobRef {
    BlobRef { hash: BlobHash([name; 32]), bytes: u64::from(name) }
}

fn series(number: u64, name: &str) -> SeriesRecord {
    SeriesRecord {
        number,
        name: name.into(),
        weights: blob(200 + number as u8),
        first: Version(100),
        rounds: 5,
        is_cut: false,
        after_seq: 3,
        left_out: 2,
        begun_at: Wall { unix_ms: 1_000 },
    }
}

pub(super) async fn a_series_is_kept_with_what_it_was_given<P: Place>() {
    let Some(place) = P::new() else { return };
    let (ledger, model) = (place.open(1).await, MemoryLedger::new().open(1));
    let run = &eventful().0;
    for records in &run.commits {
        ledger.commit(records).await.unwrap();
        model.commit(records).unwrap();
    }
    let shards = run.shards();
    assert_eq!(ledger.snapshot(&shards).await.unwrap().series, None);
    let one = series(1, "one");
    let cut = SeriesRecord { rounds: 1, is_cut: true, left_out: 4, ..one.clone() };
    let two = series(2, "two");
    let version = VersionRecord {
        version: Version(100),
        update: None,
        keyframe: Some(blob(7)),
        given: Some(blob(201)),
        digest: [9; 32],
        through_seq: 3,
        published_at: Wall { unix_ms: 2_000 },
        squashes: vec![],
    };
    for record in [Record::Series(one), Record::Series(cut), Record::Version(version), Record::Series(two.clone())] {
        ledger.commit(std::slice::from_ref(&record)).await.unwrap();
        model.commit(&[record]).unwrap();
    }
    for ledger in [&*ledger, &model as &dyn Ledger] {
        assert_eq!(ledger.snapshot(&shards).await.unwrap().series, Some(two.clone()));
        let names = || [blob(201), blob(202), blob(203)].map(|blob| blob.hash).into();
        // The weights of the second series are those of no version yet, and wanted all the same.
        let unnamed = ledger.unnamed(names(), Wall { unix_ms: u64::MAX >> 1 }).await.unwrap();
        assert_eq!(unnamed.blobs, [blob(203).hash].into());
        for (from, named) in [(0, vec![blob(201).hash]), (100, vec![blob(201).hash]), (101, vec![])] {
            assert_eq!(ledger.given_from(Version(from), names()).await.unwrap(), named.into_iter().collect());
        }
    }
    assert_eq!(ledger.facts().await.unwrap(), model.facts());
    for (after, through) in [(0, u64::MAX >> 1), (2, 7), (4, 4)] {
        let merged = ledger.merged(after, through).await.unwrap();
        let expected = Ledger::merged(&model, after, through).await.unwrap();
        // A database may sum in another order.
        let is_same = (merged.nats - expected.nats).abs() <= 1e-9 * expected.nats;
        assert!(is_same, "{after} to {through}: {merged:?} and not {expected:?}");
        assert_eq!((merged.devices, merged.tokens), (expected.devices, expected.tokens));
    }
    let all = ledger.merged(0, u64::MAX >> 1).await.unwrap();
    assert!(all.devices > 0 && all.nats > 0.0, "{all:?}");
}
