//! All kernels with their checks and mutants.

use super::*;
use burn::tensor::{DType, Device};

/// What is checked together.
pub struct Case {
    /// Kernels that the check runs.
    pub kernels: &'static [&'static str],
    /// Runs the shipped operations on the device and compares; the error says how far off.
    pub check: fn(&Device, u64) -> Result<(), String>,
    /// Mutants that the check must tell from the kernel: its name, a text that stands in it once, and what it becomes.
    /// Never an index out of bounds, never a loop that does not end.
    pub mutants: &'static [(&'static str, &'static str, &'static str)],
}

pub const CASES: &[Case] = &[
    Case {
        kernels: &["attention_forward", "attention_backward_queries", "attention_backward_keys"],
        check: attention::check,
        mutants: attention::MUTANTS,
    },
    Case { kernels: &["cross_entropy"], check: cross_entropy::check, mutants: cross_entropy::MUTANTS },
    Case { kernels: &["product"], check: product::check, mutants: product::MUTANTS },
    Case { kernels: &["rms_norm"], check: rms_norm::forward, mutants: rms_norm::FORWARD_MUTANTS },
    Case { kernels: &["rms_norm_backward"], check: rms_norm::backward, mutants: rms_norm::BACKWARD_MUTANTS },
    Case { kernels: &["rope"], check: rope::check, mutants: rope::MUTANTS },
    Case { kernels: &["swiglu", "swiglu_backward"], check: swiglu::check, mutants: swiglu::MUTANTS },
    Case { kernels: &["adamw"], check: adamw::update, mutants: adamw::UPDATE_MUTANTS },
    Case { kernels: &["grad_norm"], check: adamw::sum_of_squares, mutants: adamw::SQUARES_MUTANTS },
    Case { kernels: &["product_f32"], check: plain::product, mutants: plain::PRODUCT_MUTANTS },
    Case { kernels: &["embedding"], check: plain::embedding, mutants: plain::EMBEDDING_MUTANTS },
    Case {
        kernels: &["embedding_backward"],
        check: plain::embedding_backward,
        mutants: plain::EMBEDDING_BACKWARD_MUTANTS,
    },
    Case { kernels: &["column_sums"], check: plain::column_sums, mutants: plain::COLUMN_SUMS_MUTANTS },
    Case { kernels: &["delta_encode"], check: delta::encode, mutants: delta::ENCODE_MUTANTS },
];

/// Those to run, once a device is open: all that it has what they need for, or while working on one those whose
/// kernels' names contain `KERNEL`.
pub fn selected(device: &Device) -> impl Iterator<Item = &'static Case> {
    let wanted = std::env::var("KERNEL").unwrap_or_default();
    let has_half = device.supports_dtype(DType::F16);
    if !has_half {
        println!("without f16 there is no `product`: passed over");
    }
    let can = move |case: &&Case| has_half || !case.kernels.contains(&"product");
    CASES.iter().filter(can).filter(move |case| case.kernels.iter().any(|name| name.contains(&wanted)))
}
