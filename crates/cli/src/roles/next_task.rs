//! Another task for a running network: what an owner's `[next]` describes is made once, and announced
//! from then on (P-39).
//!
//! Inputs are the section, the tasks that the owner made before, and the newest block. What everyone
//! would refuse is refused here, before it is written down. Which task is in force is for votes to say,
//! and they are not read here: by default, the task that is followed is the last one made whose first
//! block has come.

use std::path::Path;

use anyhow::{Context, anyhow};
use connito_chain::{At, Chain};
use connito_engine::ModelConfig;
use connito_engine::tokenizer::Tokenizer;
use connito_learning::store::BlobStore;
use connito_learning::task::{Beginning, TaskPlan, publish_domains, publish_following, read_task};
use connito_node::blobs::DiskBlobs;
use connito_protocol::ids::{BlobId, Block, Cycle};
use connito_protocol::manifest::{Document, Domain, TaskManifest};
use connito_protocol::rules::Rules;
use connito_protocol::schedule::Window;
use serde::{Deserialize, Serialize};

use crate::base::{self, Base};
use crate::config::{NextTaskConfig, RoleConfig};
use crate::corpus::Corpus;
use crate::exit::{Blame, Failure};
use crate::text_file;

/// The tasks that followed the first one, in the owner's folder.
const FILE: &str = "following.json";

/// Blocks until an announcement that is sent now is on the chain, if it has to be sent again.
const BLOCKS_TO_ANNOUNCE: u64 = 2;

/// A task that was made of a `[next]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Made {
    task: BlobId,
    first_cycle: Cycle,
    starts: Block,
    /// Tells the section from any other, so that a restart makes nothing again.
    section: String,
}

/// The task that the owner announces instead of its first one; none if it never made another.
pub(super) async fn announced(
    config: &RoleConfig,
    first: BlobId,
    chain: &impl Chain,
) -> Result<Option<BlobId>, Failure> {
    let path = config.folder.join(FILE);
    let mut made = read(&path)?;
    let newest = made.last().map(|made| made.task);
    let Some(next) = &config.next else {
        return Ok(newest);
    };
    let head = chain.block(At::Head).await.environment()?.number;
    let section = name(next)?;
    let has_said = |made: &Made| made.section == section || made.has_begun(next, head);
    if made.last().is_some_and(has_said) {
        return Ok(newest);
    }
    // One that has not begun is taken back by the one that is announced in its place.
    made.retain(|made| made.starts <= head);
    let follows = made.last().map_or(first, |made| made.task);
    let follows = next.follows.unwrap_or(follows);
    let blobs = DiskBlobs::open(config.folder.join("blobs")).environment()?;
    let task = tokio::task::block_in_place(|| make(next, (follows, head), &blobs))?;
    made.push(task.clone());
    write(&path, &made)?;
    Ok(Some(task.task))
}

impl Made {
    /// Whether the section's first cycle is that of this task and has begun, so that it says nothing
    /// any more.
    fn has_begun(&self, next: &NextTaskConfig, head: Block) -> bool {
        self.first_cycle == Cycle(next.first_cycle) && self.starts <= head
    }
}

fn name(next: &NextTaskConfig) -> Result<String, Failure> {
    let json = serde_json::to_vec(next).environment()?;
    let mut hasher = blake3::Hasher::new_derive_key("connito/1 section of a configuration");
    hasher.update(&json);
    Ok(hasher.finalize().to_string())
}

fn read(path: &Path) -> Result<Vec<Made>, Failure> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    serde_json::from_str(&text_file::read(path)?)
        .with_context(|| format!("{} does not list tasks", path.display()))
        .input()
}

/// Written beside and renamed: a torn list would have the owner announce nothing.
fn write(path: &Path, made: &[Made]) -> Result<(), Failure> {
    let beside = path.with_extension("unfinished");
    let text = serde_json::to_string(made).environment()?;
    std::fs::write(&beside, text)
        .and_then(|()| std::fs::rename(&beside, path))
        .with_context(|| format!("cannot write {}", path.display()))
        .environment()
}

