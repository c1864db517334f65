//! What happens to rows one by one: norms, turns, gathering, cutting columns.

use super::Cpu;
use super::storage::Buffer;
use super::weight::{Gradient, Weight};
use crate::config::Pairing;
use crate::device::{LatentHeads, RmsNorm, Rotation, Turn};
use crate::kernels::{self, Norm};

/// Fewer values than this are not worth another thread.
const TASK_VALUES: usize = 1 << 15;

impl Cpu {
    /// Fills a new buffer row by row: `fill(row, into)`.
    fn fill_rows(
        &self,
        rows: usize,
        width: usize,
        fill: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Buffer {
        let mut buffer = self.buffer(rows, width);
        self.change_rows(&mut buffer, fill);
        buffer
    }

    /// Changes a buffer row by row: `change(row, values)`.
    pub(super) fn change_rows(
        &self,
        buffer: &mut Buffer,
        change: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        let (rows, width) = (buffer.rows(), buffer.width());
        if width == 0 {
            return;
        }
        let share = self
            .rows_per_task(rows, rows.max(1))
            .max(TASK_VALUES.div_ceil(width));
        let parts = buffer.values_mut().chunks_mut(share * width).enumerate();
        self.each(parts.collect(), |(part, values)| {
            for (row, values) in values.chunks_exact_mut(width).enumerate() {
                change(part * share + row, values);
            }
        });
    }
}

pub(super) fn copy(cpu: &Cpu, buffer: &Buffer) -> Buffer {
    cpu.fill_rows(buffer.rows(), buffer.width(), |row, into| {
        into.copy_from_slice(buffer.row(row));
    })
}

pub(super) fn add(cpu: &Cpu, addend: &Buffer, into: &mut Buffer) {
    cpu.change_rows(into, |row, into| {
        kernels::add(cpu.level, addend.row(row), into);
    });
}

pub(super) fn embed(cpu: &Cpu, table: &Weight, ids: &[u32]) -> Buffer {
    cpu.fill_rows(ids.len(), table.width, |row, into| {
        table.read_row(ids[row] as usize, into);
    })
}

/// One thread: two tokens may share a row of the table.
pub(super) fn embed_gradient(cpu: &Cpu, by_output: &Buffer, ids: &[u32], table: &mut Gradient) {
    for (row, &id) in ids.iter().enumerate() {
        table.add_row(cpu.level, id as usize, by_output.row(row));
    }
}

pub(super) fn gather(cpu: &Cpu, source: &Buffer, rows: &[u32]) -> Buffer {
    cpu.fill_rows(rows.len(), source.width(), |row, into| {
        into.copy_from_slice(source.row(rows[row] as usize));
    })
}

pub(super) fn gather_gradient(cpu: &Cpu, by_output: &Buffer, rows: &[u32], count: usize) -> Buffer {
    let mut source = vec![None; count];
    for (index, &row) in rows.iter().enumerate() {
        source[row as usize] = Some(index);
    }
    cpu.fill_rows(count, by_output.width(), |row, into| match source[row] {
        Some(index) => into.copy_from_slice(by_output.row(index)),
        None => into.fill(0.0),
    })
}

pub(super) fn split_columns(cpu: &Cpu, source: &Buffer, at: usize) -> (Buffer, Buffer) {
    let rows = source.rows();
    let left = cpu.fill_rows(rows, at, |row, into| {
        into.copy_from_slice(&source.row(row)[..at]);
    });
    let right = cpu.fill_rows(rows, source.width() - at, |row, into| {
        into.copy_from_slice(&source.row(row)[at..]);
    });
    (left, right)
}

pub(super) fn join_columns(cpu: &Cpu, left: &Buffer, right: &Buffer) -> Buffer {
    let at = left.width();
    cpu.fill_rows(left.rows(), at + right.width(), |row, into| {
        into[..at].copy_from_slice(left.row(row));
        into[at..].copy_from_slice(right.row(row));
    })
}

pub(super) fn rms_norm(cpu: &Cpu, norm: &RmsNorm<'_, Cpu>) -> Buffer {
    let weight = norm.weight.vector();
    cpu.fill_rows(norm.input.rows(), norm.input.width(), |row, into| {
        let inputs = norm.input.row(row).chunks_exact(weight.len());
        for (input, into) in inputs.zip(into.chunks_exact_mut(weight.len())) {
            kernels::rms_norm(cpu.level, input, weight, norm.epsilon, into);
        }
    })
}

pub(super) fn rms_norm_gradient(
    cpu: &Cpu,
    norm: &RmsNorm<'_, Cpu>,
    by_output: &Buffer,
    by_input: &mut Buffer,
) {
    let weight = norm.weight.vector();
    let width = weight.len();
    cpu.change_rows(by_input, |row, into| {
        let inputs = norm.input.row(row).chunks_exact(width);
        let by_outputs = by_output.row(row).chunks_exact(width);
        for ((x, by_output), into) in inputs.zip(by_outputs).zip(into.chunks_exact_mut(width)) {
            let epsilon = norm.epsilon;
            let norm = Norm { x, weight, epsilon };
            kernels::rms_norm_gradient(cpu.level, norm, by_output, into, None);
        }
    });
}

/// `Σ dy ⊙ x·r` over all rows, in their order.
pub(super) fn rms_norm_weight_gradient(
    norm: &RmsNorm<'_, Cpu>,
    by_output: &Buffer,
    by_weight: &mut Gradient,
) {
    let width = by_weight.width;
    let inputs = norm.input.values().chunks_exact(width);
    for (input, by_output) in inputs.zip(by_output.values().chunks_exact(width)) {
        let mean = input.iter().map(|value| value * value).sum::<f32>() / width as f32;
        let inverse = 1.0 / (mean + norm.epsilon).sqrt();
        for ((sum, input), by_output) in by_weight.values.iter_mut().zip(input).zip(by_output) {
            *sum += by_output * input * inverse;
        }
    }
}

pub(super) fn rotate(cpu: &Cpu, heads: &mut Buffer, rotation: &Rotation<'_, Cpu>) {
    let pairs = rotation.table.pairs;
    let head = heads.width() / rotation.heads;
    cpu.change_rows(heads, |row, values| {
        let first = rotation.positions[row] as usize * pairs;
        let cosines = &rotation.table.cosines[first..first + pairs];
        let sines = &rotation.table.sines[first..first + pairs];
        for head in values.chunks_exact_mut(head) {
            let start = head.len() - 2 * pairs;
            turn(&mut head[start..], (cosines, sines), rotation);
        }
    });
}

/// `(a, b) ← (a·cos − b·sin, a·sin + b·cos)`, or back.
fn turn(values: &mut [f32], (cosines, sines): (&[f32], &[f32]), rotation: &Rotation<'_, Cpu>) {
    let sign = match rotation.turn {
        Turn::Forward => 1.0,
        Turn::Back => -1.0,
    };
    let angles = cosines.iter().zip(sines);
    let one = |a: &mut f32, b: &mut f32, (cosine, sine): (&f32, &f32)| {
        let sine = sign * sine;
        (*a, *b) = (*a * cosine - *b * sine, *a * sine + *b * cosine);
    };
    match rotation.pairing {
        Pairing::Interleaved => {
            for ([a, b], angle) in values.as_chunks_mut::<2>().0.iter_mut().zip(angles) {
                one(a, b, angle);
            }
        }
        Pairing::Halves => {
            let (left, right) = values.split_at_mut(cosines.len());
            for ((a, b), angle) in left.iter_mut().zip(right).zip(angles) {
                one(a, b, angle);
            }
        }
    }
}

pub(super) fn assemble(
    cpu: &Cpu,
    expanded: &Buffer,
    rotated: &Buffer,
    heads: LatentHeads,
) -> (Buffer, Buffer) {
    let LatentHeads {
        heads,
        nope,
        rope,
        value,
    } = heads;
    let rows = expanded.rows();
    let expanded = |row| expanded.row(row).chunks_exact(nope + value);
    let keys = cpu.fill_rows(rows, heads * (nope + rope), |row, into| {
        for (head, into) in expanded(row).zip(into.chunks_exact_mut(nope + rope)) {
            into[..nope].copy_from_slice(&head[..nope]);
            into[nope..].copy_from_slice(rotated.row(row));
        }
    });
    let values = cpu.fill_rows(rows, heads * value, |row, into| {
        for (head, into) in expanded(row).zip(into.chunks_exact_mut(value)) {
            into.copy_from_slice(&head[nope..]);
        }
    });
    (keys, values)
}

/// The shared part collects from every head.
pub(super) fn assemble_gradient(
    cpu: &Cpu,
    by_keys: &Buffer,
    by_values: &Buffer,
    heads: LatentHeads,
) -> (Buffer, Buffer) {
    let LatentHeads {
        heads,
        nope,
        rope,
        value,
    } = heads;
    let rows = by_keys.rows();
    let keys = |row| by_keys.row(row).chunks_exact(nope + rope);
    let expanded = cpu.fill_rows(rows, heads * (nope + value), |row, into| {
        let parts = keys(row).zip(by_values.row(row).chunks_exact(value));
        for ((key, value), into) in parts.zip(into.chunks_exact_mut(nope + value)) {
            into[..nope].copy_from_slice(&key[..nope]);
            into[nope..].copy_from_slice(value);
        }
    });
    let rotated = cpu.fill_rows(rows, rope, |row, into| {
        into.fill(0.0);
        for key in keys(row) {
            kernels::add(cpu.level, &key[nope..], into);
        }
    });
    (expanded, rotated)
}

/// `Σ source[row]` for every listed row, added to `into`, in order.
pub(super) fn add_listed(
    cpu: &Cpu,
    source: &Buffer,
    rows: impl Iterator<Item = (usize, f32)>,
    into: &mut [f32],
) {
    for (row, factor) in rows {
        kernels::add_scaled(cpu.level, factor, source.row(row), into);
    }
}
