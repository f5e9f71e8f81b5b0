//! A kernel's text, and how it is specialised: by rewriting the default of an `override`, the `alias Elem` line, or the
//! size of a tile, since the runtime passes no pipeline constants. What comes out is WGSL again, and its whole text is
//! its cache key.

use crate::{Field, Parameters};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock},
};

/// More workgroups than these go into rows of so many. WebGPU allows 65535 in a dimension; with fewer, tests reach the
/// second row without gigabytes, and of the last row at most so many have nothing to do.
const ACROSS: usize = 1024;
/// Most workgroups in one dimension, by WebGPU's limits.
pub const GROUPS_MAX: usize = 65_535;

/// What a kernel's `alias Elem` stands for: the type in memory, while all is computed in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Elem {
    /// As the file has it.
    #[default]
    F32,
    /// Where the adapter has `SHADER_F16`.
    F16,
}

/// So many workgroups in two dimensions, with the least of the last row left over. A kernel finds its number as
/// `group.y * groups.x + group.x`, and passes over numbers that are too large.
pub fn spread(groups: usize) -> [u32; 3] {
    let across = groups.clamp(1, ACROSS.max(groups.div_ceil(GROUPS_MAX)));
    [across as u32, groups.div_ceil(across).max(1) as u32, 1]
}

/// One kernel: what its file is and how Rust speaks to it.
#[derive(Debug)]
pub struct Kernel {
    /// The file's name without `.wgsl`.
    pub name: &'static str,
    /// The file's text.
    pub source: &'static str,
    /// Members of the structure at the last binding.
    pub parameters: &'static [Field],
    /// Members of the structure that binding 0 has an array of, where that is a table from the host; else none.
    pub table: &'static [Field],
    /// Invocations of a workgroup, as its `@workgroup_size` has it.
    pub workgroup: [u32; 3],
}

impl Kernel {
    /// Describes a kernel whose parameters are `P`.
    pub const fn new<P: Parameters>(name: &'static str, source: &'static str, workgroup: [u32; 3]) -> Self {
        Kernel { name, source, parameters: P::FIELDS, table: &[], workgroup }
    }

    /// The same with a table of `R` at binding 0.
    pub const fn with_table<R: Parameters>(self) -> Self {
        Kernel { table: R::FIELDS, ..self }
    }

    /// The text with these constants; each must have its `override` line, and `alias Elem` its own if `elem` is not
    /// f32.
    /// `TILE` has a `const` line, and is in the aliases of the types of tiles too.
    ///
    /// # Panics
    /// If a line is missing: the caller and the file are of one build.
    pub fn text(&self, constants: &[(&'static str, u32)], elem: Elem) -> Arc<str> {
        type Key = (&'static str, Vec<(&'static str, u32)>, Elem);
        static TEXTS: OnceLock<Mutex<HashMap<Key, Arc<str>>>> = OnceLock::new();
        let substituted = substitutes().get(self.name).cloned();
        if let Some(source) = substituted {
            return specialise(self.name, &source, constants, elem).into();
        }
        let mut texts = lock(TEXTS.get_or_init(Mutex::default));
        let key = (self.name, constants.to_vec(), elem);
        texts.entry(key).or_insert_with(|| specialise(self.name, self.source, constants, elem).into()).clone()
    }
}

fn specialise(name: &str, source: &str, constants: &[(&'static str, u32)], elem: Elem) -> String {
    let mut seen = 0;
    let mut text = String::with_capacity(source.len() + 16);
    if elem == Elem::F16 {
        text.push_str("enable f16;\n");
    }
    for line in source.split_inclusive('\n') {
        let constant = line.strip_prefix("override ").and_then(|rest| rest.split_once(':'));
        let tile = constants.iter().find(|(id, _)| *id == "TILE").map(|(_, tile)| tile);
        if let Some(tile) = tile.filter(|_| line.starts_with("const TILE")) {
            seen += 1;
            text.push_str(&format!("const TILE: u32 = {tile}u;\n"));
            continue;
        }
        if let (Some(tile), Some((before, after))) =
            (tile, line.split_once("coop_mat16x16").filter(|_| line.starts_with("alias")))
        {
            text.push_str(&format!("{before}coop_mat{tile}x{tile}{after}"));
            continue;
        }
        match constant.and_then(|(id, _)| constants.iter().find(|(wanted, _)| *wanted == id.trim())) {
            Some((id, value)) => {
                seen += 1;
                text.push_str(&format!("override {id}: u32 = {value}u;\n"));
            }
            None if elem == Elem::F16 && line.starts_with("alias Elem") => {
                seen += 1;
                text.push_str("alias Elem = f16;\n");
            }
            None => text.push_str(line),
        }
    }
    let wanted = constants.len() + usize::from(elem == Elem::F16);
    assert!(seen == wanted, "{name}.wgsl has {seen} of the {wanted} lines that {constants:?}, {elem:?} are to change");
    text
}

/// From here on this process runs `source` wherever it would run the named kernel: how tests run a mutant through the
/// very wrapper that ships. Gives what it ran instead until now.
pub fn substitute(name: &'static str, source: Option<Arc<str>>) -> Option<Arc<str>> {
    match source {
        Some(source) => substitutes().insert(name, source),
        None => substitutes().remove(name),
    }
}

fn substitutes() -> MutexGuard<'static, HashMap<&'static str, Arc<str>>> {
    static SUBSTITUTES: OnceLock<Mutex<HashMap<&'static str, Arc<str>>>> = OnceLock::new();
    lock(SUBSTITUTES.get_or_init(Mutex::default))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workgroups_are_spread_within_the_limits() {
        assert_eq!([0, 1, 1024, 1025].map(spread), [[1, 1, 1], [1, 1, 1], [1024, 1, 1], [1024, 2, 1]]);
        for groups in [ACROSS * GROUPS_MAX, ACROSS * GROUPS_MAX + 1, u32::MAX as usize - 262_144] {
            let [across, down, _] = spread(groups).map(|n| n as usize);
            assert!(across.max(down) <= GROUPS_MAX && (groups..groups + across).contains(&(across * down)), "{groups}");
        }
    }

    const TEXT: &str = "alias Elem = f32;\noverride ROWS: u32 = 16u; // rows\nconst SIZE = 64u;\n";

    #[test]
    fn only_the_lines_named_change() {
        assert_eq!(specialise("t", TEXT, &[], Elem::F32), TEXT);
        let text = specialise("t", TEXT, &[("ROWS", 4)], Elem::F16);
        assert_eq!(text, "enable f16;\nalias Elem = f16;\noverride ROWS: u32 = 4u;\nconst SIZE = 64u;\n");
    }

    #[test]
    fn a_tile_changes_with_its_types() {
        const TEXT: &str = "alias Sum = coop_mat16x16<f32, C>;\nconst TILE: u32 = 16u;\noverride ADD: u32 = 0u;\n";
        let text = specialise("t", TEXT, &[("TILE", 8), ("ADD", 1)], Elem::F32);
        assert_eq!(text, "alias Sum = coop_mat8x8<f32, C>;\nconst TILE: u32 = 8u;\noverride ADD: u32 = 1u;\n");
    }

    #[test]
    #[should_panic(expected = "0 of the 1 lines")]
    fn a_constant_that_the_file_lacks_is_noticed() {
        specialise("t", TEXT, &[("SIZE", 4)], Elem::F32);
    }
}
