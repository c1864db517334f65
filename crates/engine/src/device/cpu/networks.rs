//! SwiGLU networks: dense ones, shared experts, and routed experts, each on its own rows.
//!
//! ```text
//! g = W_g·x   u = W_u·x   h = silu(g)⊙u   out = W_d·h                  y_t += Σ w·out over t's experts
//!
//! h̄ = W_dᵀ·ȳ   w̄ = ⟨h̄, h⟩   ḡ, ū from w·h̄   x̄ = W_gᵀ·ḡ + W_uᵀ·ū
//! W̄_d += ȳ·(w·h)ᵀ   W̄_g += ḡ·xᵀ   W̄_u += ū·xᵀ
//! ```
//!
//! The gradient of a mixing weight needs `⟨ȳ, out⟩`, which is `⟨h̄, h⟩`: outputs need not be kept. One
//! task takes a block of rows through all three maps while it is in cache; rows are gathered while they
//! are copied for the product. A dense network is one group of rows with weight 1.

use std::cmp::Reverse;
use std::ops::Range;

use super::product::{BLOCK_ROWS, PanelsMut, Source, TURNED_ROWS, blocks};
use super::rows::add_listed;
use super::storage::Buffer;
use super::weight::{Gradient, Weight};
use super::{Cpu, rows};
use crate::config::GateConfig;
use crate::device::{Gate, Gated, Keep, RoutedExperts, Saved};
use crate::kernels::{self, PANEL, Write};
use crate::names::SwiGlu;
use crate::routing::{Picks, Router, Routes};
use crate::tensor::Tensor;

/// A batch's choices, and the rule that they were made by.
#[derive(Debug)]
pub struct CpuRoutes {
    gate: GateConfig,
    routes: Routes,
}

impl CpuRoutes {
    /// See [`Routes::picks`].
    pub(super) fn picks(&self) -> Picks {
        self.routes.picks(&self.gate)
    }
}

pub(super) fn route(cpu: &Cpu, logits: &Buffer, gate: &Gate<'_, Cpu>) -> CpuRoutes {
    let (tokens, experts, per_token) = (logits.rows(), logits.width(), gate.per_token);
    let router = Router {
        gate: gate.rule,
        mode: gate.routing,
        per_token,
        bias: gate.bias.map(Weight::vector),
    };
    let mut scores = logits.values().to_vec();
    let mut slots = vec![None; tokens * per_token];
    let mut weights = vec![0.0; tokens * per_token];
    let share = cpu.rows_per_task(tokens, tokens.max(1));
    let tasks = scores
        .chunks_mut(share * experts)
        .zip(slots.chunks_mut(share * per_token))
        .zip(weights.chunks_mut(share * per_token));
    cpu.each(tasks.collect(), |((scores, slots), weights)| {
        router.choose(experts, scores, slots, weights);
    });
    let scores = Tensor::matrix(tokens, experts, scores);
    CpuRoutes {
        gate: *gate.rule,
        routes: Routes::sorted(per_token, scores, &slots, &weights),
    }
}

pub(super) fn network(
    cpu: &Cpu,
    input: &Buffer,
    network: &SwiGlu<Weight>,
    keep: Keep,
) -> (Buffer, Option<Gated<Buffer>>) {
    let all = vec![Group {
        network,
        rows: 0..input.rows(),
    }];
    let source = |rows| Source::Rows(input.rows_of(rows), input.width());
    forward(cpu, all, &source, keep)
}

pub(super) fn experts(
    cpu: &Cpu,
    RoutedExperts { experts, routes }: RoutedExperts<'_, Cpu>,
    input: &Buffer,
    keep: Keep,
    into: &mut Buffer,
) -> Option<Gated<Buffer>> {
    let CpuRoutes { routes, .. } = routes;
    let source = |rows: Range<usize>| Source::Listed(input, &routes.tokens[rows]);
    let (outputs, gated) = forward(cpu, groups(experts, routes), &source, keep);
    cpu.change_rows(into, |token, into| {
        let visits = rows_of_token(routes, token);
        add_listed(
            cpu,
            &outputs,
            visits.map(|row| (row, routes.weights[row])),
            into,
        );
    });
    gated
}

/// The rows of one token, in the order of its slots.
fn rows_of_token(routes: &Routes, token: usize) -> impl Iterator<Item = usize> + '_ {
    let per_token = routes.rows_of_tokens.len() / routes.scores.rows();
    let slots = &routes.rows_of_tokens[token * per_token..(token + 1) * per_token];
    slots.iter().flatten().map(|row| *row as usize)
}

/// Consecutive rows that one network computes.
#[derive(Debug)]
struct Group<'a> {
    network: &'a SwiGlu<Weight>,
    rows: Range<usize>,
}

