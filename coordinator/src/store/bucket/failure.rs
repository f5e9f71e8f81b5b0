//! What can go wrong with an object store, in words for the person who runs it, and whether it may pass by itself.

use object_store::Error;
use std::{error::Error as _, io};

/// An object store that cannot be used, as far as is known now. What is kept there is not lost by it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It does not answer, or says that it cannot.
    #[error(
        "the object store {place} cannot be used now ({why}); nothing is lost, and it goes on when the store is back"
    )]
    Away {
        /// Its address.
        place: String,
        /// What it or the system says.
        why: String,
    },
    /// It answers, and refuses.
    #[error("the object store {place} refuses: {why}")]
    Refused {
        /// Its address.
        place: String,
        /// Why, and what to do.
        why: String,
    },
}

impl StoreError {
    /// What is inside an error that a [`super::Bucket`] gave.
    pub fn of(error: &io::Error) -> Option<&StoreError> {
        error.get_ref()?.downcast_ref()
    }

    /// Whether somebody has to change something before it can be used.
    pub fn is_refusal(&self) -> bool {
        matches!(self, StoreError::Refused { .. })
    }
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> io::Error {
        io::Error::other(error)
    }
}

/// What a request's end means.
#[derive(Debug)]
pub(super) enum Failure {
    /// There is no such object.
    Missing,
    /// The store, not the object.
    Store(StoreError),
}

/// Reads what the store or its client said. `place` is its address, without keys.
pub(super) fn failure(error: &Error, place: &str) -> Failure {
    let said = said(error);
    let refused = |why: &str| Failure::Store(StoreError::Refused { place: place.to_owned(), why: why.to_owned() });
    let code = between(&said, "<Code>", "</Code>").unwrap_or("");
    match (code, error) {
        ("NoSuchBucket", _) => refused("it has no bucket of this name; make one, or correct the address (--blobs)"),
        ("InvalidAccessKeyId", _) => refused("it does not know the key; correct AWS_ACCESS_KEY_ID"),
        ("SignatureDoesNotMatch", _) => refused("the secret is not the key's; correct AWS_SECRET_ACCESS_KEY"),
        ("RequestTimeTooSkewed", _) => refused("this computer's clock differs too much from its own; set the clock"),
        ("AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException", _) => {
            let expected = between(&said, "<Region>", "</Region>");
            let expected = expected.map_or(String::new(), |region| format!(" ({region})"));
            refused(&format!(
                "the bucket is in another region{expected}; add ?region=REGION to the address, or set AWS_REGION"
            ))
        }
        ("", Error::NotFound { .. }) if said.contains('<') => {
            refused("what answers there does not speak S3's protocol; correct the endpoint")
        }
        (_, Error::NotFound { .. }) => Failure::Missing,
        _ if said.contains("incorrectly configured region") => {
            refused("the bucket is in another region; add ?region=REGION to the address, or set AWS_REGION")
        }
        _ if said.contains("169.254.169.254") => {
            refused("no key was given, and this computer has none; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
        }
        (_, Error::PermissionDenied { .. } | Error::Unauthenticated { .. }) => {
            refused("the key may not do this; let it list the bucket, and get, put and delete objects below the prefix")
        }
        (_, Error::NotImplemented { .. } | Error::NotSupported { .. } | Error::InvalidPath { .. }) => refused(&said),
        _ => Failure::Store(StoreError::Away { place: place.to_owned(), why: in_short(&said) }),
    }
}

/// Whether an object was asked for bytes behind its last.
pub(super) fn is_past_end(error: &Error) -> bool {
    let said = said(error);
    ["InvalidRange", "Range Not Satisfiable", "Wanted range starting at"].iter().any(|sign| said.contains(sign))
}

/// An error and all that is behind it.
fn said(error: &Error) -> String {
    let mut said = error.to_string();
    let mut behind = error.source();
    while let Some(error) = behind {
        let more = error.to_string();
        if !said.contains(&more) {
            said.push_str(": ");
            said.push_str(&more);
        }
        behind = error.source();
    }
    said
}

fn between<'a>(text: &'a str, from: &str, to: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(from)?;
    Some(rest.split_once(to)?.0)
}

/// The end of a chain of causes says what happened; the addresses before it are of no use to a reader.
fn in_short(said: &str) -> String {
    for (sign, why) in [
        ("onnection refused", "nobody answers at its address"),
        ("dns error", "its name is not known; correct the endpoint, or wait for the network"),
        ("failed to lookup", "its name is not known; correct the endpoint, or wait for the network"),
        ("certificate", "its certificate is not trusted here"),
        ("operation timed out", "it does not answer in time"),
        ("deadline has elapsed", "it does not answer in time"),
        ("503 ", "it says that it has too much to do"),
    ] {
        if said.contains(sign) {
            return why.to_owned();
        }
    }
    let last = said.rsplit(": ").next().unwrap_or(said);
    last.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(error: Error) -> String {
        match failure(&error, "s3://night/run") {
            Failure::Missing => "missing".into(),
            Failure::Store(error) => error.to_string(),
        }
    }

    fn source(text: &str) -> Box<dyn std::error::Error + Send + Sync> {
        text.to_owned().into()
    }

    #[test]
    fn each_failure_is_told_with_what_to_do() {
        let missing = |text| Error::NotFound { path: "x".into(), source: source(text) };
        let other = |text| Error::Generic { store: "S3", source: source(text) };
        let forbidden = |text| Error::PermissionDenied { path: "x".into(), source: source(text) };
        for (error, words) in [
            (missing("404: <Error><Code>NoSuchKey</Code></Error>"), "missing"),
            (missing("404: "), "missing"),
            (missing("404: <Error><Code>NoSuchBucket</Code></Error>"), "no bucket"),
            (missing("404: <html>nothing here</html>"), "does not speak S3"),
            (forbidden("<Code>InvalidAccessKeyId</Code>"), "AWS_ACCESS_KEY_ID"),
            (forbidden("<Code>SignatureDoesNotMatch</Code>"), "AWS_SECRET_ACCESS_KEY"),
            (forbidden("<Code>RequestTimeTooSkewed</Code>"), "clock"),
            (forbidden("<Code>AccessDenied</Code>"), "may not do this"),
            (other("<Code>AuthorizationHeaderMalformed</Code><Region>eu-1</Region>"), "another region (eu-1)"),
            (other("Received redirect … an incorrectly configured region"), "?region="),
            (other("PUT http://169.254.169.254/latest/api/token"), "no key was given"),
            (other("client error (Connect): tcp connect error: Connection refused"), "nobody answers"),
            (other("deadline has elapsed"), "does not answer in time"),
            (other("503 Service Unavailable"), "too much to do"),
            (other("a: b: something new\n"), "now (something new); nothing is lost"),
        ] {
            let told = told(error);
            assert!(told.contains(words), "{words}: {told}");
        }
    }
}
