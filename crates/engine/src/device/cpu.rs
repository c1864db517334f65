//! The CPU: activations in recycled memory, parameters in panels, work divided among a fixed number of threads.
//!
//! Every operation cuts its result into parts that are computed independently and puts them together in
//! a fixed order, so results are the same bits on any number of threads. `storage` and `weight` say how
//! things lie in memory, `product` multiplies, `rows`, `attention`, `networks`, `adaptation` and `loss`
//! are the operations; instruction sets are the business of the kernels.

mod adaptation;
mod attention;
mod loss;
mod networks;
mod product;
mod rows;
mod storage;
#[cfg(test)]
mod tests;
mod weight;

use std::sync::{Arc, Mutex, PoisonError};

use product::{Source, Workspace, blocks};
use rayon::{ThreadPool, ThreadPoolBuilder};
use storage::Spare;

pub(crate) use loss::run_tokens;
pub use networks::CpuRoutes;
pub use storage::Buffer;
pub(crate) use weight::stored_bytes;
pub use weight::{Gradient, Weight};

use crate::device::{
    Attended, AttentionGradients, AttentionInputs, AttentionLayout, Blend, Device, Distilled, Gate,
    Gated, HeadGradients, Keep, LatentHeads, Layout, RmsNorm, RotaryTable, Rotation, RoutedExperts,
    Rows, Saved,
};
use crate::element::Element;
use crate::error::EngineError;
use crate::kernels::{self, Level, PANEL, Write};
use crate::names::SwiGlu;
use crate::optimizer::{AdamWStep, Moments, MomentsFormat, ParametersMut, WeightsMut};
use crate::routing::Picks;

/// Values of a parameter that one task of the optimiser steps: a multiple of its blocks.
const OPTIMIZER_TASK: usize = 1 << 16;

/// Rows that are worth a task: fewer would read whole parameters for next to nothing.
const FEWEST_ROWS: usize = 14;

/// The optimiser's memory of one parameter, in the order of its [`Weight`].
#[derive(Debug)]
pub struct CpuMoments(Moments);

/// A number of threads with the widest instructions that the processor has.
#[derive(Debug, Clone)]
pub struct Cpu {
    level: Level,
    threads: usize,
    /// `None` for one thread: the caller's.
    pool: Option<Arc<ThreadPool>>,
    spare: Arc<Spare>,
}

impl Cpu {
    /// This processor, on `threads` threads.
    ///
    /// # Errors
    ///
    /// When the operating system refuses the threads.
    pub fn new(threads: usize) -> Result<Self, EngineError> {
        let threads = threads.max(1);
        let pool = (threads > 1).then(|| {
            ThreadPoolBuilder::new()
                .num_threads(threads)
                .thread_name(|index| format!("engine-{index}"))
                .build()
        });
        let pool = pool.transpose().map_err(|error| EngineError::Threads {
            threads,
            reason: error.to_string(),
        })?;
        Ok(Self {
            level: Level::detect(),
            threads,
            pool: pool.map(Arc::new),
            spare: Arc::default(),
        })
    }

    /// One thread: the caller's.
    #[must_use]
    pub fn single() -> Self {
        Self {
            level: Level::detect(),
            threads: 1,
            pool: None,
            spare: Arc::default(),
        }
    }

    /// The same on another instruction set, for comparing them.
    #[cfg(test)]
    pub(crate) fn with_level(mut self, level: Level) -> Self {
        self.level = level;
        self
    }

    /// Runs every task once, each thread taking the next one when it is free.
    fn each<T: Send>(&self, tasks: Vec<T>, run: impl Fn(T) + Sync) {
        let Some(pool) = self.pool.as_ref().filter(|_| tasks.len() > 1) else {
            return tasks.into_iter().for_each(run);
        };
        let helpers = self.threads.min(tasks.len()) - 1;
        let queue = Mutex::new(tasks.into_iter());
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || {
            while let Some(task) = next() {
                run(task);
            }
        };
        pool.in_place_scope(|scope| {
            for _ in 0..helpers {
                scope.spawn(|_| work());
            }
            work();
        });
    }

