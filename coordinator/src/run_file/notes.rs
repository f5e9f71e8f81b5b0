//! Settings that can be used, but hardly do what was meant. The run begins all the same, and the person is told.

use nightjar_shared::{
    run_spec::{Correction, EvaluateSpec, InnerState, RunSpec, keys},
    shard::Manifest,
};

/// More deltas than that make a version in no run that is known.
const QUORUM_LARGE: u64 = 1000;

/// What can be said of a run by itself. `is_set` tells whether the file has a key.
pub(super) fn on_itself(spec: &RunSpec, is_set: &dyn Fn(&str) -> bool) -> Vec<String> {
    let (lease, merge) = (&spec.lease, &spec.merge);
    let mut notes = vec![];
    let step = spec.tokens_per_step();
    if spec.token_budget < step {
        notes.push(format!(
            "token_budget is {}, less than one step of {step} tokens (inner.batch_samples = {} samples of \
             model.max_position_embeddings = {} tokens); the run ends after one step",
            spec.token_budget, spec.inner.batch_samples, spec.model.max_position_embeddings
        ));
    }
    if let Some(least) = lease.wall_s_min.filter(|least| *least > lease.wall_s && is_set("lease.wall_s_min")) {
        let most = lease.wall_s;
        notes.push(format!(
            "lease.wall_s_min is {least}, more than lease.wall_s = {most}; every round takes {most} seconds"
        ));
    }
    if let Some(grace) = merge.grace_s.filter(|grace| spec.has_rounds() && *grace > lease.wall_s) {
        let round = lease.wall_s;
        notes.push(format!(
            "merge.grace_s is {grace}, more than lease.wall_s = {round}; latecomers keep everybody waiting longer than \
            a round takes"
        ));
    }
    let quorum = spec.quorum();
    if quorum.saturating_mul(step) > spec.token_budget && quorum > 1 {
        notes.push(format!(
            "merge.quorum is {quorum}, more deltas than token_budget = {} pays for at {step} tokens a step; no version \
            would be made",
            spec.token_budget
        ));
    } else if quorum > QUORUM_LARGE {
        notes.push(format!("merge.quorum is {quorum}; no version is made before so many deltas are there"));
    }
    if lease.warm_tokens >= spec.token_budget {
        let (warm, budget) = (lease.warm_tokens, spec.token_budget);
        notes.push(format!(
            "lease.warm_tokens is {warm}, all of token_budget = {budget}; as long as there are anchor nodes, nobody \
            else trains"
        ));
    }
    for (key, steps) in [("lease.steps", lease.steps), ("lease.calibration_steps", lease.calibration_steps)] {
        if steps > lease.steps_max {
            let most = lease.steps_max;
            notes.push(format!(
                "{key} is {steps}, more than lease.steps_max = {most}; no lease has more than {most} steps"
            ));
        }
    }
    let values = keys::values(spec);
    for (section, key) in keys::all().filter(|(section, key)| is_set(&section.path(key.name))) {
        if let Some(misplaced) = section.misplaced(key, &values).filter(|misplaced| !misplaced.is_refused) {
            notes.push(format!("{} does nothing without {}", section.path(key.name), misplaced.needed));
        }
    }
    if lease.ahead && spec.inner.state == InnerState::Reset && is_set("lease.ahead") {
        notes.push("lease.ahead does nothing with inner.state = \"reset\"".to_owned());
    }
    if merge.correction == Correction::Heloco && merge.rule.momentum() == 0.0 && is_set("merge.correction") {
        notes.push("merge.correction does nothing without merge.momentum".to_owned());
    }
    if let Some(every) = spec.keep.milestones {
        if !spec.keep.gives_up_versions() {
            notes.push("keep.milestones does nothing without keep.versions or keep.days".to_owned());
        } else if !every.is_multiple_of(spec.publish.keyframe_every) {
            let keyframes = spec.publish.keyframe_every;
            notes.push(format!(
                "keep.milestones is {every}, no multiple of publish.keyframe_every = {keyframes}: few milestones have a keyframe"
            ));
        }
    }
    notes
}

/// What can be said of a run on its data.
pub fn on_dataset(spec: &RunSpec, manifest: &Manifest) -> Vec<String> {
    let (wanted, heldout) = (spec.evaluate.samples, manifest.heldout.first().map_or(0, |shard| shard.samples));
    match heldout {
        0 => vec!["the dataset holds out no samples, so no loss is measured".to_owned()],
        // Who set nothing meant as many as there are.
        _ if wanted > heldout && wanted != EvaluateSpec::default().samples => {
            vec![format!(
                "evaluate.samples is {wanted}, more than the {heldout} samples that are held out; those are measured"
            )]
        }
        _ => vec![],
    }
}
