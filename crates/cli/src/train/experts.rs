//! Which experts are trained, which are kept, and what that makes of the routing.
//!
//! Files have the public form `{"experts": {"layer": [ids]}, "shared_experts": …, "non_expert_modules": …}`.
//! Whatever else than routed experts such a file asks to be trained is refused, not ignored.

use std::path::Path;

use anyhow::{Context, anyhow};
use connito_engine::routing::ExpertMap;
use connito_engine::{ModelConfig, Routing};
use connito_learning::selection::ExpertConfig;

use crate::args::inspect::RoutingMode;
use crate::args::train::TrainArguments;
use crate::exit::{Blame, Failure};
use crate::text_file;

/// What is trained, and along which routes.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) trained: ExpertMap,
    pub(super) routing: Routing,
    /// What lists the experts, for messages.
    pub(super) source: String,
}

impl Choice {
    /// What the command line says of a model.
    pub(super) fn new(arguments: &TrainArguments, config: &ModelConfig) -> Result<Self, Failure> {
        let (mode, kept) = (arguments.run.routing, arguments.kept.as_deref());
        let takes_kept = matches!(mode, RoutingMode::FrozenKept | RoutingMode::Fallback);
        let name = mode.name();
        match kept {
            None if takes_kept => {
                return Err(Failure::Input(anyhow!(
                    "--routing {name} needs --kept FILE"
                )));
            }
            Some(kept) if !takes_kept => {
                let kept = kept.display();
                return Err(Failure::Input(anyhow!(
                    "--kept {kept}: --routing {name} keeps no experts"
                )));
            }
            _ => {}
        }
        let trained = match &arguments.experts {
            Some(path) => read(path)?,
            None => {
                let all = || (0..config.mixture.experts).collect();
                config.moe_layers().map(|layer| (layer, all())).collect()
            }
        };
        let of_file = |path: &Path| path.display().to_string();
        let files = [arguments.experts.as_deref(), kept];
        let files: Vec<String> = files.into_iter().flatten().map(of_file).collect();
        let source = match files.as_slice() {
            [] => of_file(&arguments.model),
            files => files.join(" and "),
        };
        let kept = kept.map(read).transpose()?.unwrap_or_default();
        let routing = match mode {
            RoutingMode::Classic => Routing::Classic,
            RoutingMode::Masked => Routing::Masked {
                experts: trained.clone(),
            },
            RoutingMode::FrozenKept => Routing::FrozenKept {
                trained: trained.clone(),
                kept,
            },
            RoutingMode::Fallback => Routing::Fallback {
                trained: trained.clone(),
                kept,
            },
        };
        Ok(Self {
            trained,
            routing,
            source,
        })
    }

    /// How many experts are trained in all layers together.
    pub(super) fn count(&self) -> usize {
        self.trained.values().map(Vec::len).sum()
    }
}

fn read(path: &Path) -> Result<ExpertMap, Failure> {
    let file = || path.display().to_string();
    let text = text_file::read(path)?;
    let config = ExpertConfig::from_json(&text).with_context(file).input()?;
    let asked = [
        ("shared_experts", config.shared_experts),
        ("non_expert_modules", config.non_expert_modules),
    ];
    match asked.into_iter().find(|(_, asked)| *asked) {
        Some((key, _)) => Err(anyhow!(
            "{key} is true, but only routed experts are trained"
        ))
        .with_context(file)
        .input(),
        None => Ok(config.experts),
    }
}
