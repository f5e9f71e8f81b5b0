//! The keys of a run file: one table of what there is, and what a person may have meant who wrote another.

use nightjar_shared::model_spec::Family;

/// What a key takes.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// A whole number up to this.
    Whole(u64),
    Number,
    Flag,
    Text,
    Word(&'static [&'static str]),
    Staleness,
}

/// One key.
pub(super) struct Key {
    /// Empty: above all sections.
    pub section: &'static str,
    pub name: &'static str,
    pub kind: Kind,
    pub is_needed: bool,
}

/// How `merge.staleness` is written.
pub(super) const STALENESS: &str = "write staleness = { rule = \"polynomial\", power = 0.5 }, { rule = \"constant\" } or \
                                    { rule = \"hinge\", grace = 4.0, slope = 0.5 }";

/// All sections.
pub(super) const SECTIONS: [&str; 8] = ["operator", "model", "inner", "lease", "delta", "merge", "publish", "evaluate"];

const COUNT: Kind = Kind::Whole(u32::MAX as u64);
const LONG: Kind = Kind::Whole(u64::MAX);

const fn key(section: &'static str, name: &'static str, kind: Kind) -> Key {
    Key { section, name, kind, is_needed: false }
}

const fn needed_key(section: &'static str, name: &'static str, kind: Kind) -> Key {
    Key { section, name, kind, is_needed: true }
}

const KEYS: &[Key] = &[
    needed_key("", "name", Kind::Text),
    key("", "description", Kind::Text),
    key("", "seed", LONG),
    needed_key("", "token_budget", LONG),
    needed_key("operator", "name", Kind::Text),
    key("operator", "contact", Kind::Text),
    key("model", "model_type", Kind::Word(&Family::NAMES)),
    needed_key("model", "vocab_size", COUNT),
    needed_key("model", "hidden_size", COUNT),
    needed_key("model", "intermediate_size", COUNT),
    needed_key("model", "num_hidden_layers", COUNT),
    needed_key("model", "num_attention_heads", COUNT),
    needed_key("model", "num_key_value_heads", COUNT),
    key("model", "head_dim", COUNT),
    needed_key("model", "max_position_embeddings", COUNT),
    needed_key("model", "rope_theta", Kind::Number),
    needed_key("model", "rms_norm_eps", Kind::Number),
    needed_key("model", "tie_word_embeddings", Kind::Flag),
    key("inner", "batch_samples", COUNT),
    key("inner", "learning_rate", Kind::Number),
    key("inner", "warmup", Kind::Number),
    key("inner", "floor", Kind::Number),
    key("inner", "beta1", Kind::Number),
    key("inner", "beta2", Kind::Number),
    key("inner", "epsilon", Kind::Number),
    key("inner", "weight_decay", Kind::Number),
    key("inner", "clip_norm", Kind::Number),
    key("inner", "state", Kind::Word(&["keep", "reset"])),
    key("lease", "pacing", Kind::Word(&["free", "rounds"])),
    key("lease", "wall_s", Kind::Number),
    key("lease", "wall_s_end", Kind::Number),
    key("lease", "wall_s_min", Kind::Number),
    key("lease", "ahead", Kind::Flag),
    key("lease", "warm_tokens", LONG),
    key("lease", "steps", COUNT),
    key("lease", "calibration_steps", COUNT),
    key("lease", "steps_max", COUNT),
    key("lease", "deadline_factor", Kind::Number),
    key("lease", "deadline_s_min", Kind::Number),
    key("delta", "codec", Kind::Word(&["blocks4", "blocks8", "blocks2", "sparse2", "f32"])),
    key("delta", "k", COUNT),
    key("delta", "feedback", Kind::Number),
    key("delta", "residual", Kind::Word(&["keep", "decay", "drop"])),
    key("merge", "rule", Kind::Word(&["mean", "nesterov", "delayed_nesterov"])),
    key("merge", "quorum", COUNT),
    key("merge", "grace_s", Kind::Number),
    key("merge", "learning_rate", Kind::Number),
    key("merge", "momentum", Kind::Number),
    key("merge", "interval", COUNT),
    key("merge", "c", Kind::Number),
    key("merge", "average", Kind::Word(&["mean", "rda"])),
    key("merge", "correction", Kind::Word(&["none", "heloco"])),
    key("merge", "staleness", Kind::Staleness),
    key("merge", "staleness_max", LONG),
    key("merge", "tokens_cap", Kind::Number),
    key("merge", "norm_factor_max", Kind::Number),
    key("publish", "codec", Kind::Word(&["blocks2", "blocks4", "blocks8"])),
    key("publish", "keyframe_every", LONG),
    key("evaluate", "every", LONG),
    key("evaluate", "samples", COUNT),
];

/// The key of a section.
pub(super) fn find(section: &str, name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.section == section && key.name == name)
}

/// Whether a name is that of a key of one kind, in some section. Names that two sections have are of the same kind in
/// both.
pub(super) fn is_kind(name: &str, kind: impl Fn(Kind) -> bool) -> bool {
    let name = name.rsplit('.').next().unwrap_or(name);
    KEYS.iter().any(|key| key.name == name && kind(key.kind))
}

