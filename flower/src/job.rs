//! The job: the model that volunteers train, and whether what a lab sends is that model.

use serde::{Deserialize, Serialize};

/// Names of arrays that a complaint lists.
const NAMED_MAX: usize = 3;

/// A model: its tensors, in the order in which their values travel to a coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// Values of all tensors together.
    pub parameters: u64,
    /// The tensors.
    pub tensors: Vec<Tensor>,
}

/// One tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its sizes.
    pub shape: Vec<usize>,
}

impl Tensor {
    /// How many values it has.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A message that is about another model.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OtherModel {
    /// Names that are not the job's.
    #[error(
        "the arrays are not those of the job's model: {}{}",
        listed("missing are", missing),
        listed("unknown are", unknown)
    )]
    Names {
        /// Of the job, and not in the message.
        missing: Vec<String>,
        /// In the message, and not of the job.
        unknown: Vec<String>,
    },
    /// A shape that is not the job's.
    #[error("the array {name} has the shape {got:?}, and the job's model has {expected:?}")]
    Shape {
        /// Which.
        name: String,
        /// In the message.
        got: Vec<usize>,
        /// In the job.
        expected: Vec<usize>,
    },
}

fn listed(what: &str, names: &[String]) -> String {
    match names.len() {
        0 => String::new(),
        all if all > NAMED_MAX => format!("{what} {} and {} more. ", names[..NAMED_MAX].join(", "), all - NAMED_MAX),
        _ => format!("{what} {}. ", names.join(", ")),
    }
}

impl Model {
    /// Where each array of a message belongs: its tensor's place, for each name in turn.
    pub fn places<'n>(&self, names: impl Iterator<Item = &'n str>) -> Result<Vec<usize>, OtherModel> {
        let (mut places, mut unknown) = (vec![], vec![]);
        for name in names {
            match self.tensors.iter().position(|tensor| tensor.name == name) {
                Some(place) if !places.contains(&place) => places.push(place),
                _ => unknown.push(name.chars().take(80).collect()),
            }
        }
        let missing = self.tensors.iter().enumerate().filter(|(place, _)| !places.contains(place));
        let missing: Vec<String> = missing.map(|(_, tensor)| tensor.name.clone()).collect();
        if missing.is_empty() && unknown.is_empty() { Ok(places) } else { Err(OtherModel::Names { missing, unknown }) }
    }

    /// Refuses an array of another shape.
    pub fn check_shape(&self, place: usize, shape: &[usize]) -> Result<(), OtherModel> {
        let tensor = &self.tensors[place];
        if tensor.shape == shape {
            return Ok(());
        }
        let got = shape.iter().copied().take(8).collect();
        Err(OtherModel::Shape { name: tensor.name.clone(), got, expected: tensor.shape.clone() })
    }

    /// Where a tensor's values lie among all.
    pub fn range(&self, place: usize) -> std::ops::Range<usize> {
        let from = self.tensors[..place].iter().map(Tensor::len).sum();
        from..from + self.tensors[place].len()
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Two tensors of six and three values.
    pub fn model() -> Model {
        let tensor = |name: &str, shape: &[usize]| Tensor { name: name.into(), shape: shape.to_vec() };
        Model { parameters: 9, tensors: vec![tensor("embed", &[2, 3]), tensor("norm", &[3])] }
    }

    #[test]
    fn arrays_may_come_in_any_order() {
        assert_eq!(model().places(["norm", "embed"].into_iter()), Ok(vec![1, 0]));
        assert_eq!(model().range(1), 6..9);
    }

    #[test]
    fn what_differs_is_told() {
        let told = |names: &[&str]| model().places(names.iter().copied()).unwrap_err().to_string();
        assert_eq!(
            told(&["embed", "head"]),
            "the arrays are not those of the job's model: missing are norm. unknown are head. "
        );
        assert!(told(&["embed", "norm", "norm"]).contains("unknown are norm"), "twice is one too many");
        assert!(told(&["a", "b", "c", "d", "e"]).contains("unknown are a, b, c and 2 more"));
        let shape = model().check_shape(0, &[3, 2]).unwrap_err().to_string();
        assert_eq!(shape, "the array embed has the shape [3, 2], and the job's model has [2, 3]");
    }
}
