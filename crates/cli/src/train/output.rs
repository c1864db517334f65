//! What `train` leaves behind: a whole Hugging Face folder in which the trained experts are new and
//! everything else is as it was, byte for byte, and a result on standard output.
//!
//! The folder is written beside its place and renamed, so that a folder that is there is whole.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use connito_engine::checkpoint::{Checkpoint, FileElement};
use connito_engine::device::Rows;
use connito_engine::routing::ExpertMap;
use connito_engine::{Model, parse_expert_name};
use serde::Serialize;

use crate::exit::{Blame, Failure};

/// Where the trained model goes.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    unfinished: PathBuf,
}

impl Place {
    /// Refuses a place that is taken or that does not exist, before anything is computed.
    pub(super) fn new(out: &Path, model: &Path) -> Result<Self, Failure> {
        let refused = |what: String| Err(Failure::Input(anyhow!("--out {} {what}", out.display())));
        match fs::symlink_metadata(out) {
            Ok(found) if !found.is_dir() => return refused("is there and is no folder".to_owned()),
            Ok(_) => {
                let mut entries = fs::read_dir(out)
                    .with_context(|| format!("cannot read {}", out.display()))
                    .input()?;
                if entries.next().is_some() {
                    return refused("is not empty".to_owned());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("cannot read {}", out.display()))
                    .input();
            }
        }
        // A bare name lies in the working directory, its parent being empty.
        let parent = out.parent().filter(|parent| *parent != Path::new(""));
        let parent = parent.unwrap_or(Path::new("."));
        let (Some(name), Ok(parent)) = (out.file_name(), parent.canonicalize()) else {
            return refused(format!(
                "has no place: there is no folder {}",
                parent.display()
            ));
        };
        let path = parent.join(name);
        if model
            .canonicalize()
            .is_ok_and(|model| path.starts_with(model))
        {
            return refused(format!("belongs to --model {}", model.display()));
        }
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(format!(".{}.unfinished", std::process::id()));
        Ok(Self {
            path,
            unfinished: unfinished.into(),
        })
    }

    /// Writes the model with new values for the trained experts, all or nothing.
    pub(super) fn write(
        &self,
        checkpoint: &Checkpoint,
        model: &Model,
        trained: &ExpertMap,
    ) -> Result<(), Failure> {
        let values = |name: &str| {
            is_trained(name, trained).then_some(())?;
            Some(Box::new(model.tensor(name)?) as Box<dyn Rows>)
        };
        let written = checkpoint
            .write(&self.unfinished, &values)
            .map_err(anyhow::Error::from)
            .and_then(|()| Ok(fs::rename(&self.unfinished, &self.path)?));
        if written.is_err() {
            // Failing to remove what is of no use adds nothing to the first error.
            drop(fs::remove_dir_all(&self.unfinished));
        }
        written
            .with_context(|| format!("cannot write {}", self.path.display()))
            .environment()
    }
}

/// Refuses a checkpoint into which trained experts could not be written again.
pub(super) fn check_writable(
    checkpoint: &Checkpoint,
    model: &Model,
    trained: &ExpertMap,
) -> Result<(), Failure> {
    for name in model.names().filter(|name| is_trained(name, trained)) {
        if checkpoint.element(name).input()? == FileElement::F8E4M3 {
            return Err(Failure::Input(anyhow!(
                "tensor {name} is stored in 8 bits and cannot be written again"
            )));
        }
    }
    Ok(())
}

fn is_trained(name: &str, trained: &ExpertMap) -> bool {
    parse_expert_name(name).is_some_and(|(layer, expert)| {
        trained
            .get(&layer)
            .is_some_and(|listed| listed.contains(&expert))
    })
}

/// What was done, as `--json` prints it.
#[derive(Debug, Serialize)]
pub(super) struct TrainResult {
    pub(super) out: String,
    pub(super) trainer: &'static str,
    pub(super) routing: &'static str,
    /// Experts that were trained, over all layers.
    pub(super) experts: usize,
    pub(super) trained_parameters: usize,
    pub(super) steps: u32,
    /// Tokens of all steps.
    pub(super) tokens: u64,
    pub(super) tokens_per_second: f64,
    pub(super) domains: Vec<DomainResult>,
}

/// One domain's held-out losses in nats per token, under the model's own routing.
#[derive(Debug, Serialize)]
pub(super) struct DomainResult {
    pub(super) name: String,
    /// Tokens that are predicted.
    pub(super) tokens: usize,
    pub(super) before: f64,
    pub(super) after: f64,
}

impl TrainResult {
    /// A table of the domains, and a line on the run.
    pub(super) fn text(&self) -> String {
        let names = self.domains.iter().map(|domain| domain.name.len());
        let width = names.max().unwrap_or(0).max("domain".len());
        let mut lines = vec![format!("{:width$}   before    after", "domain")];
        lines.extend(self.domains.iter().map(|domain| {
            let DomainResult {
                name,
                before,
                after,
                ..
            } = domain;
            format!("{name:width$}  {before:7.4}  {after:7.4}")
        }));
        lines.push(format!(
            "{} steps, {} tokens, {:.0} tokens/s; {} experts, {} parameters trained",
            self.steps, self.tokens, self.tokens_per_second, self.experts, self.trained_parameters
        ));
        lines.push(self.out.clone());
        lines.join("\n")
    }
}
