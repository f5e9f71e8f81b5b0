//! How much of a residual still counts when it has grown old. It was lost from a delta against weights that the run has
//! left behind since, so a run may let it fade ([`ResidualSpec`]).

use super::Session;
use crate::lease::Lease;
use nightjar_shared::run_spec::{MergeSpec, ResidualSpec};

impl Session {
    /// What the residual on the disk is multiplied by before this lease's delta is encoded.
    pub(super) fn residual_scale(&self, lease: &Lease) -> f64 {
        if self.journal.residual.is_none() {
            return 0.0;
        }
        let age = lease.base_version.0.saturating_sub(self.journal.residual_version.0);
        // What is not understood was refused at the welcome.
        self.spec.as_ref().map_or(0.0, |spec| scale(spec.delta.residual, &spec.merge, age))
    }
}

/// `age` counts versions from the weights that the residual's lease started from to those that the next one starts
/// from. In a synchronous run it is 1, so one version old is not yet old.
fn scale(rule: ResidualSpec, merge: &MergeSpec, age: u64) -> f64 {
    match rule {
        ResidualSpec::Keep => 1.0,
        ResidualSpec::Decay => merge.staleness.weight(age),
        ResidualSpec::Drop if age > 1 => 0.0,
        ResidualSpec::Drop => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        journal::{Journal, Run},
        session::Profile,
    };
    use nightjar_shared::{
        ids::{BlobHash, RunId, Version},
        lease::LeaseKind,
        model_spec::ModelSpec,
        run_spec::StalenessSpec,
        wire::{self, worker::to_worker},
    };

    #[test]
    fn an_old_residual_is_kept_fades_or_is_dropped() {
        let merge = MergeSpec { staleness: StalenessSpec::Polynomial { power: 0.5 }, ..MergeSpec::default() };
        let all =
            |age| [ResidualSpec::Keep, ResidualSpec::Decay, ResidualSpec::Drop].map(|rule| scale(rule, &merge, age));
        assert_eq!(all(0), [1.0, 1.0, 1.0]);
        assert_eq!(all(1), [1.0, merge.staleness.weight(1), 1.0]);
        assert_eq!(all(2), [1.0, merge.staleness.weight(2), 0.0]);
        assert!((all(3)[1] - 0.5).abs() < 1e-15);
    }

    /// The age is counted between the base versions of the two leases.
    #[test]
    fn the_worker_is_told() {
        let hash = BlobHash::of(b"x");
        let spec = |rule: &str| serde_json::json!({ "name": "x", "token_budget": 9, "model": ModelSpec::tiny(), "delta": { "residual": rule } });
        for (rule, made_at, base, want) in
            [("keep", 2, 9, 1.0), ("decay", 9, 9, 1.0), ("drop", 8, 9, 1.0), ("drop", 7, 9, 0.0), ("decay", 9, 7, 1.0)]
        {
            let lease = wire::Lease {
                id: 1,
                kind: LeaseKind::Train.to_wire(),
                base_version: base,
                base_digest: hash.0.to_vec(),
                keyframe: Some(wire::Blob::new(hash, 1)),
                shard: Some(wire::Blob::new(hash, 1)),
                shard_samples: 9,
                samples: 9,
                steps: 3,
                codec: 1,
                ..Default::default()
            };
            let run = Run { id: RunId([1; 32]), spec_json: spec(rule).to_string(), keep_alive_ms: 9 };
            let residual = Some("work/r".to_owned());
            let journal =
                Journal { run: Some(run.clone()), residual, residual_version: Version(made_at), ..Journal::default() };
            let session = Session::new(Profile::for_tests(), journal);
            let job = session.job(&Lease::from_wire(&lease, false).unwrap(), &run);
            let to_worker::Body::Train(job) = job else { panic!("{job:?}") };
            assert_eq!(job.residual_scale, want, "{rule}, made at {made_at}, lease at {base}");
        }
    }
}
