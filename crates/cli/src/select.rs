//! `connito select`: the experts that matter for a domain, from a model and text or from recorded scores.
//!
//! What was typed is checked first, then the group, then the text; weights are read last, and files are
//! written after everything else went well. The rule itself is `connito_learning::selection`; `group.rs`
//! finds the experts to choose from, `report.rs` says what came of it.

mod group;
mod report;

use std::path::Path;

use anyhow::{Context, anyhow};
use connito_engine::ModelConfig;
use connito_learning::selection::{
    Amount, ExpertConfig, Score, ScoreSummary, select, select_within,
};

use crate::args::select::{ScoreKind, SelectArguments};
use crate::exit::{Blame, Failure};
use crate::output::print;
use crate::result_file::ResultFile;
use crate::routing_sample::{Limits, Source};
use group::Group;
use report::Report;

/// Runs the command.
pub(crate) fn run(arguments: &SelectArguments) -> Result<(), Failure> {
    let rule = Rule::new(arguments)?;
    let files = Files::new(arguments)?;
    let scored = match (&arguments.from_scores, &arguments.model) {
        (Some(path), _) => Scored::recorded(path, arguments, rule)?,
        (None, Some(model)) => Scored::measured(model, arguments, rule)?,
        (None, None) => {
            return Err(Failure::Input(anyhow!(
                "--model or --from-scores is needed"
            )));
        }
    };
    let scores = scored.summary.scores(rule.score);
    let selected = match &scored.group {
        None => select(scores, rule.amount),
        Some(group) => select_within(scores, rule.amount, &group.experts),
    };
    let selected = selected.with_context(|| scored.blamed(arguments)).input()?;
    let report = Report::new(arguments, rule, &scored, &selected).input()?;
    files.write(&selected, &scored.summary)?;
    if arguments.json {
        print(&serde_json::to_string(&report).environment()?)
    } else {
        print(&report.text())
    }
}

impl From<ScoreKind> for Score {
    fn from(kind: ScoreKind) -> Self {
        match kind {
            ScoreKind::Gate => Self::Gate,
            ScoreKind::Token => Self::Token,
        }
    }
}

/// By what, and how much.
#[derive(Debug, Clone, Copy)]
struct Rule {
    score: Score,
    amount: Amount,
}

impl Rule {
    fn new(arguments: &SelectArguments) -> Result<Self, Failure> {
        let score = Score::from(arguments.score);
        let amount = match (arguments.top_p, arguments.top_k) {
            (Some(p), _) => Amount::top_p(p).context("--top-p").input()?,
            (None, Some(k)) => Amount::top_k(k).context("--top-k").input()?,
            (None, None) => Amount::TopP(score.usual_threshold()),
        };
        Ok(Self { score, amount })
    }
}

/// What the command leaves behind.
struct Files {
    config: ResultFile,
    scores: Option<ResultFile>,
}

impl Files {
    fn new(arguments: &SelectArguments) -> Result<Self, Failure> {
        let mut inputs: Vec<(&str, &Path)> = Vec::new();
        inputs.extend(arguments.data.iter().map(|path| ("--data", path.as_path())));
        inputs.extend(arguments.grouping.files());
        for (option, path) in [
            ("--model", &arguments.model),
            ("--from-scores", &arguments.from_scores),
        ] {
            inputs.extend(path.as_ref().map(|path| (option, path.as_path())));
        }
        let config = ResultFile::new("--out", &arguments.out, &inputs)?;
        let scores = arguments.scores_out.as_ref();
        let scores = scores.map(|path| ResultFile::new("--scores-out", path, &inputs));
        let scores = scores.transpose()?;
        if scores.as_ref().is_some_and(|scores| scores.is(&config)) {
            return Err(Failure::Input(anyhow!(
                "--out and --scores-out are both {}",
                config.path().display()
            )));
        }
        Ok(Self { config, scores })
    }

    /// Both or none, as far as a file system can promise.
    fn write(&self, selected: &ExpertConfig, summary: &ScoreSummary) -> Result<(), Failure> {
        let config = self.config.prepare_text(&selected.to_json())?;
        if let Some(scores) = &self.scores {
            scores.prepare_text(&summary.to_json())?.put()?;
        }
        config.put()
    }
}

/// Scores, and what is known of where they come from.
struct Scored {
    summary: ScoreSummary,
    group: Option<Group>,
    config: Option<ModelConfig>,
    /// Tokens that were run; unknown for recorded scores.
    tokens: Option<u64>,
}

impl Scored {
    /// Runs the domain's text through the model.
    fn measured(model: &Path, arguments: &SelectArguments, rule: Rule) -> Result<Self, Failure> {
        if arguments.data.is_empty() {
            return Err(Failure::Input(anyhow!("--model needs --data FILE")));
        }
        let source = Source::open(model)?;
        let config = source.config().clone();
        let group = Group::of_model(arguments, (model, &config))?;
        let all = || {
            let every = |layer| (layer, (0..config.mixture.experts).collect());
            config.moe_layers().map(every).collect()
        };
        let choice = group
            .as_ref()
            .map_or_else(all, |group| group.experts.clone());
        rule.amount
            .check(&choice)
            .with_context(|| model.display().to_string())
            .input()?;
        let text = source.draw(&arguments.data, Limits::from(&arguments.sample))?;
        let statistics = source.load(arguments.sample.threads)?.count(&text)?;
        let summary = ScoreSummary::of(&statistics)
            .with_context(|| model.display().to_string())
            .input()?;
        Ok(Self {
            summary,
            group,
            config: Some(config),
            tokens: Some(statistics.tokens()),
        })
    }

    /// Reads scores that were written before.
    fn recorded(path: &Path, arguments: &SelectArguments, rule: Rule) -> Result<Self, Failure> {
        let json = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))
            .input()?;
        let summary = ScoreSummary::from_json(&json)
            .with_context(|| path.display().to_string())
            .input()?;
        let scores = summary.scores(rule.score);
        let config = arguments.model.as_deref().map(read_config).transpose()?;
        if let Some(config) = &config {
            scores
                .check(config)
                .with_context(|| path.display().to_string())
                .input()?;
        }
        let group = match (&arguments.model, &config) {
            (Some(model), Some(config)) => Group::of_model(arguments, (model, config))?,
            _ => Group::of_scores(arguments, scores)?,
        };
        Ok(Self {
            summary,
            group,
            config,
            tokens: None,
        })
    }

    /// What to name when the rule cannot be applied.
    fn blamed(&self, arguments: &SelectArguments) -> String {
        let place = arguments.from_scores.as_ref().or(arguments.model.as_ref());
        let place = place
            .map(|path| path.display().to_string())
            .unwrap_or_default();
        match &self.group {
            None => place,
            Some(group) => format!("{place}, group {}", group.number),
        }
    }
}

/// The architecture of a folder that need not hold weights.
fn read_config(folder: &Path) -> Result<ModelConfig, Failure> {
    let path = match folder.is_dir() {
        true => folder.join("config.json"),
        false => folder.to_owned(),
    };
    let json = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))
        .input()?;
    ModelConfig::from_json(&json)
        .with_context(|| path.display().to_string())
        .input()
}