/// Writes the task's blobs. Its manifest is the last of them.
fn make(
    next: &NextTaskConfig,
    (follows, head): (BlobId, Block),
    store: &dyn BlobStore,
) -> Result<Made, Failure> {
    let before = read_task(follows, store)
        .with_context(|| format!("[next] follows {follows}"))
        .input()?;
    check_notice(next, &before, head)?;
    let rules = changed(&before.rules, &next.rules)?;
    let first_cycle = Cycle(next.first_cycle);
    let task = match &next.model {
        Some(folder) => with_model(next, (follows, &before), (folder, rules), store)?,
        None => {
            let manifest = TaskManifest {
                name: next.name.clone().unwrap_or_else(|| before.name.clone()),
                follows: Some(follows),
                starts: before.schedule().opens(first_cycle, Window::Distribute),
                first_cycle,
                domains: domains(next, (&before, &rules), store)?,
                tickets: next.tickets.clone().unwrap_or(before.tickets.clone()),
                rules,
                first_state: None,
                ..before.clone()
            };
            check(&manifest, (follows, &before))?;
            store.write(&manifest.to_bytes()).environment()?
        }
    };
    let manifest = read_task(task, store).environment()?;
    check(&manifest, (follows, &before))?;
    Ok(Made {
        task,
        first_cycle,
        starts: manifest.starts,
        section: name(next)?,
    })
}

fn check(manifest: &TaskManifest, before: (BlobId, &TaskManifest)) -> Result<(), Failure> {
    let sound = manifest
        .check()
        .and_then(|()| manifest.check_follows(before));
    sound.context("[next]").input()
}

/// The notice that the rules in force ask for, counted from when the announcement is on the chain.
fn check_notice(next: &NextTaskConfig, before: &TaskManifest, head: Block) -> Result<(), Failure> {
    let seen = Block(head.0.saturating_add(BLOCKS_TO_ANNOUNCE));
    let now = before.schedule().at(seen);
    let now = now.map_or(before.first_cycle, |moment| moment.cycle);
    let earliest = now.0.saturating_add(before.rules.notice_cycles);
    if next.first_cycle >= earliest {
        return Ok(());
    }
    Err(Failure::Input(anyhow!(
        "[next] first_cycle {} is too soon: announced in cycle {now}, a task may begin with cycle \
         {earliest}",
        next.first_cycle
    )))
}

/// The rules with what the section changes: whole rules, or single fields of a table of rules.
fn changed(rules: &Rules, changes: &toml::Table) -> Result<Rules, Failure> {
    let mut table = toml::Table::try_from(rules).environment()?;
    for (rule, change) in changes {
        match (table.get_mut(rule), change) {
            (Some(toml::Value::Table(fields)), toml::Value::Table(change)) => {
                fields.extend(change.clone());
            }
            _ => {
                table.insert(rule.clone(), change.clone());
            }
        }
    }
    table.try_into().map_err(|error: toml::de::Error| {
        let message = error.message().replace('\n', " ");
        Failure::Input(anyhow!("[next.rules]: {message}"))
    })
}

/// The present text, unless the section names other files.
fn domains(
    next: &NextTaskConfig,
    (before, rules): (&TaskManifest, &Rules),
    store: &dyn BlobStore,
) -> Result<Vec<Domain>, Failure> {
    if next.groups.is_some() {
        return Err(Failure::Input(anyhow!(
            "[next] groups needs the key `model`: another partition begins with a state of its own"
        )));
    }
    if next.data.is_empty() {
        return Ok(before.domains.clone());
    }
    let json = store.read(before.model.config).environment()?;
    let config = ModelConfig::from_json(&String::from_utf8_lossy(&json)).environment()?;
    let json = store.read(before.model.tokenizer).environment()?;
    let tokenizer = base::bounded(Tokenizer::from_bytes(&json).environment()?, &config);
    let corpus = Corpus::load(&next.data, 0).input()?;
    let groups = u16::try_from(before.groups.len()).unwrap_or(u16::MAX);
    let length = rules.scoring.sequence_length as usize;
    let texts = corpus
        .domain_texts(&tokenizer, length, groups.max(1))
        .input()?;
    publish_domains(&texts, store).environment()
}

/// A task that begins with a model of its own, its experts divided anew.
fn with_model(
    next: &NextTaskConfig,
    (follows, before): (BlobId, &TaskManifest),
    (folder, rules): (&Path, Rules),
    store: &dyn BlobStore,
) -> Result<BlobId, Failure> {
    let base = Base::load(folder)?;
    let corpus = Corpus::load(&next.data, 0).input()?;
    let groups = u16::try_from(before.groups.len()).unwrap_or(u16::MAX);
    let groups = next.groups.unwrap_or(groups);
    let length = rules.scoring.sequence_length as usize;
    let domains = corpus
        .domain_texts(&base.tokenizer, length, groups.max(1))
        .input()?;
    let first_cycle = Cycle(next.first_cycle);
    let plan = TaskPlan {
        name: next.name.clone().unwrap_or_else(|| before.name.clone()),
        netuid: before.netuid,
        starts: before.schedule().opens(first_cycle, Window::Distribute),
        rules,
        model: &base.model,
        tokenizer: &base.tokenizer_json,
        groups,
        tickets: next.tickets.clone(),
        domains,
    };
    let beginning = Beginning {
        follows: Some(follows),
        first_cycle,
    };
    publish_following(&plan, beginning, store)
        .context("[next]")
        .input()
}

