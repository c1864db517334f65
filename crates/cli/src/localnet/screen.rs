//! What a person sees while the network runs: one line that moves, and one line for each thing that
//! happened. With `--json` the same facts as JSON lines. Always on standard error.

use std::io::IsTerminal;
use std::time::Duration;

use connito_engine::pretrain::PretrainProgress;
use connito_protocol::ids::{Block, Cycle};
use connito_protocol::schedule::{Schedule, Window};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::launch::Notice;
use super::plan::Plan;
use super::story::{MinerState, News, Story};
use crate::base::Progress;

/// Steps of pretraining between two lines where no terminal shows a bar.
const QUIET_STEPS: usize = 50;

/// How often the moving line turns while nothing happens.
const TICK: Duration = Duration::from_millis(120);

/// The screen of one command.
#[derive(Debug)]
pub(crate) struct Screen {
    bar: ProgressBar,
    json: bool,
    interactive: bool,
    /// The window that was last told; with `--json` each one is told once.
    told: Option<(Cycle, Window)>,
}

impl Screen {
    /// A screen on standard error.
    pub(crate) fn new(json: bool) -> Self {
        let interactive = !json && std::io::stderr().is_terminal();
        let target = if interactive {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(style("{spinner} {msg}"));
        Self {
            bar,
            json,
            interactive,
            told: None,
        }
    }

    /// A line that stays; with `--json`, the same as an object.
    pub(crate) fn say(&self, text: &str, object: serde_json::Value) {
        if self.json {
            eprintln!("{object}");
        } else if self.interactive {
            self.bar.println(text);
        } else {
            eprintln!("{text}");
        }
    }

    /// The moving line ends.
    pub(crate) fn close(&self) {
        self.bar.finish_and_clear();
    }

    /// The moving line: where the cycle is, and what the miners are doing.
    pub(crate) fn show(&mut self, story: &Story) {
        let Some(moment) = story.schedule.and_then(|schedule| schedule.at(story.block)) else {
            self.bar
                .set_message(format!("block {} · starting", story.block));
            return;
        };
        if self.json && self.told != Some((moment.cycle, moment.window)) {
            self.told = Some((moment.cycle, moment.window));
            let (phase, window) = (moment.window.phase().name(), moment.window);
            let object = json!({
                "event": "window", "cycle": moment.cycle, "phase": phase, "window": window,
                "block": story.block,
            });
            eprintln!("{object}");
        }
        let miners: Vec<String> = story
            .miners
            .iter()
            .map(|(name, state)| brief(name, state))
            .collect();
        self.bar.set_message(format!(
            "cycle {} · {} · block {} · {}",
            moment.cycle,
            moment.window.phase().name(),
            story.block,
            miners.join("  ")
        ));
    }

    /// Begins the moving line.
    pub(crate) fn run(&self) {
        self.bar.set_style(style("{spinner} {msg}"));
        self.bar.enable_steady_tick(TICK);
    }

    pub(crate) fn notice(&self, notice: &Notice) {
        match notice {
            Notice::Started {
                name,
                process: Some(process),
            } => self.say(
                &format!("  {name} runs as process {process}"),
                json!({"started": name, "process": process}),
            ),
            Notice::Started { .. } => {}
            Notice::Died { name, how } => self.say(
                &format!("  {name} died ({how}) and is started again"),
                json!({"died": name, "how": how}),
            ),
        }
    }

    pub(crate) fn news(&self, news: &News, story: &Story, plan: &Plan) {
        match news {
            News::Began(cycle) => self.say(
                &format!("cycle {cycle} begins at block {}", story.block),
                json!({"cycle": cycle, "event": "began", "block": story.block}),
            ),
            News::Judged(cycle) => self.judged(*cycle, story, plan),
            News::Concluded(cycle) => self.concluded(*cycle, story),
            News::Misconduct(cycle) => self.misconduct(*cycle, story, plan),
            News::Trouble { name, what } => {
                self.say(
                    &format!("  {name}: {what}"),
                    json!({"trouble": name, "what": what}),
                );
            }
        }
    }

    fn misconduct(&self, cycle: Cycle, story: &Story, plan: &Plan) {
        let told = story.cycles.get(&cycle);
        for (hotkey, what) in told
            .and_then(|told| told.conduct.as_ref())
            .into_iter()
            .flatten()
        {
            let (name, what) = (plan.name_of(*hotkey), what.text());
            self.say(
                &format!("  {name}: {what} in cycle {cycle}"),
                json!({"cycle": cycle, "conduct": name, "what": what}),
            );
        }
    }

    fn judged(&self, cycle: Cycle, story: &Story, plan: &Plan) {
        let Some(verdicts) = story
            .cycles
            .get(&cycle)
            .and_then(|cycle| cycle.verdicts.as_ref())
        else {
            return;
        };
        for verdict in verdicts {
            let name = plan.name_of(verdict.hotkey);
            let measured = verdict.measurement.map_or_else(String::new, |m| {
                format!("  loss saved {:+.4} ± {:.4}", m.utility, m.standard_error)
            });
            self.say(
                &format!(
                    "  {name:<9} group {} {:<16}{measured}",
                    verdict.group,
                    verdict.code.text()
                ),
                json!({"cycle": cycle, "event": "verdict", "miner": name, "verdict": verdict}),
            );
        }
    }

    fn concluded(&self, cycle: Cycle, story: &Story) {
        let Some(told) = story.cycles.get(&cycle) else {
            return;
        };
        let gate = told
            .gates
            .values()
            .next()
            .map_or_else(String::new, |(before, after, _)| {
                let after =
                    after.map_or_else(|| "not finite".to_owned(), |loss| format!("{loss:.4}"));
                format!(": gate loss {before:.4} → {after}")
            });
        let outcome = match told.passed {
            Some(true) => "the new state is canonical",
            Some(false) => "the gate kept the incumbent",
            None => "no majority, the incumbent stays",
        };
        self.say(
            &format!("cycle {cycle} ends at block {}{gate}, {outcome}", story.block),
            json!({"cycle": cycle, "event": "concluded", "block": story.block, "passed_gate": told.passed}),
        );
    }
}

impl Progress for Screen {
    fn stage(&mut self, what: &str) {
        self.say(what, json!({"stage": what}));
    }

