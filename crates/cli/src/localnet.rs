//! `connito localnet`: a whole network on this machine, and whether it kept its promises.
//!
//! ```text
//! text ─▶ base model ─▶ plan (keys, ports, configurations) ─▶ roles run ─▶ journals
//!                                                                │
//!           summary, table, model, exit code ◀─ verdict ◀─ harvest ┘
//! ```
//!
//! The roles are the ones that run alone; this file only sets the stage, watches the journals and
//! judges what is left behind.

mod harvest;
mod launch;
mod plan;
mod screen;
mod story;
mod summary;
mod verdict;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use connito_engine::data::{Pieces, Pool, TokenDocuments};
use connito_engine::{ModelConfig, Routing};
use connito_node::journal::JournalTail;
use connito_protocol::ids::{Cycle, StateId};
use connito_protocol::machine::Step;
use connito_protocol::rules::Rules;
use connito_protocol::schedule::Schedule;

use self::harvest::{Heldout, HeldoutLoss, Judge};
use self::launch::Running;
use self::plan::{Given, Plan};
use self::screen::Screen;
use self::story::Story;
use self::summary::{Figures, Summary};
use crate::args::LocalnetArguments;
use crate::base::Base;
use crate::corpus::Corpus;
use crate::exit::{Blame, Failure};
use crate::output::print;

/// How often the journals are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Documents of each domain on which the reported losses are measured.
const HELDOUT_DOCUMENTS: usize = 100;

/// Time between blocks unless the user or this machine wants another.
const DEFAULT_BLOCK_TIME: Duration = Duration::from_millis(250);

/// Marks a folder as the result of a run, so that it may be replaced by the next.
const MARKER: &str = ".connito-run";

/// Runs the command.
pub(crate) async fn run(arguments: LocalnetArguments) -> Result<(), Failure> {
    let mut screen = Screen::new(arguments.json);
    let result = rehearse(&arguments, &mut screen).await;
    screen.close();
    let summary = result?;
    if arguments.json {
        let json = serde_json::to_string_pretty(&summary).environment()?;
        print(&json)?;
    } else {
        print(&summary.table())?;
    }
    match summary.broken_invariants.as_slice() {
        [] => Ok(()),
        [first] => Err(Failure::Check(anyhow!(
            "an invariant does not hold: {first}"
        ))),
        [first, rest @ ..] => Err(Failure::Check(anyhow!(
            "{} invariants do not hold, the first: {first}",
            rest.len() + 1
        ))),
    }
}

async fn rehearse(arguments: &LocalnetArguments, screen: &mut Screen) -> Result<Summary, Failure> {
    // Everything that can be found wrong is found before an earlier run's folder is touched.
    check_folder(&arguments.out)?;
    let ports = plan::ports(arguments.port, 2 + arguments.validators)?;
    let groups = groups(arguments)?;
    plan::rules(DEFAULT_BLOCK_TIME, &arguments.training)?;
    let data = absolute(&arguments.text.data)?;
    let sources = data.iter().chain(&arguments.model);
    for source in sources {
        outside(source, &arguments.out)?;
    }
    let corpus = Corpus::load(&data, arguments.seed).input()?;
    let (base, model) = match &arguments.model {
        Some(folder) => (
            Base::load(folder)?,
            absolute(std::slice::from_ref(folder))?.remove(0),
        ),
        None => tokio::task::block_in_place(|| Base::for_corpus(&corpus, arguments.seed, screen))?,
    };
    enough_experts(arguments, groups, base.model.config())?;
    let block_time = match arguments.block_time {
        Some(time) => time.0,
        None => tokio::task::block_in_place(|| pace(arguments, (&base, groups), &corpus))?,
    };
    let length = plan::rules(block_time, &arguments.training)?
        .scoring
        .sequence_length as usize;
    let heldout = corpus
        .heldout(&base.tokenizer, (length, HELDOUT_DOCUMENTS))
        .input()?;
    let out = fresh_folder(&arguments.out)?;
    harvest::write_heldout(&out.join("heldout.jsonl"), &heldout)?;
    let given = Given {
        out: &out,
        model: &model,
        block_time,
        groups,
        data,
        ports,
    };
    let plan = Plan::make(arguments, &given)?;
    introduce(screen, &plan, block_time);
    let mut running = if arguments.processes {
        Running::in_processes(&plan)?
    } else {
        Running::in_process(&plan).await
    };
    screen.run();
    let watched = watch(&plan, arguments.cycles, &mut running, screen).await;
    running.stop().await;
    let story = watched?;
    tokio::task::block_in_place(|| conclude(&plan, (arguments.cycles, &story), &heldout, screen))
}

fn introduce(screen: &Screen, plan: &Plan, block_time: Duration) {
    let milliseconds = block_time.as_millis();
    let text = format!(
        "{} roles over {} groups, a block every {milliseconds} ms, results in {}",
        plan.actors.len() + 1,
        plan.groups,
        plan.out.display()
    );
    let object = serde_json::json!({
        "event": "starting", "roles": plan.actors.len() + 1, "groups": plan.groups,
        "block_time_ms": milliseconds, "out": plan.out, "chain": plan.chain.listen,
    });
    screen.say(&text, object);
}