/// The names of a section's keys that must be there.
pub(super) fn needed(section: &str) -> impl Iterator<Item = &'static str> {
    KEYS.iter().filter(move |key| key.section == section && key.is_needed).map(|key| key.name)
}

/// Section and key as they are told.
pub(super) fn path(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

/// What there is to choose from, in words.
pub(super) fn either(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => quoted.concat(),
    }
}

/// The one that was probably meant.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase().replace(['-', ' '], "_");
    let distances = known.map(|name| (strsim::damerau_levenshtein(&word, name), name));
    distances.filter(|(distance, name)| *distance <= 1 + name.len() / 5).min().map(|(_, name)| name)
}

/// What to do about keys that a section does not have. They are in the order of the file, and there is at least one;
/// `is_table` tells about the first.
pub(super) fn unknown(section: &str, names: &[&str], is_table: bool) -> String {
    let Some(first) = names.first() else { return String::new() };
    let sections = || SECTIONS.map(|name| format!("[{name}]")).join(", ");
    if section.is_empty() && is_table {
        return match nearest(first, SECTIONS.into_iter()) {
            Some(near) => format!("[{first}] is no section of a run file; did you mean [{near}]?"),
            None => format!("[{first}] is no section of a run file; its sections are {}", sections()),
        };
    }
    let above: Vec<&str> = names.iter().copied().filter(|name| find("", name).is_some()).collect();
    if !section.is_empty() && !above.is_empty() {
        let (stand, it) = if above.len() == 1 { ("stands", "it belongs") } else { ("stand", "they belong") };
        return format!(
            "{} {stand} below [{section}], so {it} to that section; move what belongs to no section to the top of the file, \
             above [{section}]",
            above.join(" and ")
        );
    }
    let here = if section.is_empty() { "a run file".to_owned() } else { format!("[{section}]") };
    let told: Vec<String> = names.iter().map(|name| path(section, name)).collect();
    let are = if told.len() == 1 { "is no key" } else { "are no keys" };
    let told = format!("{} {are} of {here}", told.join(" and "));
    let elsewhere: Vec<String> = KEYS
        .iter()
        .filter(|key| key.name == *first && key.section != section)
        .map(|key| format!("[{}]", key.section))
        .collect();
    let of_section = || KEYS.iter().filter(move |key| key.section == section).map(|key| key.name);
    if !elsewhere.is_empty() {
        format!("{told}; {first} is a key of {}", elsewhere.join(" and of "))
    } else if let Some(near) = nearest(first, of_section()) {
        format!("{told}; did you mean {near}?")
    } else if let Some(near) = nearest(first, SECTIONS.into_iter()).filter(|_| section.is_empty()) {
        format!("{told}; did you mean the section [{near}]?")
    } else if let Some(near) = nearest(first, KEYS.iter().map(|key| key.name)) {
        let of = KEYS
            .iter()
            .filter(|key| key.name == near)
            .map(|key| path(key.section, key.name))
            .next()
            .unwrap_or_default();
        format!("{told}; did you mean {of}?")
    } else {
        let sections = if section.is_empty() { format!(", and its sections {}", sections()) } else { String::new() };
        format!("{told}; its keys are {}{sections}", of_section().collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightjar_shared::run_spec::{Average, OperatorSpec, RunSpec};
    use serde_json::Value;
    use std::collections::BTreeSet;

    /// The table has what the types have, no more and no less.
    #[test]
    fn the_table_is_whole() {
        let mut spec: RunSpec = serde_json::from_str(r#"{"name": "x", "token_budget": 1000}"#).unwrap();
        spec.operator = Some(OperatorSpec { name: "x".into(), contact: "y".into() });
        (spec.model.model_type, spec.model.head_dim) = (Family::Qwen3, Some(2));
        (spec.lease.wall_s_end, spec.lease.warm_tokens) = (Some(1.0), 1);
        (spec.merge.quorum, spec.merge.grace_s, spec.merge.average) = (Some(1), Some(1.0), Some(Average::Rda));
        let mut of_types = BTreeSet::new();
        for (name, value) in serde_json::to_value(&spec).unwrap().as_object().unwrap() {
            match value {
                Value::Object(section) => of_types.extend(section.keys().map(|key| path(name, key))),
                _ => {
                    of_types.insert(name.clone());
                }
            }
        }
        let of_table: BTreeSet<String> = KEYS.iter().map(|key| path(key.section, key.name)).collect();
        assert_eq!(of_table, of_types);
        // Every word that it lists is one that the types take.
        for key in KEYS {
            let Kind::Word(words) = key.kind else { continue };
            for word in words {
                let mut value = serde_json::to_value(&spec).unwrap();
                value[key.section][key.name] = (*word).into();
                serde_json::from_value::<RunSpec>(value).unwrap();
            }
        }
    }

    #[test]
    fn a_slip_is_recognised() {
        let near = |word| nearest(word, KEYS.iter().map(|key| key.name));
        assert_eq!(near("token_buget"), Some("token_budget"));
        assert_eq!(near("Token-Budget"), Some("token_budget"));
        assert_eq!(near("learnign_rate"), Some("learning_rate"));
        assert_eq!(near("entirely_else"), None);
    }
}
