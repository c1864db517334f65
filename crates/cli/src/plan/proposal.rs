//! Which plan fits a memory: the most experts that any settings allow, then the most exact settings.
//!
//! Every candidate is priced by the engine's account. More experts never take less, so that the most are
//! found by bisection; what is given on the command line is never changed.

use anyhow::anyhow;

use super::figure::bytes_short;
use super::settings::Settings;
use super::setup::Setup;
use crate::args::plan::{MemorySize, PlanArguments, SettingArguments};
use crate::exit::Failure;

/// What a plan is free to choose, chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Choice {
    /// Trained experts of every MoE layer.
    pub(super) experts: usize,
    pub(super) settings: Settings,
}

impl Choice {
    /// What is given, and the defaults.
    pub(super) fn given(setup: &Setup<'_>, arguments: &PlanArguments) -> Self {
        let asked = arguments.experts.experts;
        Self {
            experts: asked.map_or_else(|| setup.default_experts(), |experts| experts as usize),
            settings: Settings::given(arguments.settings),
        }
    }
}

/// Which options the command line leaves open, by name.
pub(super) struct Open(Vec<&'static str>);

impl Open {
    pub(super) fn new(arguments: &PlanArguments) -> Self {
        let SettingArguments {
            dtype,
            master,
            optimizer,
            gradients,
            checkpointing,
        } = arguments.settings;
        let given = [
            ("experts", arguments.experts.experts.is_some()),
            ("dtype", dtype.is_some()),
            ("master", master.is_some()),
            ("optimizer", optimizer.is_some()),
            ("gradients", gradients.is_some()),
            ("checkpointing", checkpointing.is_some()),
        ];
        let open = given.into_iter().filter(|(_, given)| !given);
        Self(open.map(|(name, _)| name).collect())
    }

    /// Whether there is anything to choose.
    pub(super) fn anything(&self) -> bool {
        !self.0.is_empty()
    }

    /// What was chosen for every option that was open.
    pub(super) fn proposed(&self, choice: Choice) -> Vec<(&'static str, String)> {
        let experts = ("experts", choice.experts.to_string());
        let settings = choice.settings.options();
        let settings = settings.map(|(name, value)| (name, value.to_owned()));
        let all = [experts].into_iter().chain(settings);
        all.filter(|(name, _)| self.0.contains(name)).collect()
    }
}

/// The most experts that fit with any settings, and of these settings the most exact.
pub(super) fn largest(
    setup: &Setup<'_>,
    arguments: &PlanArguments,
    memory: &MemorySize,
) -> Result<Choice, Failure> {
    let candidates = Settings::by_exactness(arguments.settings);
    let total = |experts, settings| setup.memory(Choice { experts, settings }).account().total();
    let exactest = |experts| {
        let fits = |settings: &&Settings| total(experts, **settings) <= memory.bytes;
        candidates.iter().find(fits).map(|settings| Choice {
            experts,
            settings: *settings,
        })
    };
    let [mut fewest, mut most] = match arguments.experts.experts {
        Some(given) => [given as usize; 2],
        None => [1, setup.most_experts()],
    };
    let Some(mut found) = exactest(fewest) else {
        let leanest = candidates
            .iter()
            .map(|settings| total(fewest, *settings))
            .min();
        let what = match arguments.experts.experts {
            Some(given) => format!("{given} trained experts of a layer, however they are held,"),
            None => "even one trained expert of a layer".to_owned(),
        };
        return Err(too_large(&what, leanest.unwrap_or(u64::MAX), memory));
    };
    // `fewest` fits; what is above `most` does not.
    while fewest < most {
        let middle = fewest + (most - fewest).div_ceil(2);
        match exactest(middle) {
            Some(choice) => (fewest, found) = (middle, choice),
            None => most = middle - 1,
        }
    }
    Ok(found)
}

/// A plan that needs more than there is.
pub(super) fn too_large(what: &str, needed: u64, memory: &MemorySize) -> Failure {
    Failure::Check(anyhow!(
        "{what} needs {}, which is {} more than --memory {}",
        bytes_short(needed.into()),
        bytes_short(i128::from(needed) - i128::from(memory.bytes)),
        memory.text
    ))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use connito_engine::ModelConfig;

    use super::*;
    use crate::args::{Arguments, Command};

    fn arguments(options: &str) -> PlanArguments {
        let line = format!("connito plan --config any --seq 16 {options}");
        match Arguments::try_parse_from(line.split_whitespace())
            .unwrap()
            .command
        {
            Command::Plan(arguments) => *arguments,
            other => panic!("{other:?} is no plan"),
        }
    }

    fn size(bytes: u64) -> MemorySize {
        let text = format!("{bytes} bytes");
        MemorySize { bytes, text }
    }

    /// What the leanest settings for so many experts take, whichever they are.
    fn leanest(setup: &Setup<'_>, arguments: &PlanArguments, experts: usize) -> u64 {
        let candidates = Settings::by_exactness(arguments.settings).into_iter();
        let totals =
            candidates.map(|settings| setup.memory(Choice { experts, settings }).account().total());
        totals.min().unwrap()
    }

    /// At every size at which one more expert begins to fit, and just below. What should happen: the
    /// proposal fits. What should not: one more expert fitting too, or what was given being changed.
    #[test]
    fn a_proposal_fits_and_one_more_expert_would_not() {
        let config = ModelConfig::tiny(300);
        for options in [
            "",
            "--groups 2",
            "--groups 3 --allow-uneven",
            "--routing classic",
            "--routing frozen-kept --kept 3",
            "--routing fallback --kept 3 --groups 2",
            "--dtype fp8 --optimizer adamw",
            "--master f32 --gradients kept --checkpointing off --batch 9",
        ] {
            let arguments = arguments(options);
            let setup = Setup::new(&config, &arguments).unwrap();
            for experts in 1..=setup.most_experts() {
                let least = leanest(&setup, &arguments, experts);
                for bytes in [least - 1, least, least + 1000] {
                    let Ok(found) = largest(&setup, &arguments, &size(bytes)) else {
                        assert!(leanest(&setup, &arguments, 1) > bytes, "{options} {bytes}");
                        continue;
                    };
                    assert!(
                        setup.memory(found).account().total() <= bytes,
                        "{options} {bytes}"
                    );
                    if found.experts < setup.most_experts() {
                        let more = leanest(&setup, &arguments, found.experts + 1);
                        assert!(more > bytes, "{options} {bytes}: {found:?}");
                    }
                    let candidates = Settings::by_exactness(arguments.settings);
                    assert!(candidates.contains(&found.settings), "{options}: {found:?}");
                }
            }
        }
    }

    /// From plenty to too little: what is dearest to quality goes last.
    #[test]
    fn what_costs_least_is_given_up_first() {
        let config = ModelConfig::tiny(300);
        let arguments = arguments("--experts 8 --batch 4");
        let setup = Setup::new(&config, &arguments).unwrap();
        let given_up = |bytes| {
            let found = largest(&setup, &arguments, &size(bytes)).unwrap();
            found.settings.options().map(|(_, value)| value)
        };
        let [rich, lean] = [u64::MAX, leanest(&setup, &arguments, 8)].map(given_up);
        assert_eq!(rich, ["bf16", "f32", "adamw", "kept", "off"]);
        assert_eq!(lean, ["int8", "none", "adamw-8bit", "released", "on"]);
        let all = Settings::by_exactness(arguments.settings);
        assert_eq!(all.len(), 32);
        let recomputed = all[1].options().map(|(_, value)| value);
        assert_eq!(recomputed, ["bf16", "f32", "adamw", "kept", "on"]);
    }
}