    /// As [`Self::each`], with results in the order of the tasks.
    fn map<T: Send, R: Send>(&self, tasks: Vec<T>, run: impl Fn(T) -> R + Sync) -> Vec<R> {
        let mut results: Vec<Option<R>> = Vec::new();
        results.resize_with(tasks.len(), || None);
        let slots = tasks.into_iter().zip(&mut results).collect();
        self.each(slots, |(task, slot)| *slot = Some(run(task)));
        results.into_iter().flatten().collect()
    }

    /// Rows per task when `rows` are divided evenly among the threads in runs of at most `most`.
    fn rows_per_task(&self, rows: usize, most: usize) -> usize {
        let rounds = rows.div_ceil(self.threads * most).max(1);
        rows.div_ceil(self.threads * rounds).max(FEWEST_ROWS)
    }

    fn workspace(&self) -> Workspace {
        Workspace::new(self.level, &self.spare)
    }

    fn buffer(&self, rows: usize, width: usize) -> Buffer {
        Buffer::new(rows, width, self.spare.take(rows * width))
    }

    fn zeros(&self, rows: usize, width: usize) -> Buffer {
        Buffer::new(rows, width, self.spare.zeros(rows * width))
    }

    /// `into (+)= dy·W`, rows divided among the threads.
    fn backward(&self, by_output: &Buffer, weight: &Weight, into: &mut Buffer, write: Write) {
        debug_assert_eq!(
            (by_output.width(), into.width()),
            (weight.rows, weight.width)
        );
        let share = self.rows_per_task(by_output.rows(), product::TURNED_ROWS);
        let inputs = blocks(by_output.rows(), share);
        let outputs = into.values_mut().chunks_mut(share * weight.width);
        self.each(inputs.zip(outputs).collect(), |(rows, into)| {
            let source = Source::Rows(by_output.rows_of(rows), weight.rows);
            self.workspace().input_gradient(source, weight, into, write);
        });
    }
}

impl Device for Cpu {
    type Buffer = Buffer;
    type Indices = Vec<u32>;
    type Weight = Weight;
    type Gradient = Gradient;
    type Moments = CpuMoments;
    type Routes = CpuRoutes;
    type Rotary = RotaryTable;

    fn session<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            // On a thread of the pool, handing work to the others costs no switch of threads.
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    fn weight(&self, source: &dyn Rows, layout: Layout, element: Element) -> Weight {
        let mut weight = Weight::zeros(source, layout, element);
        let mut parts = weight.parts();
        let share = parts.len().div_ceil(4 * self.threads).max(1);
        let mut tasks = Vec::new();
        while !parts.is_empty() {
            let rest = parts.split_off(share.min(parts.len()));
            tasks.push(std::mem::replace(&mut parts, rest));
        }
        self.each(tasks, |parts| {
            for part in parts {
                part.fill(self.level, source, layout);
            }
        });
        weight
    }

    fn read_weight(&self, weight: &Weight) -> Vec<f32> {
        let mut values = vec![0.0; weight.rows * weight.width];
        let share = weight.rows.div_ceil(4 * self.threads).max(1);
        let parts = values.chunks_mut(share * weight.width).enumerate();
        self.each(parts.collect(), |(part, values)| {
            for (row, into) in values.chunks_exact_mut(weight.width).enumerate() {
                weight.read_row(part * share + row, into);
            }
        });
        values
    }

    fn gradient(&self, weight: &Weight) -> Gradient {
        Gradient::zeros(weight)
    }

    fn read_gradient(&self, gradient: &Gradient) -> Vec<f32> {
        gradient.read()
    }

    fn clear(&self, gradient: &mut Gradient) {
        let parts = gradient.values.chunks_mut(OPTIMIZER_TASK);
        self.each(parts.collect(), |part| part.fill(0.0));
    }

    fn sum_of_squares(&self, gradient: &Gradient) -> f64 {
        let parts = gradient.values.chunks(OPTIMIZER_TASK).collect();
        let sums = self.map(parts, |part| {
            // Runs short enough for f32, their sums added in f64.
            let runs = part.chunks(1024);
            runs.map(|run| f64::from(kernels::sum_of_squares(self.level, run)))
                .sum::<f64>()
        });
        sums.iter().sum()
    }

    fn moments(&self, weight: &Weight, format: MomentsFormat) -> CpuMoments {
        CpuMoments(Moments::zeros(format, weight.stored_len()))
    }

