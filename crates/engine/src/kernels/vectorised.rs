//! Plain loops, compiled once per instruction set.
//!
//! The body is written once, without fused multiply-add and with a fixed order of summation, so every
//! compilation gives the same bits; only the width of the compiler's vectors differs.

/// Turns `fn name(arguments) body` into `fn name(level, arguments)`, which runs the body as it was
/// compiled for the level.
macro_rules! vectorised {
    ($(
        $(#[$meta:meta])*
        fn $name:ident($($argument:ident: $kind:ty),* $(,)?) $(-> $result:ty)? $body:block
    )*) => {$(
        $(#[$meta])*
        pub(crate) fn $name(
            level: $crate::kernels::level::Level,
            $($argument: $kind),*
        ) $(-> $result)? {
            #[inline(always)]
            fn body($($argument: $kind),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            {
                use $crate::kernels::level::Instructions;

                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512($($argument: $kind),*) $(-> $result)? {
                    body($($argument),*)
                }

                #[target_feature(enable = "avx2")]
                fn avx2($($argument: $kind),*) $(-> $result)? {
                    body($($argument),*)
                }

                #[expect(unsafe_code, reason = "calls functions compiled for an instruction set")]
                // SAFETY: the level proves the instruction set.
                unsafe {
                    match level.instructions() {
                        Instructions::Portable => body($($argument),*),
                        Instructions::Avx2 => avx2($($argument),*),
                        Instructions::Avx512 => avx512($($argument),*),
                    }
                }
            }
            // Elsewhere the baseline has the widest vectors that there are.
            #[cfg(not(target_arch = "x86_64"))]
            {
                let _ = level;
                body($($argument),*)
            }
        }
    )*};
}

pub(super) use vectorised;
