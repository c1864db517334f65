//! Where a parameter lies inside the tensors of a checkpoint.
//!
//! Backbone parameters are tensors of their own. Routed experts come in four layouts, told apart by name
//! and, between the fused ones, by shape (`E` experts, `I` their width, `H` hidden size):
//!
//! ```text
//! per expert         experts.e.gate_proj.weight [I, H] …      Hub checkpoints
//! fused              experts.gate_up_proj [E, 2I, H], down_proj [E, H, I]
//! fused, transposed  experts.gate_up_proj [E, H, 2I], down_proj [E, I, H]
//! slot-fused         experts.e.gate_up_proj [2I, H], down_proj [H, I]
//! ```
//!
//! The gate comes before the up matrix wherever they share a tensor. Where the tensors of a slice hold
//! fewer experts than the model has, `E` is how many they hold, in ascending order. Knows nothing of files.

use std::collections::BTreeMap;

use crate::config::{Family, ModelConfig};
use crate::names::{Parameter, Parameters, block, expert_parameter_names, prefix};
use crate::routing::ExpertMap;

/// Written by old versions of `transformers`; follows from the configuration.
const DERIVED_SUFFIX: &str = ".rotary_emb.inv_freq";

/// What a tensor of scales adds to the name of the tensor that it scales.
pub(super) const SCALE_SUFFIX: &str = "_scale_inv";

/// The vision tower, which passes through untouched.
const VISION_PREFIX: &str = "model.visual.";

/// Which numbers of a tensor are a parameter's, counted in numbers from the tensor's first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct View {
    pub(super) offset: usize,
    pub(super) rows: usize,
    pub(super) width: usize,
    /// From one row to the next.
    pub(super) row_stride: usize,
    /// From one column to the next; 1 unless the parameter is stored transposed.
    pub(super) column_stride: usize,
}

/// Two matrices or one of an expert: what a fused tensor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fused {
    GateUp,
    Down,
}

/// Where one parameter lies in one tensor.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Part {
    /// It is the tensor.
    Whole { shape: Vec<usize> },
    /// One of many experts' matrices: 0 and 1 are gate and up, or 0 is down.
    OfAll {
        fused: Fused,
        /// Where the expert stands among those that share the tensor.
        row: usize,
        /// How many share it.
        rows: usize,
        matrix: usize,
    },
    /// One of an expert's matrices.
    OfOne { fused: Fused, matrix: usize },
}

/// What a tensor holds.
#[derive(Debug, PartialEq)]
pub(super) enum Content {
    /// Parameters by canonical name, in the order of their bytes.
    Parameters(Vec<(String, Part)>),
    /// Something that is copied and never computed with.
    Passenger,
    /// Something that neither this engine nor `transformers` reads.
    Unread,
    /// Nothing that the model has.
    Foreign,
}

/// Tells what tensors hold, by their names.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) config: ModelConfig,
    /// Shapes of all parameters but routed experts.
    backbone: BTreeMap<String, Vec<usize>>,
}

