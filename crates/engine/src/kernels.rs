//! The arithmetic of the CPU device, and all of the crate's unsafe code.
//!
//! * `multiply`: one micro-kernel over panels of 32 columns serves every product, forward and backward;
//! * `transpose`, `widen`: matrices and stored weights brought into panels;
//! * `vector`, `exponential`, `norm`: element-wise loops and reductions;
//! * `streams`: the same over stored bytes, where everybody must get the same bits.
//!
//! Each is compiled for several instruction sets and takes the [`Level`] to use; `avx512`, `avx2`,
//! `neon` and `portable` hold what is written by hand for one of them. Everything here is a safe
//! function that checks its extents once. Knows nothing of tensors, models, threads or caches: shapes
//! are lengths and strides, and blocking is the caller's.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod convert;
mod exponential;
mod level;
pub(crate) mod mapped_file;
mod multiply;
#[cfg(target_arch = "aarch64")]
mod neon;
mod norm;
pub(crate) mod optimizer;
mod portable;
pub(crate) mod streams;
#[cfg(test)]
mod tests;
mod transpose;
mod vector;
mod vectorised;
mod widen;

pub(crate) use exponential::{
    exp_scaled_minus, softmax_gradient, softmax_scaled, swiglu, swiglu_gradient,
};
pub(crate) use level::Level;
pub(crate) use multiply::{Destination, Left, PANEL, Write, multiply_panel};
pub(crate) use norm::{Norm, rms_norm, rms_norm_gradient};
pub(crate) use transpose::{Matrix, pack_columns, pack_rows, transpose_panel};
pub(crate) use vector::{add, add_scaled, dot, scale, sum_of_squares};
pub(crate) use widen::{widen_bf16, widen_fp8, widen_int8};