/// A group for every expert that is visited; together they cover all rows in order.
fn groups<'a>(experts: &'a [Option<SwiGlu<Weight>>], routes: &Routes) -> Vec<Group<'a>> {
    let visited = experts.iter().zip(&routes.groups);
    visited
        .filter(|(_, rows)| !rows.is_empty())
        .filter_map(|(network, rows)| {
            // A routing plan lets nobody visit an expert that is not in memory.
            let network = network.as_ref()?;
            let rows = rows.clone();
            Some(Group { network, rows })
        })
        .collect()
}

impl Group<'_> {
    /// Blocks of at most about `most` rows of about equal size. A lone network's rows are divided among
    /// the threads; several are tasks enough.
    fn split(
        &self,
        cpu: &Cpu,
        groups: usize,
        most: usize,
    ) -> impl Iterator<Item = Range<usize>> + use<> {
        let (start, count) = (self.rows.start, self.rows.len());
        let share = if groups == 1 {
            cpu.rows_per_task(count, most)
        } else {
            count.div_ceil(count.div_ceil(most).max(1)).max(1)
        };
        blocks(count, share).map(move |rows| start + rows.start..start + rows.end)
    }
}

/// The first `len` of a slice that is used up step by step.
fn take<'a>(rest: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
    let (first, others) = std::mem::take(rest).split_at_mut(len);
    *rest = others;
    first
}

struct ForwardTask<'a> {
    network: &'a SwiGlu<Weight>,
    rows: Range<usize>,
    gate: &'a mut [f32],
    up: &'a mut [f32],
    output: &'a mut [f32],
}

/// Outputs `[rows, hidden]`, unweighted, and what was asked to be kept.
fn forward<'a>(
    cpu: &Cpu,
    groups: Vec<Group<'_>>,
    source: &(impl Fn(Range<usize>) -> Source<'a> + Sync),
    keep: Keep,
) -> (Buffer, Option<Gated<Buffer>>) {
    let rows = groups.last().map_or(0, |group| group.rows.end);
    let Some(network) = groups.first().map(|group| group.network) else {
        let nothing = || cpu.buffer(0, 1);
        return (
            nothing(),
            Some(Gated {
                gate: nothing(),
                up: nothing(),
            }),
        );
    };
    let (hidden, width) = (network.down.rows, network.gate.rows);
    let kept_rows = if keep == Keep::Everything { rows } else { 0 };
    let mut outputs = cpu.buffer(rows, hidden);
    let mut gated = Gated {
        gate: cpu.buffer(kept_rows, width),
        up: cpu.buffer(kept_rows, width),
    };

    let mut tasks = Vec::new();
    let mut output = outputs.values_mut();
    let (mut gate, mut up) = (gated.gate.values_mut(), gated.up.values_mut());
    for group in &groups {
        for rows in group.split(cpu, groups.len(), BLOCK_ROWS) {
            let kept = if keep == Keep::Everything {
                rows.len() * width
            } else {
                0
            };
            tasks.push(ForwardTask {
                network: group.network,
                gate: take(&mut gate, kept),
                up: take(&mut up, kept),
                output: take(&mut output, rows.len() * hidden),
                rows,
            });
        }
    }
    tasks.sort_by_key(|task| Reverse(task.rows.len()));
    cpu.each(tasks, |task| forward_block(cpu, task, width, source));
    (outputs, (keep == Keep::Everything).then_some(gated))
}

fn forward_block<'a>(
    cpu: &Cpu,
    task: ForwardTask<'_>,
    width: usize,
    source: &impl Fn(Range<usize>) -> Source<'a>,
) {
    let ForwardTask {
        network,
        rows,
        gate,
        up,
        output,
    } = task;
    let len = rows.len() * width;
    let (mut own_gate, mut own_up) = (
        cpu.spare.take(len - gate.len()),
        cpu.spare.take(len - up.len()),
    );
    let gate = if gate.is_empty() {
        own_gate.as_mut()
    } else {
        gate
    };
    let up = if up.is_empty() { own_up.as_mut() } else { up };
    let mut product = cpu.spare.take(len);

    let mut workspace = cpu.workspace();
    let targets = &mut [(&network.gate, &mut *gate), (&network.up, &mut *up)];
    workspace.forward(source(rows), targets);
    kernels::swiglu(cpu.level, gate, up, product.as_mut());
    let product = Source::Rows(product.as_ref(), width);
    workspace.forward(product, &mut [(&network.down, output)]);
}

