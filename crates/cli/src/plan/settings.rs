//! How everything that a plan holds is held, as options of the command line and as the engine's own
//! memory plan.

use connito_engine::MemoryPlan;
use connito_engine::element::Element;
use connito_engine::memory::{Activations, GradientMemory};
use connito_engine::optimizer::MomentsFormat;

use crate::args::bench::{Gradients, StoredType};
use crate::args::plan::{Checkpointing, Master, Optimizer, SettingArguments};

/// All settings, none left open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) dtype: StoredType,
    pub(super) master: Master,
    pub(super) optimizer: Optimizer,
    pub(super) gradients: Gradients,
    pub(super) checkpointing: Checkpointing,
}

impl Settings {
    /// What is given, and for the rest what lets the published models train on a card of 24 GB.
    pub(super) fn given(given: SettingArguments) -> Self {
        Self {
            dtype: given.dtype.unwrap_or(StoredType::Bf16),
            master: given.master.unwrap_or(Master::None),
            optimizer: given.optimizer.unwrap_or(Optimizer::Adamw8bit),
            gradients: given.gradients.unwrap_or(Gradients::Released),
            checkpointing: given.checkpointing.unwrap_or(Checkpointing::On),
        }
    }

    /// Every combination of what is not given, the most exact first.
    ///
    /// The last setting changes first, so that what costs least is given up first. Activations that are
    /// computed again change nothing but the time; released gradients are clipped layer by layer and
    /// need all tokens in one pass; moments in a byte and weights without a master copy are rounded;
    /// frozen weights in int8 are another model. f32 is not proposed for these, since checkpoints are
    /// published in bf16, nor is fp8, which takes what int8 takes and is less exact.
    pub(super) fn by_exactness(given: SettingArguments) -> Vec<Self> {
        let mut all = Vec::new();
        for dtype in either(given.dtype, [StoredType::Bf16, StoredType::Int8]) {
            for master in either(given.master, [Master::F32, Master::None]) {
                for optimizer in either(given.optimizer, [Optimizer::Adamw, Optimizer::Adamw8bit]) {
                    for gradients in either(given.gradients, [Gradients::Kept, Gradients::Released])
                    {
                        let open = [Checkpointing::Off, Checkpointing::On];
                        all.extend(either(given.checkpointing, open).into_iter().map(
                            |checkpointing| Self {
                                dtype,
                                master,
                                optimizer,
                                gradients,
                                checkpointing,
                            },
                        ));
                    }
                }
            }
        }
        all
    }

    /// The same for the engine; a step is one pass.
    pub(super) fn memory_plan(self) -> MemoryPlan {
        MemoryPlan {
            frozen: match self.dtype {
                StoredType::F32 => Element::F32,
                StoredType::Bf16 => Element::Bf16,
                StoredType::Int8 => Element::Int8,
                StoredType::Fp8 => Element::Fp8,
            },
            trained: match self.master {
                Master::F32 => Element::F32,
                Master::None => Element::Bf16,
            },
            moments: match self.optimizer {
                Optimizer::Adamw => MomentsFormat::F32,
                Optimizer::Adamw8bit => MomentsFormat::Blockwise8,
            },
            gradients: match self.gradients {
                Gradients::Kept => GradientMemory::Kept,
                Gradients::Released => GradientMemory::Released,
            },
            activations: match self.checkpointing {
                Checkpointing::On => Activations::Recomputed,
                Checkpointing::Off => Activations::Kept,
            },
            pass_tokens: usize::MAX,
        }
    }

    /// Name and value of every option.
    pub(super) fn options(self) -> [(&'static str, &'static str); 5] {
        [
            ("dtype", dtype_name(self.dtype)),
            ("master", self.master.name()),
            ("optimizer", self.optimizer.name()),
            ("gradients", gradients_name(self.gradients)),
            ("checkpointing", self.checkpointing.name()),
        ]
    }

    /// In words.
    pub(super) fn words(self) -> String {
        let trained = match self.master {
            Master::F32 => "trained weights f32",
            Master::None => "trained weights bf16, rounded stochastically",
        };
        let moments = match self.optimizer {
            Optimizer::Adamw => "AdamW states f32",
            Optimizer::Adamw8bit => "AdamW states 8-bit",
        };
        let activations = match self.checkpointing {
            Checkpointing::On => "recomputed",
            Checkpointing::Off => "kept",
        };
        let (dtype, gradients) = (dtype_name(self.dtype), gradients_name(self.gradients));
        format!(
            "frozen weights {dtype}, {trained},\n{moments}, gradients {gradients}, activations {activations}"
        )
    }
}

/// What is given, or else both candidates.
fn either<T: Copy>(given: Option<T>, candidates: [T; 2]) -> Vec<T> {
    given.map_or_else(|| candidates.to_vec(), |given| vec![given])
}

fn dtype_name(dtype: StoredType) -> &'static str {
    match dtype {
        StoredType::F32 => "f32",
        StoredType::Bf16 => "bf16",
        StoredType::Int8 => "int8",
        StoredType::Fp8 => "fp8",
    }
}

fn gradients_name(gradients: Gradients) -> &'static str {
    match gradients {
        Gradients::Kept => "kept",
        Gradients::Released => "released",
    }
}
