//! Names of the files that a worker leaves for its agent, in the device's home folder. They follow from the lease
//! alone, so that nobody needs to take a worker's word for them.

use crate::ids::{LeaseId, Version};

/// The worker's folder.
pub const FOLDER: &str = "work";

/// The encoded delta of a lease.
pub fn delta(lease: LeaseId) -> String {
    format!("{FOLDER}/lease-{lease}.delta")
}

/// What its delta lost to rounding.
pub fn residual(lease: LeaseId) -> String {
    format!("{FOLDER}/lease-{lease}.residual")
}

/// The optimizer's state after it.
pub fn optimizer(lease: LeaseId) -> String {
    format!("{FOLDER}/lease-{lease}.optimizer")
}

/// The weights of a version.
pub fn weights(version: Version) -> String {
    format!("{FOLDER}/weights-{version}")
}

/// Whether a file of this name in the worker's folder, without the folder, is one that a lease's work makes.
pub fn is_made(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let of_lease = name.strip_prefix("lease-").and_then(|rest| rest.split_once('.'));
    of_lease.is_some_and(|(lease, what)| is_number(lease) && ["delta", "residual", "optimizer"].contains(&what))
        || name.strip_prefix("weights-").is_some_and(is_number)
        || name.strip_prefix("checkpoint.").is_some_and(is_number)
}

/// Whether a name can be that of a file in the worker's folder. A journal that was written before names were fixed may
/// hold any.
pub fn is_inside(name: &str) -> bool {
    let plain =
        |name: &str| !name.starts_with('.') && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    name.strip_prefix(FOLDER)
        .and_then(|rest| rest.strip_prefix('/'))
        .is_some_and(|name| !name.is_empty() && plain(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_inside() {
        let lease = LeaseId(u64::MAX);
        for name in [delta(lease), residual(lease), optimizer(lease), weights(Version(7))] {
            assert!(is_inside(&name), "{name}");
        }
        assert_eq!(delta(LeaseId(3)), "work/lease-3.delta");
        for name in [
            "",
            "work",
            "work/",
            "work/.",
            "work/..",
            "work/../key",
            "work/a/b",
            "/work/a",
            "blobs/a",
            "work/a\0",
            "work\\a",
        ] {
            assert!(!is_inside(name), "{name}");
        }
    }
}
