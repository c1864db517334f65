//! The CPU device against plain definitions in f64, and its promises about bits: the same on any number of
//! threads, almost the same on any instruction set.

mod attention;
mod products;
mod steps;
mod weights;

use super::{Buffer, Cpu};
use crate::kernels::Level;
use crate::random::Stream;
use crate::tensor::Tensor;

/// Varied values in (−1, 1), different for every name.
fn noise(name: &str, count: usize) -> Vec<f32> {
    let mut values = vec![0.0; count];
    Stream::new(17, name).fill(0, 1.0 / 3f32.sqrt(), &mut values);
    values
}

fn matrix(name: &str, rows: usize, width: usize) -> Tensor {
    Tensor::matrix(rows, width, noise(name, rows * width))
}

fn buffer(cpu: &Cpu, matrix: &Tensor) -> Buffer {
    let mut buffer = cpu.buffer(matrix.rows(), matrix.width());
    buffer.values_mut().copy_from_slice(&matrix.values);
    buffer
}

/// Every instruction set on one thread, and the widest on several.
fn devices() -> Vec<Cpu> {
    let levels = Level::available().into_iter();
    let mut devices: Vec<Cpu> = levels
        .map(|level| Cpu::single().with_level(level))
        .collect();
    devices.extend([2, 3].map(threads));
    devices
}

fn threads(threads: usize) -> Cpu {
    Cpu::new(threads).expect("a few threads")
}