/// Follows the journals until every role has finished the last cycle, or is late.
async fn watch(
    plan: &Plan,
    cycles: u64,
    running: &mut Running,
    screen: &mut Screen,
) -> Result<Story, Failure> {
    let mut story = Story::default();
    let mut tails: Vec<(String, JournalTail)> = plan
        .actors
        .iter()
        .map(|actor| (actor.name.clone(), JournalTail::new(&actor.config.journal)))
        .collect();
    let mut look = tokio::time::interval(LOOK);
    // One listener for the whole loop: an interrupt between two turns must not be lost.
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    loop {
        tokio::select! {
            _ = &mut interrupt => return Err(Failure::Interrupted),
            notice = running.next() => screen.notice(&notice?),
            _ = look.tick() => {
                hear(&mut tails, &mut story, plan, screen)?;
                screen.show(&story);
                if story.schedule.is_some_and(|schedule| is_over(plan, &story, &schedule, cycles)) {
                    return Ok(story);
                }
            }
        }
    }
}

fn hear(
    tails: &mut [(String, JournalTail)],
    story: &mut Story,
    plan: &Plan,
    screen: &Screen,
) -> Result<(), Failure> {
    for (name, tail) in tails {
        for step in tail.poll::<Step>().environment()? {
            for news in story.hear(name, &step) {
                screen.news(&news, story, plan);
            }
        }
    }
    Ok(())
}

fn is_over(plan: &Plan, story: &Story, schedule: &Schedule, cycles: u64) -> bool {
    let all_ready = story.cycles.get(&Cycle(cycles)).is_some_and(|next| {
        plan.validators()
            .all(|actor| next.ready.contains_key(&actor.name))
    });
    let last = cycles.checked_sub(1).map(Cycle);
    let all_concluded = last
        .and_then(|last| story.cycles.get(&last))
        .is_some_and(|last| {
            plan.actors
                .iter()
                .all(|actor| last.concluded.contains_key(&actor.name))
        });
    (all_ready && all_concluded) || story.block > screen::deadline(schedule, cycles)
}

/// Gathers what the roles left, measures it, judges it and writes it down.
fn conclude(
    plan: &Plan,
    (cycles, story): (u64, &Story),
    heldout: &Heldout,
    screen: &mut Screen,
) -> Result<Summary, Failure> {
    use crate::base::Progress as _;
    screen.stage("measuring held-out losses and checking invariants");
    let store = harvest::gather(plan)?;
    let id = story
        .task
        .ok_or_else(|| Failure::Check(anyhow!("no role ever loaded the task")))?;
    let task = harvest::task(plan, id, &store)?;
    let first = task
        .first_state
        .ok_or_else(|| Failure::Check(anyhow!("the task has no first state")))?;
    let states = states(first, story, cycles);
    let mut judge = Judge::new(&store, id);
    let mut losses: Vec<HeldoutLoss> = Vec::new();
    for (position, state) in states.iter().enumerate() {
        let unchanged = position
            .checked_sub(1)
            .filter(|before| states[*before] == *state);
        losses.push(match unchanged {
            Some(before) => losses[before].clone(),
            None => judge.measure(*state, heldout)?,
        });
    }
    let (Some(first), Some(last), Some(state)) = (losses.first(), losses.last(), states.last())
    else {
        return Err(Failure::Check(anyhow!("the run has no state")));
    };
    let evidence = verdict::Evidence {
        plan,
        story,
        task_id: id,
        task: &task,
        cycles,
        store: &store,
        states: &states,
        ends: (first, last),
    };
    let broken = verdict::broken(&evidence, &mut judge)?;
    harvest::write_model(&plan.out.join("model"), (&task, *state), &store)?;
    let summary = Summary::new(Figures {
        plan,
        story,
        cycles,
        states: &states,
        losses: &losses,
        broken,
    });
    let path = plan.out.join("summary.json");
    let json = serde_json::to_string_pretty(&summary).environment()?;
    std::fs::write(&path, json)
        .with_context(|| format!("cannot write {}", path.display()))
        .environment()?;
    Ok(summary)
}

/// The canonical state before each cycle, and after the last. A cycle that decided nothing leaves
/// the state as it was.
fn states(first: StateId, story: &Story, cycles: u64) -> Vec<StateId> {
    let mut states = vec![first];
    for cycle in (0..cycles).map(Cycle) {
        let told = story
            .cycles
            .get(&cycle)
            .and_then(|story| story.concluded.values().next());
        let before = states[states.len() - 1];
        states.push(told.copied().unwrap_or(before));
    }
    states
}

