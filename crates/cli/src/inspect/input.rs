//! What `inspect` is given: token ids, and which experts are trained, kept and visited.
//!
//! Both files are JSON. Everything about them that can be checked without running the model is checked
//! here, so that a message names the file; ids are held against the vocabulary by the engine, which has
//! to do it anyway.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use anyhow::{Context, anyhow};
use connito_engine::model::Residency;
use connito_engine::routing::{ExpertMap, RoutingError};
use connito_engine::{ModelConfig, Routing};
use serde::de::{DeserializeOwned, Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::args::inspect::RoutingMode;
use crate::exit::{Blame, Failure};

/// Token sequences of one length, at least one.
pub(super) fn sequences(path: &Path) -> Result<Vec<Vec<u32>>, Failure> {
    let sequences: Vec<Vec<u32>> = json(path)?;
    let refused = |what: String| Failure::Input(anyhow!("{}: {what}", path.display()));
    let Some(first) = sequences.first() else {
        return Err(refused("there are no sequences".to_owned()));
    };
    let other = |(_, sequence): &(usize, &Vec<u32>)| sequence.len() != first.len();
    match sequences.iter().enumerate().find(other) {
        Some((index, sequence)) => Err(refused(format!(
            "sequence {index} has {} tokens, the first has {}",
            sequence.len(),
            first.len()
        ))),
        None => Ok(sequences),
    }
}

/// Experts by layer, and the file that lists them.
#[derive(Debug)]
pub(super) struct Experts {
    pub(super) map: ExpertMap,
    file: String,
}

impl Experts {
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let Listed(map) = json(path)?;
        Ok(Self {
            map,
            file: path.display().to_string(),
        })
    }

    /// Every listed layer has experts, and every listed expert is one of them.
    fn check(&self, config: &ModelConfig) -> Result<(), Failure> {
        for (&layer, listed) in &self.map {
            let absent = listed.iter().find(|&&id| id >= config.mixture.experts);
            let error = match absent {
                _ if !config.is_moe_layer(layer) => RoutingError::NoSuchMoeLayer { layer },
                Some(&expert) => RoutingError::NoSuchExpert { layer, expert },
                None => continue,
            };
            return Err(error).with_context(|| self.file.clone()).input();
        }
        Ok(())
    }
}

/// Experts by layer as a file lists them. Nothing is listed twice: of two lists for one layer, a map that
/// is read in the ordinary way would keep the last without a word.
struct Listed(ExpertMap);

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ListedVisitor).map(Self)
    }
}

struct ListedVisitor;

impl<'de> Visitor<'de> for ListedVisitor {
    type Value = ExpertMap;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map from layers to experts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut lists: A) -> Result<ExpertMap, A::Error> {
        let mut map = ExpertMap::new();
        while let Some((layer, experts)) = lists.next_entry::<usize, Vec<usize>>()? {
            let mut seen = BTreeSet::new();
            if let Some(expert) = experts.iter().find(|&&expert| !seen.insert(expert)) {
                let twice = format!("expert {expert} of layer {layer} is listed twice");
                return Err(A::Error::custom(twice));
            }
            if map.insert(layer, experts).is_some() {
                return Err(A::Error::custom(format!("layer {layer} is listed twice")));
            }
        }
        Ok(map)
    }
}

/// Which experts tokens visit, and which of them that leaves to be read.
#[derive(Debug)]
pub(super) struct Selection {
    pub(super) routing: Routing,
    pub(super) residency: Residency,
    /// What lists the experts, for messages.
    pub(super) file: String,
}

impl Selection {
    /// Trained and kept experts as a routing of this model.
    pub(super) fn new(
        mode: RoutingMode,
        trained: Option<Experts>,
        kept: Option<Experts>,
        config: &ModelConfig,
    ) -> Result<Self, Failure> {
        let takes_kept = matches!(mode, RoutingMode::FrozenKept | RoutingMode::Fallback);
        let name = mode.name();
        if takes_kept && kept.is_none() {
            return Err(Failure::Input(anyhow!(
                "--routing {name} needs --kept FILE"
            )));
        }
        if !takes_kept && let Some(kept) = &kept {
            return Err(Failure::Input(anyhow!(
                "--kept {}: --routing {name} keeps no experts",
                kept.file
            )));
        }
        if mode != RoutingMode::Classic && trained.is_none() {
            return Err(Failure::Input(anyhow!(
                "--routing {name} needs --experts FILE"
            )));
        }
        let listed = [trained.as_ref(), kept.as_ref()];
        for experts in listed.into_iter().flatten() {
            experts.check(config)?;
        }
        let files = listed.into_iter().flatten();
        let files: Vec<&str> = files.map(|experts| experts.file.as_str()).collect();
        let file = files.join(" and ");
        let map = |experts: Option<Experts>| experts.map_or_else(ExpertMap::new, |given| given.map);
        let (trained, kept) = (map(trained), map(kept));
        let residency = match mode {
            RoutingMode::Classic => Residency::Whole,
            _ => Residency::Slice(union(&trained, &kept)),
        };
        let routing = match mode {
            RoutingMode::Classic => Routing::Classic,
            RoutingMode::Masked => Routing::Masked { experts: trained },
            RoutingMode::FrozenKept => Routing::FrozenKept { trained, kept },
            RoutingMode::Fallback => Routing::Fallback { trained, kept },
        };
        Ok(Self {
            routing,
            residency,
            file,
        })
    }
}

fn union(trained: &ExpertMap, kept: &ExpertMap) -> ExpertMap {
    let mut union: ExpertMap = BTreeMap::new();
    for (&layer, experts) in trained.iter().chain(kept) {
        union.entry(layer).or_default().extend(experts);
    }
    union
}

/// The content of a JSON file.
fn json<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read {}", path.display()))
        .input()?;
    serde_json::from_str(&text)
        .with_context(|| path.display().to_string())
        .input()
}
