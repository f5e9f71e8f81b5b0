//! The address of blobs in a bucket, and what an address lacks: keys and settings come from the environment.

use std::{fmt, str::FromStr};

/// Where blobs are kept in an S3 store: `s3://BUCKET/PREFIX`, and for another server than Amazon's
/// `?endpoint=https://HOST:PORT&region=REGION`. What it leaves out comes from the usual variables of the environment
/// (`AWS_ENDPOINT_URL`, `AWS_REGION`, …), and keys come from there alone.
#[derive(Clone)]
pub struct BucketUrl {
    pub(super) bucket: String,
    /// Without slashes at its ends; may be empty.
    pub(super) prefix: String,
    endpoint: Option<String>,
    region: Option<String>,
    /// What the environment says: names in small letters, keys among them.
    settings: Vec<(String, String)>,
}

/// An address that is none. It does not repeat what was given: a key may be in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the address of the blobs cannot be used: {0}. Write s3://BUCKET/PREFIX, and for another server than Amazon's \
     s3://BUCKET/PREFIX?endpoint=https://HOST:PORT&region=REGION"
)]
pub struct BadBucket(&'static str);

impl FromStr for BucketUrl {
    type Err = BadBucket;

    fn from_str(url: &str) -> Result<Self, BadBucket> {
        let settings =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self::parse(url, settings)
    }
}

impl BucketUrl {
    /// Reads an address, with an environment to fill it up from.
    pub fn parse(url: &str, environment: impl Iterator<Item = (String, String)>) -> Result<Self, BadBucket> {
        let rest = url.strip_prefix("s3://").ok_or(BadBucket("it does not begin with s3://"))?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        if rest.contains('@') {
            return Err(BadBucket("keys do not belong in it: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"));
        }
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(is_plain) {
            return Err(BadBucket("a bucket's name has 3 to 63 letters, digits, dots and hyphens"));
        }
        let prefix = prefix.trim_matches('/');
        let is_part = |part: &str| !part.is_empty() && part.chars().all(is_plain) && part.chars().any(|c| c != '.');
        if !prefix.is_empty() && !prefix.split('/').all(is_part) {
            return Err(BadBucket("its prefix has other characters than letters, digits, dots, hyphens and slashes"));
        }
        let mut address = BucketUrl {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            endpoint: None,
            region: None,
            settings: environment
                .filter(|(name, value)| name.starts_with("AWS_") && !value.is_empty())
                .map(|(name, value)| (name.to_ascii_lowercase(), value))
                .collect(),
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("endpoint", endpoint)) => address.endpoint = Some(endpoint.trim_end_matches('/').to_owned()),
                Some(("region", region)) if !region.is_empty() && region.chars().all(is_plain) => {
                    address.region = Some(region.to_owned());
                }
                Some(("region", _)) => return Err(BadBucket("its region is no name of one")),
                _ => return Err(BadBucket("after the question mark only endpoint= and region= may stand")),
            }
        }
        match address.endpoint() {
            Some(endpoint) if !is_endpoint(endpoint) => {
                Err(BadBucket("an endpoint is https://HOST or https://HOST:PORT and nothing more"))
            }
            Some(endpoint) if endpoint.starts_with("http://") && !address.may_use_http(endpoint) => Err(BadBucket(
                "its endpoint is http://, where anybody on the way can read and change blobs: use https://, or set \
                 AWS_ALLOW_HTTP=true if you trust the network",
            )),
            _ => Ok(address),
        }
    }

    fn setting(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The server's address; `None`: Amazon's, of the region.
    pub(super) fn endpoint(&self) -> Option<&str> {
        let given = self.endpoint.as_deref();
        given.or_else(|| self.setting("aws_endpoint_url_s3")).or_else(|| self.setting("aws_endpoint_url"))
    }

    fn may_use_http(&self, endpoint: &str) -> bool {
        // What goes to this machine goes over no network.
        let host = endpoint.trim_start_matches("http://");
        let is_here = ["127.0.0.1", "localhost", "[::1]"]
            .iter()
            .any(|here| host.strip_prefix(here).is_some_and(|port| port.is_empty() || port.starts_with(':')));
        is_here || self.setting("aws_allow_http").is_some_and(|allow| ["true", "1", "yes"].contains(&allow))
    }

    /// All settings, as [`object_store::aws::AmazonS3ConfigKey`] names them: what the address says comes last, and
    /// counts.
    pub(super) fn settings(&self) -> impl Iterator<Item = (&str, &str)> {
        let known = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let http = self.endpoint().is_some_and(|endpoint| endpoint.starts_with("http://")).then_some("true");
        let own = [
            ("aws_bucket_name", Some(self.bucket.as_str())),
            ("aws_endpoint_url", self.endpoint()),
            ("aws_region", self.region.as_deref()),
            ("aws_allow_http", http),
        ];
        known.chain(own.into_iter().filter_map(|(name, value)| Some((name, value?))))
    }

    /// Whether both are the same place, whatever keys open it.
    pub fn is_same_place(&self, other: &BucketUrl) -> bool {
        (&self.bucket, &self.prefix, self.endpoint()) == (&other.bucket, &other.prefix, other.endpoint())
    }
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')
}

