//! How much one device, one address and one invite may take: the table of limits, their defaults, and how `serve --limit`
//! changes one. [`super::rates`] keeps count.

use nightjar_shared::{
    run_spec::RunSpec,
    wire::limits::{
        DEVICES_PER_ADDRESS_MAX, ENROLMENTS_BURST, ENROLMENTS_PER_ADDRESS_AN_HOUR, ENROLMENTS_PER_ADDRESS_BURST,
        ENROLMENTS_PER_S, REQUESTS_BURST, REQUESTS_PER_S,
    },
};
use std::{fmt, str::FromStr};

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Connections at once.
    Connections,
    /// Devices that enrol.
    Enrolments,
    /// Requests.
    Requests,
    /// Bytes of blobs, both ways.
    Bytes,
}

/// For whom it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// One device. It has one connection anyway, and enrols once.
    Device,
    /// One address: of IPv6 one /64, which is what a household is given. This computer's own are not counted.
    Address,
    /// All devices that came with one invite.
    Invite,
}

/// All limits, by their names.
pub const ALL: [(&str, Kind, Per); 10] = [
    ("connections-per-address", Kind::Connections, Per::Address),
    ("connections-per-invite", Kind::Connections, Per::Invite),
    ("enrolments-per-address", Kind::Enrolments, Per::Address),
    ("enrolments-per-invite", Kind::Enrolments, Per::Invite),
    ("requests-per-device", Kind::Requests, Per::Device),
    ("requests-per-address", Kind::Requests, Per::Address),
    ("requests-per-invite", Kind::Requests, Per::Invite),
    ("bytes-per-device", Kind::Bytes, Per::Device),
    ("bytes-per-address", Kind::Bytes, Per::Address),
    ("bytes-per-invite", Kind::Bytes, Per::Invite),
];

/// How much of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// At once.
    pub burst: u64,
    /// In an hour, in the long run; nothing comes back of connections but by their end.
    pub an_hour: u64,
}

/// A limit that somebody has set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Its place in [`ALL`].
    pub at: usize,
    /// `None`: without limit.
    pub bound: Option<Bound>,
}

/// A limit that cannot be set so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadLimit {
    /// No such name.
    #[error("{0} is no limit; these are: {names}", names = ALL.map(|(name, ..)| name).join(", "))]
    Name(String),
    /// No such value.
    #[error(
        "{0}: write NAME=AT_ONCE/AN_HOUR, as in enrolments-per-address=500/100, NAME=NUMBER for connections, or NAME=none; \
         bytes may end in K, M, G or T"
    )]
    Value(String),
}

impl FromStr for Limit {
    type Err = BadLimit;

    fn from_str(text: &str) -> Result<Self, BadLimit> {
        let (name, value) = text.split_once('=').ok_or_else(|| BadLimit::Value(text.to_owned()))?;
        let at = ALL.iter().position(|(known, ..)| *known == name).ok_or_else(|| BadLimit::Name(name.to_owned()))?;
        let bad = || BadLimit::Value(text.to_owned());
        let is_bytes = ALL[at].1 == Kind::Bytes;
        let number = |text: &str| number(text, is_bytes).filter(|n| *n > 0).ok_or_else(bad);
        let bound = match (value, value.split_once('/'), ALL[at].1) {
            ("none", ..) => None,
            (_, None, Kind::Connections) => Some(Bound { burst: number(value)?, an_hour: 0 }),
            (_, Some((burst, an_hour)), kind) if kind != Kind::Connections => {
                Some(Bound { burst: number(burst)?, an_hour: number(an_hour)? })
            }
            _ => return Err(bad()),
        };
        Ok(Limit { at, bound })
    }
}

fn number(text: &str, is_bytes: bool) -> Option<u64> {
    let suffix = text.chars().last()?;
    let shift = match suffix {
        'K' => 10,
        'M' => 20,
        'G' => 30,
        'T' => 40,
        _ => return text.parse().ok(),
    };
    let number: u64 = text[..text.len() - 1].parse().ok().filter(|_| is_bytes)?;
    number.checked_mul(1 << shift)
}

/// The bound of each limit, in the order of [`ALL`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits(pub [Option<Bound>; ALL.len()]);

