//! Records of any kind, with what a column holds at its edges.

use super::OWL;
use crate::engine::record::{
    AuditRecord, DeltaRecord, DeviceRecord, EvaluationRecord, LeaseOutcome, LeaseRecord, Record, SeriesRecord, Squash,
    VersionRecord,
};
use nightjar_shared::{
    blob::BlobRef,
    ids::{BlobHash, Generation, LeaseId, Version},
    lease::LeaseKind,
    public_name::PublicName,
    time::Wall,
    wire::Role,
};
use proptest::prelude::*;

fn integer() -> impl Strategy<Value = u64> {
    let edges = vec![0, 1, i64::MAX as u64 - 1, i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX - 1, u64::MAX];
    prop_oneof![6 => 0u64..1000, 3 => any::<i64>().prop_map(|n| n.unsigned_abs()), 1 => prop::sample::select(edges)]
}

fn small() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), Just(u32::MAX), any::<u32>()]
}

fn real() -> impl Strategy<Value = f64> {
    let edges =
        vec![0.0, -0.0, f64::MIN_POSITIVE, 5e-324, f64::MAX, f64::MIN, f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
    prop_oneof![6 => -1e3..1e3, 2 => any::<f64>(), 1 => prop::sample::select(edges)]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), Just("\0 between".into()), Just(String::new())]
}

fn wall() -> impl Strategy<Value = Wall> {
    integer().prop_map(|unix_ms| Wall { unix_ms })
}

fn blob() -> impl Strategy<Value = BlobRef> {
    (any::<[u8; 32]>(), integer()).prop_map(|(name, bytes)| BlobRef { hash: BlobHash(name), bytes })
}

/// A record of any kind about one device and its first lease.
pub fn record() -> impl Strategy<Value = Record> {
    let role = prop::sample::select(vec![Role::Unspecified, Role::Volunteer, Role::Anchor]);
    let shown = (prop::sample::select(vec![None, Some("Ada"), Some("👩‍🔬 Zoë")]), any::<bool>());
    let device = (text(), text(), role, any::<Vec<u8>>(), wall(), real(), any::<bool>(), shown).prop_map(
        |(name, device, role, invite_nonce, enrolled_at, tokens_per_s, left, (shown, name_hidden))| {
            let public_name = shown.map(|name| PublicName::parse(name).unwrap());
            Record::Device(DeviceRecord {
                id: OWL,
                name,
                device,
                role,
                invite_nonce,
                enrolled_at,
                tokens_per_s,
                left,
                public_name,
                name_hidden,
            })
        },
    );
    let issued =
        ([integer(), integer(), integer()], [small(), small(), small(), small(), small()], any::<bool>(), wall());
    let issued =
        issued.prop_map(|([id, generation, version], [epoch, shard, first_sample, samples, steps], trains, at)| {
            Record::LeaseIssued(LeaseRecord {
                id: LeaseId(id),
                generation: Generation(generation),
                device: OWL,
                kind: if trains { LeaseKind::Train } else { LeaseKind::Evaluate },
                base_version: Version(version),
                epoch,
                shard,
                first_sample,
                samples,
                steps,
                issued_at: at,
            })
        });
    let closed = (prop::sample::select(LeaseOutcome::ALL.to_vec()), small(), wall())
        .prop_map(|(outcome, samples_used, at)| Record::LeaseClosed { id: LeaseId(1), outcome, samples_used, at });
    let numbers = [integer(), integer(), integer(), integer(), integer()];
    let delta = (integer(), blob(), small(), numbers, [real(), real(), real(), real()], wall());
    let delta = delta.prop_map(|(seq, blob, steps, [tokens, staleness, train_ms, wall_ms, _], reals, merged_at)| {
        let [weight, norm, loss_first, loss_last] = reals;
        let (lease, device) = (LeaseId(1), OWL);
        let times = (train_ms, wall_ms, merged_at);
        Record::Delta(DeltaRecord {
            seq,
            lease,
            device,
            blob,
            steps,
            tokens,
            staleness,
            weight,
            norm,
            train_ms: times.0,
            wall_ms: times.1,
            loss_first,
            loss_last,
            merged_at: times.2,
        })
    });
    let squash = (integer(), blob()).prop_map(|(from, blob)| Squash { from: Version(from), blob });
    let version = (
        integer(),
        [prop::option::of(blob()), prop::option::of(blob()), prop::option::of(blob())],
        any::<[u8; 32]>(),
        integer(),
        wall(),
        prop::collection::vec(squash, 0..4),
    );
    let version =
        version.prop_map(|(version, [update, keyframe, given], digest, through_seq, published_at, squashes)| {
            let version = Version(version);
            Record::Version(VersionRecord {
                version,
                update,
                keyframe,
                given,
                digest,
                through_seq,
                published_at,
                squashes,
            })
        });
    let evaluation =
        (integer(), real(), integer(), integer(), wall()).prop_map(|(version, nats, tokens, text_bytes, at)| {
            let (version, lease) = (Version(version), LeaseId(1));
            Record::Evaluation(EvaluationRecord { version, lease, nats, tokens, text_bytes, measured_at: at })
        });
    let order = prop_oneof![
        wall().prop_map(|at| Record::DeviceRevoked { id: OWL, at }),
        (any::<Vec<u8>>(), wall()).prop_map(|(nonce, at)| Record::InviteRevoked { nonce, at }),
        prop::option::of(wall()).prop_map(Record::Paused),
        integer().prop_map(|token_budget| Record::Extended { token_budget }),
        (wall(), [text(), text(), text(), text(), text()]).prop_map(|(at, [name, from, action, subject, outcome])| {
            Record::Audit(AuditRecord { at, name, from, action, subject, outcome })
        }),
    ];
    let series = (integer(), text(), blob(), integer(), any::<(u32, bool)>(), [integer(), integer()], wall());
    let series =
        series.prop_map(|(number, name, weights, first, (rounds, is_cut), [after_seq, left_out], begun_at)| {
            let first = Version(first);
            Record::Series(SeriesRecord { number, name, weights, first, rounds, is_cut, after_seq, left_out, begun_at })
        });
    prop_oneof![device, issued, closed, delta, version, evaluation, series, order]
}