    fn step(&mut self, progress: PretrainProgress) {
        if progress.step == 1 {
            self.bar
                .set_style(style("{bar:40} {pos}/{len} steps  {msg}"));
            self.bar.set_length(progress.steps as u64);
        }
        self.bar.set_position(progress.step as u64);
        self.bar.set_message(format!("loss {:.3}", progress.loss));
        let due = progress.step.is_multiple_of(QUIET_STEPS) || progress.step == progress.steps;
        if !self.interactive && due {
            let (step, steps, loss) = (progress.step, progress.steps, progress.loss);
            self.say(
                &format!("  step {step} of {steps}, loss {loss:.3}"),
                json!({"step": step, "steps": steps, "loss": loss}),
            );
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn brief(name: &str, state: &MinerState) -> String {
    let number = name.trim_start_matches("miner-");
    match state {
        MinerState::Waiting => format!("m{number} waits"),
        MinerState::Training => format!("m{number} trains"),
        MinerState::Trained { first, last } => format!("m{number} {first:.2}→{last:.2}"),
        MinerState::Sealed => format!("m{number} sealed"),
        MinerState::Revealed => format!("m{number} revealed"),
        MinerState::Delivered(count) => format!("m{number} delivered×{count}"),
    }
}

/// The last block that a run can need: everybody has adopted the last state, or is late.
pub(crate) fn deadline(schedule: &Schedule, cycles: u64) -> Block {
    schedule.closes(Cycle(cycles), Window::Distribute)
}