    fn adamw(
        &self,
        weight: &mut Weight,
        gradient: &Gradient,
        moments: &mut CpuMoments,
        step: &AdamWStep,
    ) {
        let weights = match &mut weight.values {
            weight::Elements::F32(values) => WeightsMut::F32(values),
            weight::Elements::Bf16(values) => WeightsMut::Bf16(values),
            weight::Elements::Int8 { .. } | weight::Elements::Fp8 { .. } => {
                unreachable!("a memory plan keeps no trained parameter in 8 bits")
            }
        };
        let parameters = ParametersMut::new(weights, moments.0.as_mut(), 0);
        let gradients = gradient.values.chunks(OPTIMIZER_TASK);
        let tasks = parameters.chunks(OPTIMIZER_TASK).zip(gradients);
        self.each(tasks.collect(), |(parameters, gradient)| {
            kernels::optimizer::adamw(self.level, parameters, gradient, step);
        });
    }

    fn indices(&self, values: &[u32]) -> Vec<u32> {
        values.to_vec()
    }

    fn rotary(&self, table: RotaryTable) -> RotaryTable {
        table
    }

    fn download(&self, buffer: &Buffer) -> Vec<f32> {
        buffer.values().to_vec()
    }

    fn zeros_like(&self, buffer: &Buffer) -> Buffer {
        self.zeros(buffer.rows(), buffer.width())
    }

    fn copy(&self, buffer: &Buffer) -> Buffer {
        rows::copy(self, buffer)
    }

    fn add(&self, addend: &Buffer, into: &mut Buffer) {
        rows::add(self, addend, into);
    }

    fn embed(&self, table: &Weight, ids: &Vec<u32>) -> Buffer {
        rows::embed(self, table, ids)
    }

    fn embed_gradient(&self, by_output: &Buffer, ids: &Vec<u32>, table: &mut Gradient) {
        rows::embed_gradient(self, by_output, ids, table);
    }

    fn gather(&self, source: &Buffer, rows: &Vec<u32>) -> Buffer {
        rows::gather(self, source, rows)
    }

    fn gather_gradient(&self, by_output: &Buffer, rows: &Vec<u32>, count: usize) -> Buffer {
        rows::gather_gradient(self, by_output, rows, count)
    }

    fn split_columns(&self, source: &Buffer, at: usize) -> (Buffer, Buffer) {
        rows::split_columns(self, source, at)
    }

    fn join_columns(&self, left: &Buffer, right: &Buffer) -> Buffer {
        rows::join_columns(self, left, right)
    }

    fn linear(&self, input: &Buffer, weight: &Weight) -> Buffer {
        debug_assert_eq!(input.width(), weight.width);
        let mut output = self.buffer(input.rows(), weight.rows);
        let share = self.rows_per_task(input.rows(), product::BLOCK_ROWS);
        let inputs = blocks(input.rows(), share);
        let outputs = output.values_mut().chunks_mut(share * weight.rows);
        self.each(inputs.zip(outputs).collect(), |(rows, into)| {
            let source = Source::Rows(input.rows_of(rows), weight.width);
            self.workspace().forward(source, &mut [(weight, into)]);
        });
        output
    }

    fn linear_input_gradient(&self, by_output: &Buffer, weight: &Weight) -> Buffer {
        let mut by_input = self.buffer(by_output.rows(), weight.width);
        self.backward(by_output, weight, &mut by_input, Write::Overwrite);
        by_input
    }

    fn linear_input_gradient_add(&self, by_output: &Buffer, weight: &Weight, into: &mut Buffer) {
        self.backward(by_output, weight, into, Write::Add);
    }

    fn linear_weight_gradient(&self, by_output: &Buffer, input: &Buffer, gradient: &mut Gradient) {
        let panels = gradient.rows.div_ceil(PANEL);
        let share = panels.div_ceil(2 * self.threads).max(1);
        let tasks = gradient.panels_mut(share).collect();
        self.each(tasks, |(panels, gradient)| {
            let by_output = Source::Rows(by_output.values(), by_output.width());
            let input = Source::Rows(input.values(), input.width());
            self.workspace()
                .weight_gradient(by_output, input, panels, gradient);
        });
    }

    fn rms_norm(&self, norm: &RmsNorm<'_, Self>) -> Buffer {
        rows::rms_norm(self, norm)
    }

