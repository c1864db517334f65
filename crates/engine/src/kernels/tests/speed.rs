//! How fast the kernels are on one core: measured and printed, not judged.
//!
//! `cargo test --release -p connito-engine kernels::tests::speed -- --ignored --nocapture --test-threads 1`
//! With debug assertions the products run at a third of their speed: every pointer is checked.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::noise;
use crate::kernels::*;

/// Rows of a panel in these measurements: as deep as callers block.
const DEPTH: usize = 512;

/// Values of a panel.
const VALUES: usize = DEPTH * PANEL;

/// Seconds of the fastest of many runs: neighbours on the machine can only slow one down.
fn fastest(mut run: impl FnMut()) -> f64 {
    let begin = Instant::now();
    let mut best = f64::INFINITY;
    while begin.elapsed() < Duration::from_millis(300) {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

/// Noise that begins at a cache line, as a caller's scratch should.
fn aligned(storage: &mut Vec<f32>, count: usize) -> &mut [f32] {
    *storage = noise(1, count + 16);
    let offset = storage.as_ptr().align_offset(64);
    &mut storage[offset..][..count]
}

/// One sweep over the panels of a matrix of 64 rows of panels; more panels start again on the left.
fn sweep(level: Level, left: Left<'_>, panels: &[f32], into: &mut [f32]) {
    for (index, panel) in panels.chunks_exact(VALUES).enumerate() {
        let destination = Destination {
            values: &mut into[index % 64 * PANEL..],
            row_stride: 64 * PANEL,
            columns: PANEL,
            write: Write::Add,
        };
        multiply_panel(level, left, panel, destination);
    }
}

/// GFLOP/s of a sweep over `panels` panels, for several numbers of rows.
fn print_products(level: Level, name: &str, panels: usize) {
    let mut storage = Vec::new();
    let panels = &*aligned(&mut storage, panels * VALUES);
    for (rows, row_stride, depth_stride) in [
        (1, DEPTH + 16, 1),
        (4, DEPTH + 16, 1),
        (8, DEPTH + 16, 1),
        (14, DEPTH + 16, 1),
        (32, DEPTH + 16, 1),
        (128, DEPTH + 16, 1),
        (140, DEPTH + 16, 1),
        (140, 1, 144),
    ] {
        let values = noise(2, 140 * (DEPTH + 16));
        let left = Left {
            values: &values,
            rows,
            depth: DEPTH,
            row_stride,
            depth_stride,
        };
        let mut into = vec![0.0; rows * 64 * PANEL];
        let seconds = fastest(|| sweep(level, left, panels, &mut into));
        let rate = 2.0 * (rows * panels.len()) as f64 / seconds / 1e9;
        eprintln!(
            "{level:?} {name}, {rows} rows, strides {row_stride} {depth_stride}: {rate:.1} GFLOP/s"
        );
    }
}

#[test]
#[ignore = "measures for half a minute and judges nothing"]
fn products() {
    for level in Level::available() {
        print_products(level, "panels of a 2048-wide matrix", 64);
        print_products(level, "64 MiB of panels from memory", 1024);
    }
}

#[test]
#[ignore = "measures for half a minute and judges nothing"]
fn packing() {
    let (rows, columns) = (1408, 2048);
    let count = rows * columns;
    let weight = noise(3, count);
    let half: Vec<u16> = weight.iter().map(|w| (w.to_bits() >> 16) as u16).collect();
    let fp8: Vec<u8> = (0..count).map(|index| index as u8).collect();
    let int8: Vec<i8> = fp8.iter().map(|code| code.cast_signed()).collect();
    let scales = noise(4, PANEL);
    let (mut panel, mut square) = (Vec::new(), Vec::new());
    let panel = aligned(&mut panel, VALUES);
    let square = aligned(&mut square, PANEL * PANEL);
    let block = |row: usize, column: usize, rows: usize, columns: usize| Matrix {
        values: &weight[row * 2048 + column..],
        rows,
        columns,
        row_stride: 2048,
    };
    for level in Level::available() {
        let mut print = |name: &str, bytes: usize, run: &mut dyn FnMut(&mut [f32])| {
            let rate = (bytes * count) as f64 / fastest(|| run(panel)) / 1e9;
            eprintln!("{level:?} {name}: {rate:.1} GB/s, read and written");
        };
        print("bf16", 6, &mut |panel| {
            half.chunks_exact(VALUES)
                .for_each(|values| widen_bf16(level, values, panel));
        });
        print("int8", 5, &mut |panel| {
            int8.chunks_exact(VALUES)
                .for_each(|values| widen_int8(level, values, &scales, panel));
        });
        print("fp8", 5, &mut |panel| {
            fp8.chunks_exact(VALUES)
                .for_each(|values| widen_fp8(level, values, &scales, panel));
        });
        print("rows packed", 8, &mut |panel| {
            for index in 0..count / VALUES {
                let (row, column) = (index / 4 * PANEL, index % 4 * DEPTH);
                pack_rows(level, block(row, column, PANEL, DEPTH), panel);
            }
        });
        print("columns packed", 8, &mut |panel| {
            for index in 0..count / VALUES {
                let (row, column) = (index / 64 * DEPTH, index % 64 * PANEL);
                let rows = DEPTH.min(rows - row);
                pack_columns(block(row, column, rows, PANEL), panel);
            }
        });
        print("blocks transposed", 8, &mut |panel| {
            for _ in 0..count / VALUES {
                panel
                    .chunks_exact(PANEL * PANEL)
                    .for_each(|block| transpose_panel(level, block, PANEL, square));
            }
        });
    }
}

#[test]
#[ignore = "measures for half a minute and judges nothing"]
fn loops() {
    const WIDTH: usize = 2048;
    let (a, b, c) = (noise(5, WIDTH), noise(6, WIDTH), noise(7, WIDTH));
    let (mut d, mut e) = (noise(8, WIDTH), noise(9, WIDTH));
    let norm = Norm {
        x: &a,
        weight: &b,
        epsilon: 1e-6,
    };
    for level in Level::available() {
        let mut print = |name: &str, run: &mut dyn FnMut(&mut [f32], &mut [f32])| {
            let seconds = fastest(|| (0..64).for_each(|_| run(&mut d, &mut e)));
            let rate = (64 * WIDTH) as f64 / seconds / 1e9;
            eprintln!("{level:?} {name}: {rate:.2} elements/ns");
        };
        // What works in place starts from a copy, which counts.
        print("softmax", &mut |d, _| {
            d.copy_from_slice(&a);
            black_box(softmax_scaled(level, 2.0, d));
        });
        print("exp_scaled_minus", &mut |d, _| {
            d.copy_from_slice(&a);
            exp_scaled_minus(level, 2.0, 1.0, d);
        });
        print("softmax_gradient", &mut |d, _| {
            d.copy_from_slice(&c);
            softmax_gradient(level, 0.5, &a, d);
        });
        print("swiglu", &mut |d, _| swiglu(level, &a, &b, d));
        print("swiglu_gradient", &mut |d, e| {
            d.copy_from_slice(&a);
            e.copy_from_slice(&b);
            swiglu_gradient(level, &c, d, e);
        });
        print("dot", &mut |d, _| d[0] = dot(level, &a, &b));
        print("add_scaled", &mut |d, _| add_scaled(level, 1e-3, &a, d));
        print("rms_norm", &mut |d, _| {
            d[0] = rms_norm(level, &a, &b, 1e-6, d)
        });
        print("rms_norm_gradient", &mut |d, e| {
            rms_norm_gradient(level, norm, &c, d, Some(e))
        });
    }
}
