//! Attention against its definition in f64: who sees whom, and what comes of it.

use std::ops::Range;

use super::{buffer, devices, matrix};
use crate::device::{AttentionInputs, AttentionLayout, Device};
use crate::tensor::Tensor;

const KEY: usize = 10;
const VALUE: usize = 7;

fn dot(left: &[f32], right: &[f32]) -> f64 {
    let products = left.iter().zip(right);
    products
        .map(|(left, right)| f64::from(*left) * f64::from(*right))
        .sum()
}

/// Query by query, over the keys `t − window < s ≤ t` of its own sequence.
fn expected([queries, keys, values]: [&Tensor; 3], layout: &AttentionLayout<'_>) -> Vec<f64> {
    let mut output = vec![0.0; queries.rows() * layout.heads * VALUE];
    for sequence in layout.sequences {
        for query in sequence.clone() {
            let window = layout.window.unwrap_or(usize::MAX);
            let first = (query + 1).saturating_sub(window).max(sequence.start);
            for head in 0..layout.heads {
                let key_head = head * layout.key_heads / layout.heads;
                let of = |row: usize| &queries.row(row)[head * KEY..(head + 1) * KEY];
                let key = |row: usize| &keys.row(row)[key_head * KEY..(key_head + 1) * KEY];
                let scores = (first..=query)
                    .map(|seen| (dot(of(query), key(seen)) * f64::from(layout.scale)).exp());
                let scores: Vec<f64> = scores.collect();
                let sum: f64 = scores.iter().sum();
                let into = &mut output[(query * layout.heads + head) * VALUE..][..VALUE];
                for (seen, score) in (first..).zip(&scores) {
                    let value = &values.row(seen)[key_head * VALUE..(key_head + 1) * VALUE];
                    for (into, value) in into.iter_mut().zip(value) {
                        *into += score / sum * f64::from(*value);
                    }
                }
            }
        }
    }
    output
}

/// Sequences of one token, of a block of queries and one more, and of several blocks; windows that see only
/// the token itself, end inside a panel, and reach beyond the sequence.
#[test]
fn every_query_sees_its_own_past_and_nothing_else() {
    let lengths = [1, 42, 43, 2, 133];
    let mut sequences: Vec<Range<usize>> = Vec::new();
    for length in lengths {
        let start = sequences.last().map_or(0, |range| range.end);
        sequences.push(start..start + length);
    }
    let rows = lengths.iter().sum();
    for (heads, key_heads) in [(3, 3), (6, 2), (4, 1)] {
        let queries = matrix("queries", rows, heads * KEY);
        let keys = matrix("keys", rows, key_heads * KEY);
        let values = matrix("values", rows, key_heads * VALUE);
        for window in [None, Some(1), Some(37), Some(500)] {
            let layout = AttentionLayout {
                heads,
                key_heads,
                scale: 1.7,
                window,
                sequences: &sequences,
            };
            let expected = expected([&queries, &keys, &values], &layout);
            for cpu in devices() {
                let inputs = [&queries, &keys, &values].map(|matrix| buffer(&cpu, matrix));
                let inputs = AttentionInputs {
                    queries: &inputs[0],
                    keys: &inputs[1],
                    values: &inputs[2],
                };
                let found = cpu.attention(&inputs, &layout).output;
                for (found, expected) in found.values().iter().zip(&expected) {
                    assert!(
                        (f64::from(*found) - expected).abs() < 2e-6,
                        "{heads} heads, window {window:?}: {found}, not {expected}"
                    );
                }
            }
        }
    }
}