#[cfg(test)]
mod tests {
    use connito_engine::Model;
    use connito_engine::data::documents::TokenDocuments;
    use connito_learning::store::MemoryStore;
    use connito_learning::task::{DomainText, publish};
    use connito_protocol::ids::{GroupId, Netuid};
    use connito_protocol::rules::SelectionTop;

    use super::*;

    fn section(text: &str) -> NextTaskConfig {
        toml::from_str(text).unwrap()
    }

    /// A store with a task of 45-block cycles that begins with block 10.
    fn network() -> (MemoryStore, BlobId) {
        let store = MemoryStore::default();
        let config = ModelConfig {
            num_hidden_layers: 2,
            ..ModelConfig::tiny(64)
        };
        let documents = |first: u32| {
            let documents = (first..first + 4).map(|id| vec![id; 8]);
            TokenDocuments::from_sequences(documents).unwrap()
        };
        let domain = |group: u16| DomainText {
            name: format!("text {group}"),
            group: GroupId(group),
            training: documents(1),
            scoring: documents(11),
            gate: documents(21),
        };
        let plan = TaskPlan {
            name: "first".to_owned(),
            netuid: Netuid(1),
            starts: Block(10),
            rules: Rules::default(),
            model: &Model::random(&config, 7),
            tokenizer: b"{}",
            groups: 2,
            tickets: None,
            domains: vec![domain(0), domain(1)],
        };
        let task = publish(&plan, &store).unwrap();
        (store, task)
    }

    /// What should happen: a task that everyone else will take, with the named rules changed and all
    /// else as it was.
    #[test]
    fn a_next_task_differs_from_the_present_one_in_what_the_section_names() {
        let (store, first) = network();
        let next = section(
            "first_cycle = 3\n[rules]\nnotice_cycles = 2\nselection = { top = { k = 3 } }\n\
             inner = { steps = 6 }",
        );
        let made = make(&next, (first, Block(60)), &store).unwrap();
        let before = read_task(first, &store).unwrap();
        let task = read_task(made.task, &store).unwrap();
        task.check_follows((first, &before)).unwrap();
        assert_eq!((made.starts, task.first_state), (Block(145), None));
        let mut rules = before.rules.clone();
        rules.notice_cycles = 2;
        rules.selection.top = SelectionTop::K(3);
        rules.inner.steps = 6;
        assert_eq!(task.rules, rules);
        assert_eq!((task.domains, task.model), (before.domains, before.model));
        let again = make(&next, (first, Block(60)), &store).unwrap();
        assert_eq!(again, made, "the same section makes the same task");
    }

    #[test]
    fn what_everyone_would_refuse_is_refused_in_one_sentence() {
        let (store, first) = network();
        for (text, names) in [
            (
                "first_cycle = 1",
                "first_cycle 1 is too soon: announced in cycle 1",
            ),
            ("first_cycle = 0", "cycle 2"),
            (
                "first_cycle = 9\ngroups = 3",
                "groups needs the key `model`",
            ),
            ("first_cycle = 9\ntickets = [1]", "tickets"),
            ("first_cycle = 9\nmodel = \"nowhere\"", "nowhere"),
            (
                "first_cycle = 9\nrules = { inner = { step = 6 } }",
                "`step`",
            ),
            ("first_cycle = 9\nrules = { pace = 6 }", "`pace`"),
            ("first_cycle = 9\nrules = { own_share = 7.0 }", "own_share"),
        ] {
            let failure = make(&section(text), (first, Block(60)), &store).unwrap_err();
            let sentence = failure.to_string();
            assert!(sentence.contains(names), "{text}: {sentence}");
            assert!(!sentence.contains('\n'), "{sentence}");
            assert_eq!(failure.code(), 2, "{text}");
        }
        let unknown = BlobId([1; 32]);
        let failure = make(&section("first_cycle = 9"), (unknown, Block(60)), &store).unwrap_err();
        assert!(failure.to_string().contains(&unknown.to_string()));
        assert_eq!(failure.code(), 2);
    }

    #[test]
    fn a_list_of_tasks_is_read_back_and_a_damaged_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        assert_eq!(read(&path).unwrap(), []);
        let (store, first) = network();
        let made = make(&section("first_cycle = 3"), (first, Block(60)), &store).unwrap();
        write(&path, std::slice::from_ref(&made)).unwrap();
        assert_eq!(read(&path).unwrap(), [made]);
        std::fs::write(&path, "[{").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains(FILE));
    }
}
