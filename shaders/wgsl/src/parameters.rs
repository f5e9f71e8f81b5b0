//! A kernel's parameters: a structure of 32-bit words that Rust and WGSL lay out alike. A test compares the two.

/// A type of 32 bits that WGSL has too.
pub trait Word: Copy {
    /// Its name in WGSL.
    const NAME: &'static str;
    /// Its bits.
    fn bits(self) -> u32;
}

impl Word for u32 {
    const NAME: &'static str = "u32";
    fn bits(self) -> u32 {
        self
    }
}

impl Word for i32 {
    const NAME: &'static str = "i32";
    fn bits(self) -> u32 {
        self as u32
    }
}

impl Word for f32 {
    const NAME: &'static str = "f32";
    fn bits(self) -> u32 {
        self.to_bits()
    }
}

/// One member of a parameter structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name, the same in Rust and WGSL.
    pub name: &'static str,
    /// Bytes before it.
    pub offset: usize,
    /// Its type in WGSL.
    pub word: &'static str,
}

/// A structure made by [`parameters!`](parameters).
pub trait Parameters {
    /// Its members, in order.
    const FIELDS: &'static [Field];
    /// Its values as the GPU reads them.
    fn words(&self) -> Vec<u32>;
}

/// Declares a kernel's parameter structure; WGSL binds one with the same members in the same order at its last binding.
macro_rules! parameters {
    ($(#[$doc:meta])* $vis:vis struct $name:ident { $($(#[$member:meta])* $field:ident: $word:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        #[repr(C)]
        #[allow(missing_docs, reason = "the kernel's file explains its members")]
        $vis struct $name { $($(#[$member])* pub $field: $word),* }

        impl $crate::Parameters for $name {
            const FIELDS: &'static [$crate::Field] = &[$($crate::Field {
                name: stringify!($field),
                offset: std::mem::offset_of!($name, $field),
                word: <$word as $crate::Word>::NAME,
            }),*];

            fn words(&self) -> Vec<u32> {
                vec![$($crate::Word::bits(self.$field)),*]
            }
        }
    };
}
pub(crate) use parameters;
