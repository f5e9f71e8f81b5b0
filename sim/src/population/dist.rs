//! A number that differs from device to device, as a population's file writes it: one for all, a list taken in turn, or
//! a distribution.

use crate::draws::{Draws, Purpose};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{SeqAccess, Visitor, value::MapAccessDeserializer},
};
use std::fmt;

/// A number for each device of a group.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Dist {
    /// The same for all.
    Fixed(f64),
    /// The first for the first device, and so on; from the start again at the end.
    List(Vec<f64>),
    /// Drawn from the seed.
    Drawn(Drawn),
}

/// How a number is drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Drawn {
    /// Between two numbers.
    Uniform([f64; 2]),
    /// Its logarithm is uniform between those of two numbers.
    LogUniform([f64; 2]),
    /// Its logarithm is normal.
    LogNormal {
        /// Half of all are below.
        median: f64,
        /// Standard deviation of the natural logarithm.
        sigma: f64,
    },
}

impl Dist {
    /// The number for the group's device `index`.
    pub fn of(&self, index: u32, draws: &mut Draws) -> f64 {
        match self {
            Dist::Fixed(value) => *value,
            Dist::List(values) => values.get(index as usize % values.len().max(1)).copied().unwrap_or_default(),
            Dist::Drawn(Drawn::Uniform([from, to])) => from + (to - from) * draws.unit(Purpose::Traits),
            Dist::Drawn(Drawn::LogUniform([from, to])) => from * libm::pow(to / from, draws.unit(Purpose::Traits)),
            Dist::Drawn(Drawn::LogNormal { median, sigma }) => {
                median * libm::exp(sigma * draws.normal(Purpose::Traits))
            }
        }
    }

    /// Whether all that it can give is within bounds; else one that is not. A log-normal number is cut there instead,
    /// but its median must be inside.
    pub fn outside(&self, least: f64, most: f64) -> Option<f64> {
        let bad = |v: &f64| !(least..=most).contains(v);
        match self {
            Dist::Fixed(value) => Some(*value).filter(bad),
            Dist::List(values) if values.is_empty() => Some(f64::NAN),
            Dist::List(values) => values.iter().copied().find(bad),
            Dist::Drawn(Drawn::LogUniform([from, _])) if *from <= 0.0 => Some(*from),
            Dist::Drawn(Drawn::Uniform(ends) | Drawn::LogUniform(ends)) => ends.iter().copied().find(bad),
            Dist::Drawn(Drawn::LogNormal { sigma, .. }) if !(0.0..=10.0).contains(sigma) => Some(*sigma),
            Dist::Drawn(Drawn::LogNormal { median, .. }) => Some(*median).filter(|m| bad(m) || *m <= 0.0),
        }
    }
}

impl<'de> Deserialize<'de> for Dist {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;
        impl<'de> Visitor<'de> for Written {
            type Value = Dist;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a number, a list of numbers, { uniform = [a, b] }, { log_uniform = [a, b] } or { log_normal = { \
                    median, sigma } }",
                )
            }
            fn visit_f64<E>(self, value: f64) -> Result<Dist, E> {
                Ok(Dist::Fixed(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Dist, E> {
                Ok(Dist::Fixed(value as f64))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Dist, E> {
                Ok(Dist::Fixed(value as f64))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Dist, A::Error> {
                let mut values = vec![];
                while let Some(value) = seq.next_element::<f64>()? {
                    values.push(value);
                }
                Ok(Dist::List(values))
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Dist, A::Error> {
                Drawn::deserialize(MapAccessDeserializer::new(map)).map(Dist::Drawn)
            }
        }
        deserializer.deserialize_any(Written)
    }
}

impl From<f64> for Dist {
    fn from(value: f64) -> Self {
        Dist::Fixed(value)
    }
}
