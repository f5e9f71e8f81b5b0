//! CPU twins: each says in plain Rust what one operation computes, row by row. On the `flex` device they *are* the
//! operation, because Burn's own CPU elementwise operations run on one thread and make a pass over memory each; tests
//! hold them against Burn's operations, and WGSL kernels against them.
//!
//! Sums run over sixteen lanes in a fixed order ([`vector`]), so a result depends neither on the number of threads nor
//! on which instructions the processor has.

pub mod adamw;
pub mod attention;
pub mod cross_entropy;
pub mod embedding;
pub mod heads;
pub mod product;
pub mod rms_norm;
pub mod rope;
pub mod softmax;
pub mod swiglu;
pub mod vector;

/// Rows that one task takes, so that a task is worth its start (about 16k elements, tens of microseconds).
pub(crate) fn rows_per_task(width: usize) -> usize {
    (16_384 / width.max(1)).max(1)
}

/// Defines a function compiled twice: for the build's baseline, and for x86-64 processors with AVX2, chosen at run
/// time. Both do the same operations in the same order (no fused multiply-add), so they agree bit for bit.
macro_rules! wide {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn plain($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                #[allow(clippy::too_many_arguments)]
                fn avx2($($arg: $ty),*) $(-> $ret)? { plain($($arg),*) }

                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has AVX2, which is all that `avx2` asks for.
                    #[allow(unsafe_code)]
                    return unsafe { avx2($($arg),*) };
                }
            }
            plain($($arg),*)
        }
    };
}
pub(crate) use wide;