pub(super) fn network_gradient(
    cpu: &Cpu,
    network: &SwiGlu<Weight>,
    saved: Saved<'_, Cpu>,
    by_network: Option<&mut SwiGlu<Option<Gradient>>>,
    by_input: Option<&mut Buffer>,
) {
    let (input, by_output) = (saved.input, saved.by_output);
    let trained = by_network.is_some();
    let groups = vec![BackwardGroup {
        network,
        rows: 0..input.rows(),
        by_network,
    }];
    let backward = Backward {
        cpu,
        input: &|rows| Source::Rows(input.rows_of(rows), input.width()),
        by_output: &|rows| Source::Rows(by_output.rows_of(rows), by_output.width()),
        weights: None,
        towards_input: by_input.is_some(),
    };
    if !trained && by_input.is_none() {
        return;
    }
    let (by_rows, _) = backward.run(groups, saved.gated);
    if let Some((by_rows, by_input)) = by_rows.zip(by_input) {
        rows::add(cpu, &by_rows, by_input);
    }
}

pub(super) fn experts_gradient(
    cpu: &Cpu,
    RoutedExperts { experts, routes }: RoutedExperts<'_, Cpu>,
    saved: Saved<'_, Cpu>,
    by_experts: &mut [Option<SwiGlu<Option<Gradient>>>],
    by_input: Option<&mut Buffer>,
) -> Option<Buffer> {
    let CpuRoutes { gate, routes } = routes;
    let (input, by_output) = (saved.input, saved.by_output);
    let groups = experts
        .iter()
        .zip(&routes.groups)
        .zip(by_experts)
        .filter(|((_, rows), _)| !rows.is_empty())
        .filter_map(|((network, rows), by_network)| {
            Some(BackwardGroup {
                network: network.as_ref()?,
                rows: rows.clone(),
                by_network: by_network.as_mut(),
            })
        });
    let backward = Backward {
        cpu,
        input: &|rows: Range<usize>| Source::Listed(input, &routes.tokens[rows]),
        by_output: &|rows: Range<usize>| Source::Listed(by_output, &routes.tokens[rows]),
        weights: Some(&routes.weights),
        towards_input: by_input.is_some(),
    };
    let (by_rows, by_weights) = backward.run(groups.collect(), saved.gated);
    let by_input = by_input?;
    if let Some(by_rows) = by_rows {
        cpu.change_rows(by_input, |token, into| {
            for row in rows_of_token(routes, token) {
                kernels::add(cpu.level, by_rows.row(row), into);
            }
        });
    }
    let by_logits = routes.logit_gradient(gate, &by_weights);
    let mut buffer = cpu.buffer(routes.scores.rows(), routes.scores.width());
    buffer.values_mut().copy_from_slice(by_logits.as_ref());
    Some(buffer)
}

/// A [`Group`] with the place of its gradient, if it is trained.
struct BackwardGroup<'a> {
    network: &'a SwiGlu<Weight>,
    rows: Range<usize>,
    by_network: Option<&'a mut SwiGlu<Option<Gradient>>>,
}

/// A backward pass through networks on their rows.
struct Backward<'a> {
    cpu: &'a Cpu,
    input: &'a (dyn Fn(Range<usize>) -> Source<'a> + Sync),
    by_output: &'a (dyn Fn(Range<usize>) -> Source<'a> + Sync),
    /// Of every row; 1 without.
    weights: Option<&'a [f32]>,
    towards_input: bool,
}

struct BackwardTask<'a> {
    network: &'a SwiGlu<Weight>,
    rows: Range<usize>,
    /// `gate·x`, becomes its gradient.
    gate: &'a mut [f32],
    up: &'a mut [f32],
    /// Becomes `w·h`.
    product: &'a mut [f32],
    by_weights: &'a mut [f32],
    by_rows: &'a mut [f32],
}

struct WeightTask<'a> {
    by_output: Source<'a>,
    input: Source<'a>,
    panels: Range<usize>,
    gradient: PanelsMut<'a>,
}

