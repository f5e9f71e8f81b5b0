//! The file in which a service is written down. Only one that this program wrote is ever replaced or removed.

use super::ServiceError;
use std::{
    fs,
    io::{self, Write},
    path::Path,
};

/// No file of ours is longer.
const BYTES_MAX: u64 = 64 << 10;

/// Whether there is a file of ours, which bears `mark`; an error that names it if it is another's, or a link.
pub(super) fn is_ours(file: &Path, mark: &str) -> Result<bool, ServiceError> {
    let place = || file.display().to_string();
    match fs::symlink_metadata(file) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(ServiceError::File { place: place(), source }),
        Ok(about) => {
            let is_plain = about.is_file() && about.len() <= BYTES_MAX;
            let is_marked = is_plain && fs::read_to_string(file).is_ok_and(|text| text.contains(mark));
            if is_marked { Ok(true) } else { Err(ServiceError::Foreign { place: place() }) }
        }
    }
}

/// Writes it, or replaces ours.
pub(super) fn write(file: &Path, text: &str, mark: &str) -> Result<(), ServiceError> {
    let error = |source| ServiceError::File { place: file.display().to_string(), source };
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).map_err(error)?;
    }
    if is_ours(file, mark)? {
        return fs::write(file, text).map_err(error);
    }
    // Whatever has come into its place since is another's.
    let created = fs::File::options().write(true).create_new(true).open(file);
    created.and_then(|mut created| created.write_all(text.as_bytes())).map_err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deep/er/nightjar.service");
        assert!(!is_ours(&file, "# ours").unwrap());
        write(&file, "# ours\n1\n", "# ours").unwrap();
        write(&file, "# ours\n2\n", "# ours").unwrap();
        assert!(is_ours(&file, "# ours").unwrap());
        assert_eq!(fs::read_to_string(&file).unwrap(), "# ours\n2\n");
        fs::write(&file, "[Service]\nExecStart=/home/ada/mine\n").unwrap();
        let told = write(&file, "# ours\n3\n", "# ours").unwrap_err().to_string();
        assert!(told.contains("deep/er/nightjar.service") && told.contains("move it away"), "{told}");
        assert!(is_ours(&file, "# ours").is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "[Service]\nExecStart=/home/ada/mine\n");
    }

    #[cfg(unix)]
    #[test]
    fn nothing_is_written_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (file, theirs) = (folder.path().join("nightjar.service"), folder.path().join("dotfiles"));
        for text in [Some("# ours\nof the owner's dotfiles\n"), None] {
            match text {
                Some(text) => fs::write(&theirs, text).unwrap(),
                None => fs::remove_file(&theirs).unwrap(),
            }
            let _ = fs::remove_file(&file);
            std::os::unix::fs::symlink(&theirs, &file).unwrap();
            assert!(write(&file, "# ours\n", "# ours").is_err() && is_ours(&file, "# ours").is_err());
            assert_eq!(fs::read_to_string(&theirs).ok().as_deref(), text);
        }
    }
}
