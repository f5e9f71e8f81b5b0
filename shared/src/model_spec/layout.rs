//! The model's tensors as those hold them who train it: one block a group of tensors, in flat order. Queries, keys and
//! values are one block, and so are gate and up: they lie side by side in the flat vector, and one wide matrix product
//! is faster than several narrow ones.

use super::{ModelSpec, Role};
use std::{collections::BTreeMap, ops::Range};

/// One group of the model's tensors.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// `[1, width]` for gains.
    pub shape: [usize; 2],
    /// Of its first tensor.
    pub role: Role,
    /// Of each of its tensors.
    pub rows: Vec<Range<usize>>,
}

/// All blocks of a model, and where in the list each is.
#[derive(Clone, Debug)]
pub struct Layout {
    /// In flat order.
    pub blocks: Vec<Block>,
    places: BTreeMap<(Role, Option<u32>), usize>,
}

impl Layout {
    /// Those of a model.
    pub fn of(spec: &ModelSpec) -> Self {
        let (mut blocks, mut places): (Vec<Block>, _) = (vec![], BTreeMap::new());
        for t in spec.tensors() {
            let [rows, columns] = match t.shape[..] {
                [rows, columns] => [rows, columns],
                _ => [1, t.len()],
            };
            if t.group == blocks.len() {
                blocks.push(Block { shape: [0, columns], role: t.role, rows: vec![] });
            }
            let block = &mut blocks[t.group];
            block.rows.push(block.shape[0]..block.shape[0] + rows);
            block.shape[0] += rows;
            places.insert((t.role, t.layer), t.group);
        }
        Layout { blocks, places }
    }

    /// The number of the block that has a tensor; `None` if the model has no such tensor.
    pub fn find(&self, role: Role, layer: Option<usize>) -> Option<usize> {
        self.places.get(&(role, layer.map(|l| l as u32))).copied()
    }

    /// The block of a tensor that every model of its family has.
    ///
    /// # Panics
    /// If the model has none: a formula asks for what its family lacks.
    pub fn place(&self, role: Role, layer: Option<usize>) -> usize {
        self.find(role, layer).expect("the model's formulas fit its family")
    }

    /// The block of the head's matrix (`[vocabulary, hidden]`): the embedding where they are tied.
    pub fn head(&self) -> usize {
        self.find(Role::Head, None).unwrap_or_else(|| self.place(Role::Embedding, None))
    }
}
