//! What a disk's refusal means to its owner.

use std::io;

/// "the disk is full", or what else it says.
pub fn refusal(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::StorageFull => "the disk is full".into(),
        io::ErrorKind::QuotaExceeded => "this user's share of the disk is used up".into(),
        io::ErrorKind::ReadOnlyFilesystem => "the disk is read-only".into(),
        io::ErrorKind::PermissionDenied => "Nightjar may not write to its own folder".into(),
        _ => format!("the disk refuses ({e})"),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn each_refusal_has_its_words() {
        let says = |errno: Errno| refusal(&errno.into());
        assert_eq!(says(Errno::NOSPC), "the disk is full");
        assert_eq!(says(Errno::DQUOT), "this user's share of the disk is used up");
        assert_eq!(says(Errno::ROFS), "the disk is read-only");
        assert!(says(Errno::IO).starts_with("the disk refuses ("));
    }
}