fn groups(arguments: &LocalnetArguments) -> Result<u16, Failure> {
    let files = arguments.text.data.len();
    let default = match files {
        0 => 2,
        _ => u16::try_from(files).unwrap_or(u16::MAX),
    };
    let groups = arguments.groups.unwrap_or(default);
    let domains = if files == 0 { BUILTIN_DOMAINS } else { files };
    if usize::from(groups) > domains {
        return Err(Failure::Input(anyhow!(
            "--groups {groups} leaves groups without text: there are {domains} domains"
        )));
    }
    Ok(groups)
}

fn enough_experts(
    arguments: &LocalnetArguments,
    groups: u16,
    config: &ModelConfig,
) -> Result<(), Failure> {
    let experts = config.mixture.experts;
    let smallest = experts / usize::from(groups);
    if smallest == 0 {
        return Err(Failure::Input(anyhow!(
            "{groups} groups cannot share {experts} experts"
        )));
    }
    if let Some(kept) = arguments.training.kept
        && kept as usize >= experts
    {
        return Err(Failure::Input(anyhow!(
            "--kept {kept}: a layer has {experts} experts, of which one at least is trained"
        )));
    }
    match arguments.training.top_k {
        Some(wanted) if wanted as usize > smallest => Err(Failure::Input(anyhow!(
            "--top-k {wanted} is more than the {smallest} experts that a group has in each layer"
        ))),
        _ => Ok(()),
    }
}

const BUILTIN_DOMAINS: usize = connito_engine::data::builtin::BuiltinDomain::ALL.len();

/// A block time at which this machine can score everything in the score window, with a margin of
/// three for whatever else it is doing.
fn pace(
    arguments: &LocalnetArguments,
    (base, groups): (&Base, u16),
    corpus: &Corpus,
) -> Result<Duration, Failure> {
    const MARGIN: f64 = 3.0;
    // The main network's pace: whoever needs more than that needs fewer roles.
    const SLOWEST_SECONDS: f64 = 12.0;
    let rules = Rules::for_fast_blocks();
    let length = rules.scoring.sequence_length as usize;
    let domain = &corpus.domains[0];
    let texts = domain.documents(Pool::Scoring);
    let sample = TokenDocuments::tokenize(
        &base.tokenizer,
        &texts[..texts.len().min(8)],
        length,
        Pieces::First,
    )
    .input()?;
    let sequences: Vec<&[u32]> = sample.iter().collect();
    let begun = Instant::now();
    base.model
        .sequence_losses(&sequences, &Routing::Classic)
        .input()?;
    let seconds_each = begun.elapsed().as_secs_f64() / sequences.len().max(1) as f64;

    let (validators, miners) = (f64::from(arguments.validators), f64::from(arguments.miners));
    let evaluations = validators * (miners + f64::from(groups));
    let cores = std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
    let work =
        evaluations * f64::from(rules.scoring.sequences) * seconds_each / cores.min(validators);
    let window = rules.windows.score.saturating_sub(2).max(1) as f64;
    let needed = Duration::from_secs_f64((MARGIN * work / window).min(SLOWEST_SECONDS));
    Ok(needed.max(DEFAULT_BLOCK_TIME))
}

/// Refuses a folder for results that holds anything but an earlier run.
fn check_folder(out: &Path) -> Result<(), Failure> {
    let shown = out.display();
    if out.exists() && !out.is_dir() {
        return Err(Failure::Input(anyhow!("{shown} is not a folder")));
    }
    if is_occupied(out) && !out.join(MARKER).is_file() {
        return Err(Failure::Input(anyhow!(
            "{shown} is not empty and not the result of an earlier run; choose another folder with --out"
        )));
    }
    Ok(())
}

/// Refuses to read from the folder that is about to be replaced.
fn outside(source: &Path, out: &Path) -> Result<(), Failure> {
    let (Ok(real_source), Ok(real_out)) = (source.canonicalize(), out.canonicalize()) else {
        // What does not exist is reported by whoever reads it.
        return Ok(());
    };
    if real_source.starts_with(&real_out) {
        return Err(Failure::Input(anyhow!(
            "{} lies in {}, which is replaced; choose another folder with --out",
            source.display(),
            out.display()
        )));
    }
    Ok(())
}

fn is_occupied(folder: &Path) -> bool {
    folder
        .read_dir()
        .is_ok_and(|mut entries| entries.next().is_some())
}

/// Makes the folder for results, in place of an earlier run's. The folder has been checked.
fn fresh_folder(out: &Path) -> Result<PathBuf, Failure> {
    let refused = |what| move || format!("{} cannot be {what}", out.display());
    if is_occupied(out) {
        std::fs::remove_dir_all(out)
            .with_context(refused("replaced"))
            .environment()?;
    }
    for part in ["journal", "keys", "config"] {
        std::fs::create_dir_all(out.join(part))
            .with_context(refused("made"))
            .environment()?;
    }
    std::fs::write(out.join(MARKER), "")
        .with_context(refused("written"))
        .environment()?;
    out.canonicalize()
        .with_context(refused("found"))
        .environment()
}

fn absolute(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    paths
        .iter()
        .map(|path| {
            path.canonicalize()
                .with_context(|| format!("cannot read {}", path.display()))
                .input()
        })
        .collect()
}