fn is_endpoint(endpoint: &str) -> bool {
    let host = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
    host.is_some_and(|host| !host.is_empty() && host.chars().all(|c| is_plain(c) || matches!(c, ':' | '[' | ']')))
}

impl fmt::Display for BucketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if !self.prefix.is_empty() {
            write!(f, "/{}", self.prefix)?;
        }
        let said = [("endpoint", &self.endpoint), ("region", &self.region)];
        let said = said.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)));
        let said = said.collect::<Vec<_>>().join("&");
        if said.is_empty() { Ok(()) } else { write!(f, "?{said}") }
    }
}

impl fmt::Debug for BucketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str, environment: &[(&str, &str)]) -> Result<BucketUrl, BadBucket> {
        BucketUrl::parse(url, environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn an_address_is_read_and_shown_and_never_with_a_key() {
        let keys = [("AWS_ACCESS_KEY_ID", "owl"), ("AWS_SECRET_ACCESS_KEY", "hoot"), ("PATH", "/bin")];
        for (url, shown) in [
            ("s3://night/run1", "s3://night/run1"),
            ("s3://night/a/b.c/", "s3://night/a/b.c"),
            ("s3://night", "s3://night"),
            (
                "s3://night/x?endpoint=https://s3.lab:9000/&region=eu-1",
                "s3://night/x?endpoint=https://s3.lab:9000&region=eu-1",
            ),
            ("s3://night/x?endpoint=http://127.0.0.1:8333", "s3://night/x?endpoint=http://127.0.0.1:8333"),
        ] {
            let parsed = parse(url, &keys).unwrap();
            assert_eq!((parsed.to_string(), format!("{parsed:?}")), (shown.to_owned(), shown.to_owned()));
            assert!(parse(shown, &[]).unwrap().is_same_place(&parsed));
            assert!(parsed.settings().any(|(name, value)| (name, value) == ("aws_secret_access_key", "hoot")));
            assert!(parsed.settings().all(|(name, _)| name.starts_with("aws_")));
        }
    }

    #[test]
    fn what_the_address_leaves_out_comes_from_the_environment() {
        let environment = [("AWS_ENDPOINT_URL", "https://a.lab"), ("AWS_REGION", "a")];
        let last = |url: &BucketUrl, name| url.settings().filter(|(n, _)| *n == name).last().map(|(_, v)| v.to_owned());
        let filled = parse("s3://night/x", &environment).unwrap();
        assert_eq!(last(&filled, "aws_endpoint_url").as_deref(), Some("https://a.lab"));
        let given = parse("s3://night/x?endpoint=https://b.lab&region=b", &environment).unwrap();
        assert_eq!(last(&given, "aws_endpoint_url").as_deref(), Some("https://b.lab"));
        assert_eq!(last(&given, "aws_region").as_deref(), Some("b"));
        assert!(!given.is_same_place(&filled));
    }

    #[test]
    fn a_bad_address_is_refused_in_words_that_repeat_nothing_of_it() {
        for (url, why) in [
            ("", "s3://"),
            ("https://hoot/run", "s3://"),
            ("s3://owl:hoot@night/run", "AWS_ACCESS_KEY_ID"),
            ("s3://ow/run", "3 to 63"),
            ("s3://night/../hoot", "prefix"),
            ("s3://night/a//hoot", "prefix"),
            ("s3://night/run?secret=hoot", "endpoint= and region="),
            ("s3://night/run?endpoint=hoot", "https://HOST"),
            ("s3://night/run?endpoint=https://lab/hoot", "https://HOST"),
            ("s3://night/run?region=", "region"),
            ("s3://night/run?endpoint=http://s3.lab", "AWS_ALLOW_HTTP=true"),
            ("s3://night/run?endpoint=http://127.0.0.1.hoot.org", "AWS_ALLOW_HTTP=true"),
        ] {
            let told = parse(url, &[]).unwrap_err().to_string();
            assert!(told.contains(why) && !told.contains("hoot"), "{url}: {told}");
        }
        assert!(parse("s3://night/run?endpoint=http://s3.lab", &[("AWS_ALLOW_HTTP", "true")]).is_ok());
    }
}
