//! `--include` and `--exclude`: shell patterns for names and places of files.

use super::{
    error::DatasetError,
    notes::{Note, Notes},
};
use glob::{MatchOptions, Pattern};
use std::{
    cell::Cell,
    fs, path,
    path::{Path, PathBuf},
};

/// A `*` stays within a name; `**` does not.
const OPTIONS: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };

/// The paths, and in place of each that is a pattern rather than a path, what matches it.
pub fn expand(paths: &[PathBuf]) -> Result<Vec<PathBuf>, DatasetError> {
    let mut expanded = vec![];
    for path in paths {
        let pattern = path.to_str().filter(|text| text.contains(['*', '?', '[']) && !path.exists());
        let Some(pattern) = pattern else {
            expanded.push(path.clone());
            continue;
        };
        let bad = |reason: String| DatasetError::Pattern { pattern: pattern.to_owned(), reason };
        let options = MatchOptions { require_literal_leading_dot: true, ..OPTIONS };
        let found = glob::glob_with(pattern, options).map_err(|error| bad(error.msg.to_owned()))?;
        let before = expanded.len();
        for found in found {
            expanded.push(found.map_err(|error| bad(error.to_string()))?);
        }
        if expanded.len() == before {
            return Err(bad("nothing matches it: check the folder, and the quotes around it".to_owned()));
        }
    }
    Ok(expanded)
}

/// Which files are taken.
#[derive(Debug, Default)]
pub struct Patterns {
    include: Vec<Used>,
    exclude: Vec<Used>,
}

/// A pattern, and whether anything matched it.
#[derive(Debug)]
struct Used {
    pattern: Pattern,
    used: Cell<bool>,
}

impl Patterns {
    /// Of what was written.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, DatasetError> {
        let of = |texts: &[String]| {
            let of = |text: &String| {
                let trimmed = text.strip_prefix("./").unwrap_or(text).trim_end_matches('/');
                // A place from the root on, without detours.
                let whole =
                    Path::new(trimmed).is_absolute().then(|| Path::new(trimmed).components().collect::<PathBuf>());
                let pattern = Pattern::new(whole.as_ref().and_then(|whole| whole.to_str()).unwrap_or(trimmed));
                let pattern =
                    pattern.map_err(|e| DatasetError::Pattern { pattern: text.clone(), reason: e.msg.to_owned() })?;
                Ok(Used { pattern, used: Cell::new(false) })
            };
            texts.iter().map(of).collect::<Result<Vec<_>, DatasetError>>()
        };
        Ok(Patterns { include: of(include)?, exclude: of(exclude)? })
    }

    /// Whether files were chosen by pattern.
    pub fn are_chosen(&self) -> bool {
        !self.include.is_empty()
    }

    /// Whether a file is among those to take: all, unless some are chosen.
    pub fn includes(&self, relative: &Path, given: &Path) -> bool {
        self.include.is_empty() || any(&self.include, relative, given)
    }

    /// Whether a file or folder is to be left out.
    pub fn excludes(&self, relative: &Path, given: &Path) -> bool {
        any(&self.exclude, relative, given)
    }

    /// Notes the patterns that matched nothing: they may be mistyped.
    pub fn note_unused(&self, notes: &mut Notes) {
        for unused in self.include.iter().chain(&self.exclude).filter(|p| !p.used.get()) {
            notes.add(Note::UnusedPattern, unused.pattern.as_str());
        }
    }
}

/// Whether one of the patterns matches; a pattern without a slash matches any name on the way, one with a slash the
/// place under the path that was named, or with that path before it, of the file or of a folder that holds it; one that
/// begins with a slash matches its whole name.
fn any(patterns: &[Used], relative: &Path, given: &Path) -> bool {
    let given = given.strip_prefix("./").unwrap_or(given);
    let steps = relative.components().count();
    let matches_whole = |pattern: &Pattern| {
        let places = [path::absolute(given).ok(), fs::canonicalize(given).ok()];
        let mut places = places.iter().flatten().flat_map(|place| place.ancestors().take(steps));
        places.any(|place| pattern.matches_path_with(place, OPTIONS))
    };
    let matches = |pattern: &Pattern| match pattern.as_str().contains('/') || pattern.as_str() == "**" {
        _ if Path::new(pattern.as_str()).is_absolute() => matches_whole(pattern),
        true => {
            let mut places = relative.ancestors().chain(given.ancestors().take(steps));
            places.any(|place| !place.as_os_str().is_empty() && pattern.matches_path_with(place, OPTIONS))
        }
        false => relative.components().any(|name| pattern.matches_path_with(Path::new(name.as_os_str()), OPTIONS)),
    };
    let matching = patterns.iter().filter(|used| matches(&used.pattern));
    matching.inspect(|used| used.used.set(true)).count() > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_names_places_and_folders() {
        for (pattern, path, wanted) in [
            ("*.txt", "a.txt", true),
            ("*.txt", "sub/a.txt", true),
            ("*.txt", "a.txt.gz", false),
            ("test", "test/a.txt", true),
            ("test/", "x/test/a.txt", true),
            ("test", "contest/a.txt", false),
            ("sub/*.txt", "sub/a.txt", true),
            ("sub/*.txt", "sub/deep/a.txt", false),
            ("sub/**/*.txt", "sub/deep/er/a.txt", true),
            ("**/*.txt", "a.txt", true),
            ("data/sub", "sub/a.txt", true),
            ("data/*.txt", "a.txt", true),
            ("data", "a.txt", false),
            ("**", "a/b", true),
            ("[ab].txt", "b.txt", true),
        ] {
            let patterns = Patterns::new(&[], &[pattern.to_owned()]).unwrap();
            let given = Path::new("./data").join(path);
            assert_eq!(patterns.excludes(Path::new(path), &given), wanted, "{pattern} on {path}");
        }
        let root = std::env::current_dir().unwrap();
        for (pattern, wanted) in
            [("data/*.txt", true), ("./data/*.txt", true), ("data/sub/*.txt", false), ("data", false)]
        {
            let patterns = Patterns::new(&[root.join(pattern).display().to_string()], &[]).unwrap();
            assert_eq!(patterns.includes(Path::new("a.txt"), Path::new("data/a.txt")), wanted, "{pattern}");
        }
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.txt", "a.txt", ".c.txt", "d[1].txt"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        let expanded = |pattern: &str| expand(&[folder.path().join(pattern)]);
        assert_eq!(expanded("?.txt").unwrap(), ["a.txt", "b.txt"].map(|name| folder.path().join(name)));
        assert_eq!(expanded("d[1].txt").unwrap(), [folder.path().join("d[1].txt")]);
        assert!(expanded("*.json").unwrap_err().to_string().contains("nothing matches it"));
        assert!(Patterns::new(&["a[".into()], &[]).unwrap_err().to_string().contains("a["));
    }
}
