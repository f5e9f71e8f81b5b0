//! A fragment: the named set of tensors that a delta, update or keyframe covers, as a range of tensor numbers in flat
//! order. Today always all of them; streaming and adapters send fewer and need no new format.

use crate::{
    bytes::{Reader, Truncated},
    model_spec::{ModelSpec, TensorSpec},
};
use std::ops::Range;

/// Values are coded in blocks of this many; a block never crosses a tensor's end.
pub const BLOCK: usize = 256;

/// A range of tensors, by number in flat order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The tensors covered.
    pub tensors: Range<u32>,
}

impl Fragment {
    /// All tensors of the model.
    pub fn all(spec: &ModelSpec) -> Self {
        Fragment { tensors: 0..spec.tensors().len() as u32 }
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.tensors.start.to_le_bytes());
        out.extend(self.tensors.end.to_le_bytes());
    }

    /// Reads a fragment, as numbers of tensors in a model of so many; `None` if it is empty or not within the model.
    pub(crate) fn read_numbers(r: &mut Reader<'_>, tensors: usize) -> Result<Option<Range<usize>>, Truncated> {
        let (start, end) = (r.u32()? as usize, r.u32()? as usize);
        Ok((start < end && end <= tensors).then_some(start..end))
    }

    /// Reads a fragment and resolves it in `layout`; `None` if it is empty or not within the model.
    pub(crate) fn read<'l>(
        r: &mut Reader<'_>,
        layout: &'l [TensorSpec],
    ) -> Result<Option<&'l [TensorSpec]>, Truncated> {
        Ok(Self::read_numbers(r, layout.len())?.map(|numbers| &layout[numbers]))
    }
}

/// The blocks of a tensor, as ranges of the flat vector.
pub fn blocks(tensor: &TensorSpec) -> impl Iterator<Item = Range<usize>> + use<> {
    let range = tensor.range();
    range.clone().step_by(BLOCK).map(move |at| at..range.end.min(at + BLOCK))
}