    fn rms_norm_gradient(
        &self,
        norm: &RmsNorm<'_, Self>,
        by_output: &Buffer,
        by_input: &mut Buffer,
        by_weight: Option<&mut Gradient>,
    ) {
        rows::rms_norm_gradient(self, norm, by_output, by_input);
        if let Some(by_weight) = by_weight {
            rows::rms_norm_weight_gradient(norm, by_output, by_weight);
        }
    }

    fn clip(&self, values: &mut Buffer, bound: f32) {
        for value in values.values_mut() {
            *value = value.clamp(-bound, bound);
        }
    }

    fn clip_gradient(&self, before: &Buffer, bound: f32, by_output: &mut Buffer) {
        for (gradient, before) in by_output.values_mut().iter_mut().zip(before.values()) {
            if before.abs() > bound {
                *gradient = 0.0;
            }
        }
    }

    fn rotate(&self, heads: &mut Buffer, rotation: &Rotation<'_, Self>) {
        rows::rotate(self, heads, rotation);
    }

    fn assemble(
        &self,
        expanded: &Buffer,
        rotated: &Buffer,
        heads: LatentHeads,
    ) -> (Buffer, Buffer) {
        rows::assemble(self, expanded, rotated, heads)
    }

    fn assemble_gradient(
        &self,
        by_keys: &Buffer,
        by_values: &Buffer,
        heads: LatentHeads,
    ) -> (Buffer, Buffer) {
        rows::assemble_gradient(self, by_keys, by_values, heads)
    }

    fn attention(
        &self,
        inputs: &AttentionInputs<'_, Buffer>,
        layout: &AttentionLayout<'_>,
    ) -> Attended<Buffer> {
        attention::forward(self, inputs, layout)
    }

    fn attention_gradient(
        &self,
        inputs: &AttentionInputs<'_, Buffer>,
        log_sums: &Buffer,
        by_output: &Buffer,
        layout: &AttentionLayout<'_>,
    ) -> AttentionGradients<Buffer> {
        attention::backward(self, inputs, log_sums, by_output, layout)
    }

    fn network(
        &self,
        input: &Buffer,
        network: &SwiGlu<Weight>,
        keep: Keep,
    ) -> (Buffer, Option<Gated<Buffer>>) {
        networks::network(self, input, network, keep)
    }

    fn network_gradient(
        &self,
        network: &SwiGlu<Weight>,
        saved: Saved<'_, Self>,
        by_network: Option<&mut SwiGlu<Option<Gradient>>>,
        by_input: Option<&mut Buffer>,
    ) {
        networks::network_gradient(self, network, saved, by_network, by_input);
    }

    fn route(&self, logits: &Buffer, gate: &Gate<'_, Self>) -> CpuRoutes {
        networks::route(self, logits, gate)
    }

    fn picks(&self, routes: &CpuRoutes) -> Picks {
        routes.picks()
    }

    fn experts(
        &self,
        experts: RoutedExperts<'_, Self>,
        input: &Buffer,
        keep: Keep,
        into: &mut Buffer,
    ) -> Option<Gated<Buffer>> {
        networks::experts(self, experts, input, keep, into)
    }

    fn experts_gradient(
        &self,
        experts: RoutedExperts<'_, Self>,
        saved: Saved<'_, Self>,
        by_experts: &mut [Option<SwiGlu<Option<Gradient>>>],
        by_input: Option<&mut Buffer>,
    ) -> Option<Buffer> {
        networks::experts_gradient(self, experts, saved, by_experts, by_input)
    }

    fn gelu(&self, values: &Buffer) -> Buffer {
        adaptation::gelu(self, values)
    }

    fn gelu_gradient(&self, before: &Buffer, by_output: &mut Buffer) {
        adaptation::gelu_gradient(self, before, by_output);
    }

    fn distil(&self, logits: Distilled<'_, Buffer>, blend: &Blend, by_student: &mut Buffer) -> f64 {
        adaptation::distil(self, logits, blend, by_student)
    }

    fn cross_entropy(
        &self,
        hidden: &Buffer,
        head: &Weight,
        targets: &Vec<u32>,
        gradients: Option<HeadGradients<'_, Self>>,
    ) -> Vec<f32> {
        loss::cross_entropy(self, hidden, head, targets, gradients)
    }
}
