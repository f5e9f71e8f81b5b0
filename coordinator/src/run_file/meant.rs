//! What a person may have meant who wrote a key that there is not.

use nightjar_shared::run_spec::{
    SECTIONS,
    keys::{self, Kind, Section},
};

/// How `merge.staleness` is written.
pub(super) const STALENESS: &str = "write staleness = { rule = \"polynomial\", power = 0.5 }, { rule = \"constant\" } or \
                                    { rule = \"hinge\", grace = 4.0, slope = 0.5 }";

/// Whether a name is that of a key that is on or off, in some section. Names that two sections have are of the same
/// kind in both.
pub(super) fn is_flag(name: &str) -> bool {
    let name = name.rsplit('.').next().unwrap_or(name);
    keys::all().any(|(_, key)| key.name == name && key.kind == Kind::Flag)
}

/// The sections that a file may have in brackets, without those within another.
pub(super) fn sections() -> impl Iterator<Item = &'static str> {
    SECTIONS.iter().map(|section| section.name).filter(|name| !name.is_empty() && !name.contains('.'))
}

/// The section within one that has this name there.
pub(super) fn within(section: &Section, name: &str) -> Option<&'static Section> {
    // A name in quotes may hold anything.
    let is_plain = !name.is_empty() && !name.contains('.');
    is_plain.then(|| Section::find(&section.path(name))).flatten()
}

/// All that may stand in a section: its keys, and sections that are written as one of them.
fn names(section: &Section) -> impl Iterator<Item = &'static str> {
    let inside = SECTIONS.iter().filter_map(move |inner| inner.name.strip_prefix(section.name)?.strip_prefix('.'));
    section.keys.iter().map(|key| key.name).chain(inside)
}

/// The one that was probably meant.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase().replace(['-', ' '], "_");
    let distances = known.map(|name| (strsim::damerau_levenshtein(&word, name), name));
    distances.filter(|(distance, name)| *distance <= 1 + name.len() / 5).min().map(|(_, name)| name)
}

/// What to do about keys that a section does not have. They are in the order of the file, and there is at least one;
/// `is_table` tells about the first.
pub(super) fn unknown(section: &Section, names_there: &[&str], is_table: bool) -> String {
    let Some(first) = names_there.first() else { return String::new() };
    let (is_top, name) = (section.name.is_empty(), section.name);
    let listed = || sections().map(|name| format!("[{name}]")).collect::<Vec<_>>().join(", ");
    if is_top && is_table {
        return match nearest(first, sections()) {
            Some(near) => format!("[{first}] is no section of a run file; did you mean [{near}]?"),
            None => format!("[{first}] is no section of a run file; its sections are {}", listed()),
        };
    }
    let above: Vec<&str> = names_there.iter().copied().filter(|name| Section::top().key(name).is_some()).collect();
    if !is_top && !above.is_empty() {
        let (stand, it) = if above.len() == 1 { ("stands", "it belongs") } else { ("stand", "they belong") };
        return format!(
            "{} {stand} below [{name}], so {it} to that section; move what belongs to no section to the top of the file, \
             above [{name}]",
            above.join(" and ")
        );
    }
    let here = if is_top { "a run file".to_owned() } else { format!("[{name}]") };
    let told: Vec<String> = names_there.iter().map(|name| section.path(name)).collect();
    let are = if told.len() == 1 { "is no key" } else { "are no keys" };
    let told = format!("{} {are} of {here}", told.join(" and "));
    let elsewhere: Vec<String> = keys::all()
        .filter(|(other, key)| key.name == *first && other.name != name)
        .map(|(other, _)| format!("[{}]", other.name))
        .collect();
    if !elsewhere.is_empty() {
        format!("{told}; {first} is a key of {}", elsewhere.join(" and of "))
    } else if let Some(near) = nearest(first, names(section)) {
        format!("{told}; did you mean {near}?")
    } else if let Some(near) = nearest(first, sections()).filter(|_| is_top) {
        format!("{told}; did you mean the section [{near}]?")
    } else if let Some(near) = nearest_path(first) {
        format!("{told}; did you mean {near}?")
    } else {
        let sections = if is_top { format!(", and its sections {}", listed()) } else { String::new() };
        format!("{told}; its keys are {}{sections}", names(section).collect::<Vec<_>>().join(", "))
    }
}

/// Section and key of the one that was probably meant, whatever its section.
pub(super) fn nearest_path(word: &str) -> Option<String> {
    let near = nearest(word, keys::all().map(|(_, key)| key.name))?;
    keys::all().find(|(_, key)| key.name == near).map(|(section, key)| section.path(key.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised() {
        let near = |word| nearest(word, keys::all().map(|(_, key)| key.name));
        assert_eq!(near("token_buget"), Some("token_budget"));
        assert_eq!(near("Token-Budget"), Some("token_budget"));
        assert_eq!(near("learnign_rate"), Some("learning_rate"));
        assert_eq!(near("entirely_else"), None);
        assert_eq!(nearest_path("learnign_rate").as_deref(), Some("inner.learning_rate"));
        let merge = Section::find("merge").unwrap();
        assert_eq!(
            unknown(merge, &["stalenes"], false),
            "merge.stalenes is no key of [merge]; did you mean staleness?"
        );
        assert_eq!(
            unknown(merge, &["power"], false),
            "merge.power is no key of [merge]; power is a key of [merge.staleness]"
        );
    }

    #[test]
    fn names_of_two_sections_are_of_one_kind() {
        for (_, key) in keys::all() {
            let is_flag = is_flag(key.name);
            assert!(keys::all().all(|(_, other)| other.name != key.name || (other.kind == Kind::Flag) == is_flag));
        }
    }
}
