//! `connito affinity`: which expert groups a domain's text falls on, before a miner registers.
//!
//! Every file of text is a domain of its own: it is drawn from, run through the model and scored alone.
//! `ranking.rs` has the numbers and the tables, `heat_map.rs` the picture. That the best group need not be
//! the one a miner is assigned to is the network's affair, not this command's.

mod heat_map;
mod ranking;

use std::path::Path;

use anyhow::{Context, anyhow};
use connito_engine::data::reader::domain_names;
use connito_engine::routing::ExpertMap;
use connito_learning::selection::{Score, ScoreSummary};
use connito_learning::task::experts_of;
use connito_protocol::assignment::assigned_group;

use crate::args::select::AffinityArguments;
use crate::exit::{Blame, Failure};
use crate::output::print;
use crate::result_file::ResultFile;
use crate::routing_sample::{Limits, Source, Text};
use crate::{grouping, hotkeys};
use heat_map::{Caption, HeatMap};
use ranking::{Candidates, Domain, Report};

/// Runs the command.
pub(crate) fn run(arguments: &AffinityArguments) -> Result<(), Failure> {
    let picture = picture(arguments)?;
    let model = arguments.model.as_path();
    let source = Source::open(model)?;
    let groups = groups(arguments, source.config().mixture.experts)?;
    let miners = miners(arguments, groups.len())?;
    let limits = Limits::from(&arguments.sample);
    // All text is looked at before weights are read.
    let texts = arguments.data.iter();
    let texts = texts.map(|file| source.draw(std::slice::from_ref(file), limits));
    let texts: Vec<Text> = texts.collect::<Result<_, Failure>>()?;
    let router = source.load(arguments.sample.threads)?;
    let names = domain_names(&arguments.data);
    let files = arguments.data.iter().zip(names);
    let domains = files.zip(&texts).map(|((file, name), text)| {
        let statistics = router.count(text)?;
        let summary = ScoreSummary::of(&statistics)
            .with_context(|| model.display().to_string())
            .input()?;
        Ok(Domain {
            name,
            file: file.display().to_string(),
            tokens: statistics.tokens(),
            scores: summary.scores(Score::from(arguments.score)).clone(),
        })
    });
    let domains: Vec<Domain> = domains.collect::<Result<_, Failure>>()?;
    let candidates = Candidates {
        groups: &groups,
        miners: miners.as_deref(),
    };
    let report = Report::new(arguments, &domains, &candidates).input()?;
    if let Some(picture) = &picture {
        let caption = Caption {
            model: folder_name(model),
            score: arguments.score.name(),
        };
        let drawn = HeatMap::new(&groups, &domains).svg(&caption);
        picture.prepare_text(&drawn)?.put()?;
    }
    if arguments.json {
        print(&serde_json::to_string(&report).environment()?)
    } else {
        print(&report.text())
    }
}

fn picture(arguments: &AffinityArguments) -> Result<Option<ResultFile>, Failure> {
    let Some(path) = &arguments.heat_map else {
        return Ok(None);
    };
    let data = arguments.data.iter();
    let mut inputs: Vec<(&str, &Path)> = data.map(|file| ("--data", file.as_path())).collect();
    inputs.push(("--model", &arguments.model));
    inputs.extend(arguments.grouping.files());
    inputs.extend(arguments.hotkeys.as_deref().map(|path| ("--hotkeys", path)));
    ResultFile::new("--heat-map", path, &inputs).map(Some)
}

/// The experts of every group.
fn groups(arguments: &AffinityArguments, experts: usize) -> Result<Vec<ExpertMap>, Failure> {
    let grouping = arguments.grouping.or_usual(experts);
    let mappings = grouping::groups(&arguments.model, &grouping, &arguments.data)?;
    if mappings.is_empty() {
        return Err(Failure::Input(anyhow!("there are no groups to rank")));
    }
    Ok(mappings.iter().map(experts_of).collect())
}

/// How many of the listed hotkeys are assigned to each group, if any are listed.
fn miners(arguments: &AffinityArguments, groups: usize) -> Result<Option<Vec<usize>>, Failure> {
    let Some(file) = &arguments.hotkeys else {
        return Ok(None);
    };
    let listed = hotkeys::read(file)?;
    let tickets = hotkeys::tickets(arguments.tickets.as_deref(), groups, &listed)?;
    let mut miners = vec![0; groups];
    let assigned = listed
        .iter()
        .map(|listed| assigned_group(listed.hotkey, &tickets));
    assigned
        .flatten()
        .for_each(|group| miners[usize::from(group.0)] += 1);
    Ok(Some(miners))
}

/// What people call a model: its folder's own name, also where the path ends in dots.
fn folder_name(folder: &Path) -> String {
    let whole = folder.canonicalize();
    let whole = whole.as_deref().unwrap_or(folder);
    let name = whole.file_name().unwrap_or(whole.as_os_str());
    name.to_string_lossy().into_owned()
}
