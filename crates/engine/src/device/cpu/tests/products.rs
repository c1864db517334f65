//! Linear maps and their gradients against sums in f64.

use proptest::prelude::*;

use super::{buffer, devices, matrix, threads};
use crate::device::{Device, Layout};
use crate::element::Element;
use crate::tensor::Tensor;

/// One linear map and a batch.
#[derive(Debug, Clone, Copy)]
struct Case {
    rows: usize,
    inputs: usize,
    outputs: usize,
    element: Element,
    /// Which of [`devices`].
    device: usize,
}

fn cases() -> impl Strategy<Value = Case> {
    let element = prop::sample::select(vec![
        Element::F32,
        Element::Bf16,
        Element::Int8,
        Element::Fp8,
    ]);
    let sizes = (1..=300usize, 1..=600usize, 1..=600usize);
    (sizes, element, 0..devices().len()).prop_map(|((rows, inputs, outputs), element, device)| {
        Case {
            rows,
            inputs,
            outputs,
            element,
            device,
        }
    })
}

/// `Σ_k left(i, k)·right(k, j)` with the bound on what f32 may be off by: six hundred terms in runs of fused
/// multiply-adds err by far less than 1e-6 of the sum of their magnitudes.
fn product(
    [rows, depth, columns]: [usize; 3],
    left: impl Fn(usize, usize) -> f32,
    right: impl Fn(usize, usize) -> f32,
) -> Vec<(f64, f64)> {
    let mut sums = vec![(0.0, 0.0); rows * columns];
    for row in 0..rows {
        let sums = &mut sums[row * columns..][..columns];
        for term in 0..depth {
            let left = f64::from(left(row, term));
            for (column, (sum, bound)) in sums.iter_mut().enumerate() {
                let value = left * f64::from(right(term, column));
                *sum += value;
                *bound += 1e-6 * value.abs();
            }
        }
    }
    sums
}

fn assert_close(what: &str, found: &[f32], expected: &[(f64, f64)], factor: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (index, (found, (expected, bound))) in found.iter().zip(expected).enumerate() {
        let difference = (f64::from(*found) - factor * expected).abs();
        let bound = factor * bound + 1e-9;
        assert!(
            difference <= bound,
            "{what}: value {index} is {found}, not {expected}·{factor}"
        );
    }
}

fn check(case: Case) {
    let Case {
        rows,
        inputs,
        outputs,
        element,
        device,
    } = case;
    let cpu = &devices()[device];
    let weight = cpu.weight(&matrix("weight", outputs, inputs), Layout::Linear, element);
    let values = Tensor::matrix(outputs, inputs, cpu.read_weight(&weight));
    let (x, dy) = (matrix("x", rows, inputs), matrix("dy", rows, outputs));
    let (input, by_output) = (buffer(cpu, &x), buffer(cpu, &dy));
    let at = |matrix: &Tensor, row: usize, column: usize| matrix.row(row)[column];

    let expected = product(
        [rows, inputs, outputs],
        |i, k| at(&x, i, k),
        |k, j| at(&values, j, k),
    );
    let output = cpu.linear(&input, &weight);
    assert_close("output", output.values(), &expected, 1.0);

    let expected = product(
        [rows, outputs, inputs],
        |i, k| at(&dy, i, k),
        |k, j| at(&values, k, j),
    );
    let mut by_input = cpu.linear_input_gradient(&by_output, &weight);
    assert_close("input gradient", by_input.values(), &expected, 1.0);
    cpu.linear_input_gradient_add(&by_output, &weight, &mut by_input);
    assert_close("input gradient twice", by_input.values(), &expected, 2.0);

    let expected = product(
        [outputs, rows, inputs],
        |i, k| at(&dy, k, i),
        |k, j| at(&x, k, j),
    );
    let mut gradient = cpu.gradient(&weight);
    for times in [1.0, 2.0] {
        cpu.linear_weight_gradient(&by_output, &input, &mut gradient);
        assert_close(
            "weight gradient",
            &cpu.read_gradient(&gradient),
            &expected,
            times,
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any sizes, any stored form (the sums are over what it stands for), any instruction set and threads.
    #[test]
    fn linear_maps_and_their_gradients_are_sums_of_products(case in cases()) {
        check(case);
    }
}

/// Both sides of a block of rows, of a block of terms and of a panel.
#[test]
fn sizes_at_the_edges_of_blocks_are_computed_alike() {
    let last = devices().len() - 1;
    for (rows, inputs, outputs) in [
        (140, 512, 32),
        (141, 513, 33),
        (139, 511, 31),
        (1, 1, 1),
        (257, 2, 513),
    ] {
        for (element, device) in [(Element::F32, 0), (Element::Int8, last)] {
            check(Case {
                rows,
                inputs,
                outputs,
                element,
                device,
            });
        }
    }
}

/// What should not happen: that neighbours or the cut between threads change a bit of a row.
#[test]
fn a_row_is_the_same_bits_alone_and_on_any_number_of_threads() {
    let (rows, inputs, outputs) = (301, 530, 77);
    let (x, dy) = (matrix("x", rows, inputs), matrix("dy", rows, outputs));
    let values = matrix("weight", outputs, inputs);
    for element in [Element::F32, Element::Fp8] {
        let run = |count: usize, range: std::ops::Range<usize>| {
            let cpu = threads(count);
            let weight = cpu.weight(&values, Layout::Linear, element);
            let part = |of: &Tensor| {
                let width = of.width();
                let values = of.values[range.start * width..range.end * width].to_vec();
                buffer(&cpu, &Tensor::matrix(range.len(), width, values))
            };
            let output = cpu.download(&cpu.linear(&part(&x), &weight));
            let by_input = cpu.download(&cpu.linear_input_gradient(&part(&dy), &weight));
            let mut gradient = cpu.gradient(&weight);
            cpu.linear_weight_gradient(&part(&dy), &part(&x), &mut gradient);
            (output, by_input, cpu.read_gradient(&gradient))
        };
        let alone = run(1, 0..rows);
        assert!(run(2, 0..rows) == alone && run(3, 0..rows) == alone);
        for row in [0, 139, 140, 300] {
            let (output, by_input, _) = run(2, row..row + 1);
            assert_eq!(output, alone.0[row * outputs..(row + 1) * outputs]);
            assert_eq!(by_input, alone.1[row * inputs..(row + 1) * inputs]);
        }
    }
}
