//! Parameters read back as what was stored, in every form and layout.

use super::{devices, matrix, noise, threads};
use crate::device::{Device, Layout};
use crate::element::{self, Element, FP8_LARGEST};
use crate::tensor::Tensor;

const ELEMENTS: [Element; 4] = [Element::F32, Element::Bf16, Element::Int8, Element::Fp8];
const LAYOUTS: [Layout; 2] = [Layout::Linear, Layout::Table];

/// A single row, ragged and whole panels, more panels than tasks.
const SHAPES: [[usize; 2]; 7] = [
    [1, 1],
    [1, 600],
    [31, 5],
    [32, 7],
    [33, 64],
    [70, 1],
    [417, 19],
];

/// What a row becomes by the definition of its form.
fn rounded(row: &[f32], element: Element) -> Vec<f32> {
    let scaled = |largest: f32, code: &dyn Fn(f32) -> f32| {
        let scale = element::row_scale(row, largest);
        let inverse = 1.0 / scale;
        row.iter()
            .map(|value| code(value * inverse) * scale)
            .collect()
    };
    match element {
        Element::F32 => row.to_vec(),
        Element::Bf16 => {
            let nearest = |value: &f32| element::bf16_widen(element::bf16_nearest(*value));
            row.iter().map(nearest).collect()
        }
        Element::Int8 => scaled(127.0, &|value| f32::from(element::int8_nearest(value))),
        Element::Fp8 => scaled(FP8_LARGEST, &|value| {
            element::fp8_widen(element::fp8_nearest(value))
        }),
    }
}

#[test]
fn weights_read_back_as_the_rounded_values() {
    for cpu in devices() {
        for [rows, width] in SHAPES {
            let stored = matrix("weight", rows, width);
            for element in ELEMENTS {
                let expected: Vec<f32> = (0..rows)
                    .flat_map(|row| rounded(stored.row(row), element))
                    .collect();
                for layout in LAYOUTS {
                    let weight = cpu.weight(&stored, layout, element);
                    let found = cpu.read_weight(&weight);
                    assert!(
                        found == expected,
                        "{rows}×{width} as {element:?} {layout:?}"
                    );
                }
            }
        }
    }
}

/// What may not happen: that the padding of a ragged panel is read as a row, or a row as another one's.
#[test]
fn embedded_rows_are_the_rows_of_the_table() {
    let cpu = threads(2);
    let stored = matrix("table", 45, 13);
    let ids = [44, 0, 31, 32, 33, 0, 7];
    for element in ELEMENTS {
        for layout in LAYOUTS {
            let table = cpu.weight(&stored, layout, element);
            let embedded = cpu.download(&cpu.embed(&table, &cpu.indices(&ids)));
            for (id, found) in ids.iter().zip(embedded.chunks_exact(13)) {
                assert_eq!(found, rounded(stored.row(*id as usize), element));
            }
        }
    }
}

/// The gradient of a table adds where the same row was read twice; one that is a head too lies in
/// panels, and reads back the same.
#[test]
fn gradients_of_embedded_rows_add_up_in_both_layouts() {
    let cpu = threads(2);
    let table = Tensor::zeros(&[45, 13]);
    let ids = [44, 0, 31, 32, 33, 0, 7, 44, 44];
    let by_output = matrix("by output", ids.len(), 13);
    let mut expected = Tensor::zeros(&[45, 13]);
    for (row, id) in ids.iter().enumerate() {
        let sums = expected.row_mut(*id as usize).iter_mut();
        for (sum, value) in sums.zip(by_output.row(row)) {
            *sum += value;
        }
    }
    for layout in LAYOUTS {
        let weight = cpu.weight(&table, layout, Element::F32);
        let mut gradient = cpu.gradient(&weight);
        let by_output = super::buffer(&cpu, &by_output);
        cpu.embed_gradient(&by_output, &cpu.indices(&ids), &mut gradient);
        assert_eq!(cpu.read_gradient(&gradient), expected.values, "{layout:?}");
        let squares =
            |values: &[f32]| -> f64 { values.iter().map(|value| f64::from(*value).powi(2)).sum() };
        let found = cpu.sum_of_squares(&gradient);
        assert!(
            (found / squares(&expected.values) - 1.0).abs() < 1e-6,
            "padding counts nothing"
        );
        cpu.clear(&mut gradient);
        assert!(
            cpu.read_gradient(&gradient)
                .iter()
                .all(|value| *value == 0.0)
        );
    }
}

/// A million squares: in f32 alone the sum would be off by more than this.
#[test]
fn sums_of_squares_do_not_depend_on_threads_and_keep_their_precision() {
    let stored = Tensor::matrix(1024, 1000, noise("gradient", 1_024_000));
    let exact: f64 = stored
        .values
        .iter()
        .map(|value| f64::from(*value).powi(2))
        .sum();
    let sums = [1, 2, 3].map(|count| {
        let cpu = threads(count);
        let table = cpu.weight(&stored, Layout::Table, Element::F32);
        let mut gradient = cpu.gradient(&table);
        let ids: Vec<u32> = (0..1024).collect();
        let by_output = super::buffer(&cpu, &stored);
        cpu.embed_gradient(&by_output, &cpu.indices(&ids), &mut gradient);
        cpu.sum_of_squares(&gradient)
    });
    assert!(
        sums.iter().all(|sum| sum.to_bits() == sums[0].to_bits()),
        "{sums:?}"
    );
    assert!(
        (sums[0] / exact - 1.0).abs() < 1e-7,
        "{} instead of {exact}",
        sums[0]
    );
}