impl Limits {
    /// Those of a run that says nothing else. Bytes go by the model: what follows every version has room, what fetches
    /// the whole model again and again has not.
    pub fn of(spec: &RunSpec) -> Self {
        let hourly = |per_s: f64| (per_s * 3600.0) as u64;
        let keyframe = 2 * spec.model.parameters() as u64;
        let bound = |name| match name {
            "connections-per-address" => Some(Bound { burst: DEVICES_PER_ADDRESS_MAX as u64, an_hour: 0 }),
            "enrolments-per-address" => Some(Bound {
                burst: ENROLMENTS_PER_ADDRESS_BURST.into(),
                an_hour: ENROLMENTS_PER_ADDRESS_AN_HOUR.into(),
            }),
            "enrolments-per-invite" => {
                Some(Bound { burst: ENROLMENTS_BURST.into(), an_hour: hourly(ENROLMENTS_PER_S) })
            }
            "requests-per-device" => Some(Bound { burst: REQUESTS_BURST.into(), an_hour: hourly(REQUESTS_PER_S) }),
            "bytes-per-device" => Some(Bound {
                burst: keyframe.saturating_mul(16).saturating_add(4 << 30),
                an_hour: keyframe.saturating_mul(256).saturating_add(8 << 30),
            }),
            _ => None,
        };
        Limits(ALL.map(|(name, ..)| bound(name)))
    }

    /// With those that somebody has set.
    pub fn with(mut self, set: &[Limit]) -> Self {
        set.iter().for_each(|limit| self.0[limit.at] = limit.bound);
        self
    }

    /// The bound of what is counted for somebody.
    pub fn bound(&self, kind: Kind, per: Per) -> Option<Bound> {
        self.0[place(kind, per)?]
    }
}

/// A limit's place in [`ALL`].
pub fn place(kind: Kind, per: Per) -> Option<usize> {
    ALL.iter().position(|(_, k, p)| (*k, *p) == (kind, per))
}

impl fmt::Display for Per {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Per::Device => "this device",
            Per::Address => "this address",
            Per::Invite => "this invite",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_set_by_its_name() {
        let set = |text: &str| text.parse::<Limit>().map(|limit| (ALL[limit.at].0, limit.bound));
        let bound = |burst, an_hour| Some(Bound { burst, an_hour });
        assert_eq!(set("enrolments-per-address=500/100"), Ok(("enrolments-per-address", bound(500, 100))));
        assert_eq!(set("connections-per-address=7"), Ok(("connections-per-address", bound(7, 0))));
        assert_eq!(set("bytes-per-invite=2G/1T"), Ok(("bytes-per-invite", bound(2 << 30, 1 << 40))));
        assert_eq!(set("bytes-per-device=none"), Ok(("bytes-per-device", None)));
        for bad in [
            "requests-per-device=3",
            "requests-per-device=1K/2",
            "requests-per-device=0/5",
            "connections-per-address=3/4",
            "bytes-per-device=99999999T/1",
            "bytes-per-device=-1/1",
            "requests-per-device",
            "bytes-per-device=é/1",
        ] {
            assert!(matches!(bad.parse::<Limit>(), Err(BadLimit::Value(told)) if told == bad), "{bad}");
        }
        let told = "enrolments=1/1".parse::<Limit>().unwrap_err().to_string();
        assert!(told.contains("enrolments-per-invite"), "{told}");
    }

    #[test]
    fn what_is_set_stands_and_the_rest_stays() {
        let spec = RunSpec::new("x", 1);
        let set: Vec<Limit> = vec!["enrolments-per-address=3/1".parse().unwrap()];
        let limits = Limits::of(&spec).with(&set);
        assert_eq!(limits.bound(Kind::Enrolments, Per::Address), Some(Bound { burst: 3, an_hour: 1 }));
        assert_eq!(limits.bound(Kind::Enrolments, Per::Invite), Limits::of(&spec).bound(Kind::Enrolments, Per::Invite));
        assert_eq!(limits.bound(Kind::Connections, Per::Device), None, "it has one anyway");
        // A day's worth of one address is no thousands.
        let default = Limits::of(&spec).bound(Kind::Enrolments, Per::Address).unwrap();
        assert!(default.burst + 24 * default.an_hour < 1200);
    }
}