impl Backward<'_> {
    /// The gradient of every row's input, if wanted, and of every row's weight.
    fn run(
        &self,
        mut groups: Vec<BackwardGroup<'_>>,
        gated: Gated<Buffer>,
    ) -> (Option<Buffer>, Vec<f32>) {
        let Gated { mut gate, mut up } = gated;
        let (rows, width) = (gate.rows(), gate.width());
        let Some(hidden) = groups.first().map(|group| group.network.gate.width) else {
            return (None, vec![0.0; rows]);
        };
        let trained = |group: &BackwardGroup<'_>| {
            let by_network = group.by_network.as_ref();
            by_network.is_some_and(|network| network.gate.is_some())
        };
        let any_trained = groups.iter().any(trained);
        let mut by_weights = vec![0.0; rows];
        let mut product = cpu_buffer(self.cpu, any_trained, rows, width);
        let mut by_rows = cpu_buffer(self.cpu, self.towards_input, rows, hidden);

        let mut tasks = Vec::new();
        {
            let (mut gate, mut up) = (gate.values_mut(), up.values_mut());
            let (mut product, mut by_rows) = (product.values_mut(), by_rows.values_mut());
            let mut by_weights = by_weights.as_mut_slice();
            for group in &groups {
                let trained = trained(group);
                let whole = Group {
                    network: group.network,
                    rows: group.rows.clone(),
                };
                for rows in whole.split(self.cpu, groups.len(), TURNED_ROWS) {
                    let len = rows.len() * width;
                    let task = BackwardTask {
                        network: group.network,
                        gate: take(&mut gate, len),
                        up: take(&mut up, len),
                        product: take(&mut product, if any_trained { len } else { 0 }),
                        by_weights: take(&mut by_weights, rows.len()),
                        by_rows: take(
                            &mut by_rows,
                            if self.towards_input {
                                rows.len() * hidden
                            } else {
                                0
                            },
                        ),
                        rows,
                    };
                    if trained || self.towards_input {
                        tasks.push(task);
                    }
                }
            }
        }
        tasks.sort_by_key(|task| Reverse(task.rows.len()));
        self.cpu.each(tasks, |task| self.block(task, width));
        groups.retain(trained);
        self.weight_gradients(groups, [&gate, &up, &product]);
        (self.towards_input.then_some(by_rows), by_weights)
    }

    fn block(&self, task: BackwardTask<'_>, width: usize) {
        let BackwardTask {
            network,
            rows,
            gate,
            up,
            product,
            by_weights,
            by_rows,
        } = task;
        let cpu = self.cpu;
        let mut workspace = cpu.workspace();
        let mut by_product = cpu.spare.take(rows.len() * width);
        let by_output = (self.by_output)(rows.clone());
        workspace.input_gradient(
            by_output,
            &network.down,
            by_product.as_mut(),
            Write::Overwrite,
        );

        let mut scratch = cpu.spare.take(width);
        for (index, row) in rows.enumerate() {
            let place = index * width..(index + 1) * width;
            let (gate, up) = (&mut gate[place.clone()], &mut up[place.clone()]);
            let by_product = &mut by_product.as_mut()[place.clone()];
            let product = if product.is_empty() {
                scratch.as_mut()
            } else {
                &mut product[place]
            };
            kernels::swiglu(cpu.level, gate, up, product);
            if let Some(weights) = self.weights {
                by_weights[index] = kernels::dot(cpu.level, by_product, product);
                kernels::scale(cpu.level, weights[row], by_product);
                kernels::scale(cpu.level, weights[row], product);
            }
            kernels::swiglu_gradient(cpu.level, by_product, gate, up);
        }
        if self.towards_input {
            let (gate, up) = (Source::Rows(gate, width), Source::Rows(up, width));
            workspace.input_gradient(gate, &network.gate, by_rows, Write::Overwrite);
            workspace.input_gradient(up, &network.up, by_rows, Write::Add);
        }
    }

    fn weight_gradients(&self, groups: Vec<BackwardGroup<'_>>, [gate, up, product]: [&Buffer; 3]) {
        let networks = groups.len();
        let mut tasks = Vec::new();
        for group in groups {
            let Some(by_network) = group.by_network else {
                continue;
            };
            let rows = group.rows;
            let of = |buffer| Source::Rows(Buffer::rows_of(buffer, rows.clone()), buffer.width());
            let input = (self.input)(rows.clone());
            let by_output = (self.by_output)(rows.clone());
            let matrices = [
                (&mut by_network.gate, of(gate), input),
                (&mut by_network.up, of(up), input),
                (&mut by_network.down, by_output, of(product)),
            ];
            for (gradient, by_output, input) in matrices {
                let Some(gradient) = gradient else { continue };
                // Three matrices each: a handful of tasks for every thread.
                let parts = (2 * self.cpu.threads).div_ceil(networks).max(1);
                let share = gradient.rows.div_ceil(PANEL).div_ceil(parts);
                tasks.extend(
                    gradient
                        .panels_mut(share)
                        .map(|(panels, gradient)| WeightTask {
                            by_output,
                            input,
                            panels,
                            gradient,
                        }),
                );
            }
        }
        self.cpu.each(tasks, |task| {
            self.cpu.workspace().weight_gradient(
                task.by_output,
                task.input,
                task.panels,
                task.gradient,
            );
        });
    }
}

/// An empty buffer where it is not wanted.
fn cpu_buffer(cpu: &Cpu, wanted: bool, rows: usize, width: usize) -> Buffer {
    cpu.buffer(if wanted { rows } else { 0 }, width)
}