impl Layout {
    pub(super) fn new(config: ModelConfig) -> Self {
        let mut backbone = BTreeMap::new();
        let mut leaf = |parameter: Parameter<'_>| {
            backbone.insert(parameter.name, parameter.shape.to_vec());
            Ok::<_, std::convert::Infallible>(())
        };
        let Ok(_) = Parameters::build(&config, &|_, _| false, &mut leaf);
        Self { config, backbone }
    }

    /// What a tensor holds, in a file that says it holds these experts, or says nothing.
    pub(super) fn content(&self, tensor: &str, held: Option<&ExpertMap>) -> Content {
        if let Some(scaled) = tensor.strip_suffix(SCALE_SUFFIX) {
            return match self.content(scaled, held) {
                Content::Parameters(_) => Content::Passenger,
                other => other,
            };
        }
        // In memory `transformers` calls Mixtral's block as everybody else's, and may save it so.
        let name = match self.config.family {
            Family::Mixtral => tensor.replacen(".mlp.", ".block_sparse_moe.", 1),
            _ => tensor.to_owned(),
        };
        if let Some(shape) = self.backbone.get(&name) {
            let shape = shape.clone();
            return Content::Parameters(vec![(name, Part::Whole { shape })]);
        }
        match self.experts(&name, held) {
            Some(parameters) => Content::Parameters(parameters),
            None => self.other(&name),
        }
    }

    /// What holds no parameter.
    fn other(&self, name: &str) -> Content {
        // The module that predicts several tokens at once follows the last layer.
        let module = format!("model.layers.{}.", self.config.num_hidden_layers);
        match self.config.family {
            _ if name.ends_with(DERIVED_SUFFIX) => Content::Unread,
            Family::DeepseekV3 if name.starts_with(&module) => Content::Unread,
            Family::Qwen3VlMoe if name.starts_with(VISION_PREFIX) => Content::Passenger,
            _ => Content::Foreign,
        }
    }

    /// The matrices of routed experts that a tensor holds; `None` if it is none of theirs.
    fn experts(&self, name: &str, held: Option<&ExpertMap>) -> Option<Vec<(String, Part)>> {
        let family = self.config.family;
        let (layer, rest) = name
            .strip_prefix(prefix(family))?
            .strip_prefix("layers.")?
            .split_once('.')?;
        let layer = index(layer).filter(|layer| self.config.is_moe_layer(*layer))?;
        let rest = rest
            .strip_prefix(block(family))?
            .strip_prefix(".experts.")?;
        let experts: Vec<usize> = match held {
            Some(held) => held.get(&layer)?.clone(),
            None => (0..self.config.mixture.experts).collect(),
        };
        let matrices = |expert| expert_parameter_names(family, layer, expert);
        if let Some(fused) = fused(rest) {
            let rows = experts.len();
            let of_all = experts.into_iter().enumerate().flat_map(|(row, expert)| {
                let parts = parts(matrices(expert), fused).into_iter().enumerate();
                parts.map(move |(matrix, name)| {
                    let part = Part::OfAll {
                        fused,
                        row,
                        rows,
                        matrix,
                    };
                    (name, part)
                })
            });
            return Some(of_all.collect());
        }
        let (expert, matrix) = rest.split_once('.')?;
        let expert = index(expert).filter(|expert| experts.binary_search(expert).is_ok())?;
        if let Some(fused) = fused(matrix) {
            let parts = parts(matrices(expert), fused).into_iter().enumerate();
            let of_one = parts.map(|(matrix, name)| (name, Part::OfOne { fused, matrix }));
            return Some(of_one.collect());
        }
        let [gate, up, down] = matrices(expert);
        let (hidden, width) = (self.config.hidden_size, self.config.mixture.width);
        let shape = match name {
            _ if name == gate || name == up => vec![width, hidden],
            _ if name == down => vec![hidden, width],
            _ => return None,
        };
        Some(vec![(name.to_owned(), Part::Whole { shape })])
    }

    /// Where a part lies in a tensor of this shape, or else the shape that the tensor should have.
    pub(super) fn view(&self, part: &Part, shape: &[usize]) -> Result<View, Vec<usize>> {
        let (hidden, width) = (self.config.hidden_size, self.config.mixture.width);
        let (fused, row, matrix, leading) = match part {
            Part::Whole { shape: expected } if expected == shape => {
                return Ok(whole(expected));
            }
            Part::Whole { shape: expected } => return Err(expected.clone()),
            Part::OfAll {
                fused,
                row,
                rows,
                matrix,
            } => (fused, *row, *matrix, Some(*rows)),
            Part::OfOne { fused, matrix } => (fused, 0, *matrix, None),
        };
        // A matrix of one expert, and how many of its kind share a tensor.
        let ([rows, columns], matrices) = match fused {
            Fused::GateUp => ([width, hidden], 2),
            Fused::Down => ([hidden, width], 1),
        };
        let stacked = matrices * rows;
        let expected: Vec<usize> = leading.into_iter().chain([stacked, columns]).collect();
        let base = row * stacked * columns;
        if shape == expected {
            return Ok(View {
                offset: base + matrix * rows * columns,
                rows,
                width: columns,
                row_stride: columns,
                column_stride: 1,
            });
        }
        let transposed: Vec<usize> = leading.into_iter().chain([columns, stacked]).collect();
        if leading.is_some() && shape == transposed {
            return Ok(View {
                offset: base + matrix * rows,
                rows,
                width: columns,
                row_stride: 1,
                column_stride: stacked,
            });
        }
        Err(expected)
    }

    /// Whether a fused tensor could be read in both orientations, of which the first is taken.
    pub(super) fn is_ambiguous(&self, part: &Part) -> bool {
        let (hidden, width) = (self.config.hidden_size, self.config.mixture.width);
        match part {
            Part::Whole { .. } | Part::OfOne { .. } => false,
            Part::OfAll { fused, .. } => match fused {
                Fused::GateUp => 2 * width == hidden,
                Fused::Down => width == hidden,
            },
        }
    }
}

/// A tensor that is one parameter; a vector is one row.
fn whole(shape: &[usize]) -> View {
    let width = shape.last().copied().unwrap_or(1);
    View {
        offset: 0,
        rows: shape.iter().rev().skip(1).product(),
        width,
        row_stride: width,
        column_stride: 1,
    }
}

/// Fused tensors have no suffix; an expert's own down matrix has one.
pub(super) fn fused(name: &str) -> Option<Fused> {
    match name {
        "gate_up_proj" => Some(Fused::GateUp),
        "down_proj" => Some(Fused::Down),
        _ => None,
    }
}

/// Those of an expert's matrices that a fused tensor holds.
pub(super) fn parts([gate, up, down]: [String; 3], fused: Fused) -> Vec<String> {
    match fused {
        Fused::GateUp => vec![gate, up],
        Fused::Down => vec![down],
    }
}

/// A number as names spell it: "007" and "+7" are none.
pub(super) fn index(text: &str) -> Option<usize> {
    let number: usize = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}
