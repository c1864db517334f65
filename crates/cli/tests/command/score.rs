//! `score` against a validator's own job, and what it says of updates and files that it cannot use.
//!
//! Models are those that the engine is held against `transformers` with, in f32 and in bf16.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use connito_engine::data::{Pieces, TokenDocuments};
use connito_engine::tokenizer::Tokenizer;
use connito_engine::{Model, ModelConfig};
use connito_learning::learner::{Conduct, Learner};
use connito_learning::store::BlobStore;
use connito_learning::task::{DomainText, TaskPlan, publish, read_task, split};
use connito_learning::{EngineBackend, StateLearner, wire};
use connito_node::blobs::DiskBlobs;
use connito_protocol::ids::{BlobId, Block, Cycle, GroupId, Hotkey, Netuid, Seed};
use connito_protocol::job::{Candidate, Finding, Job, Outcome, ScoreJob, TrainJob};
use connito_protocol::manifest::TaskManifest;
use connito_protocol::rules::{Codec, Rules};
use serde_json::Value;
use tempfile::TempDir;

use super::connito;

const SEED: Seed = Seed([0xab; 32]);

/// A network's folders: the base model, the blobs, and an update that one of its miners sends.
struct Ground {
    folder: TempDir,
    blobs: DiskBlobs,
    task: BlobId,
    manifest: TaskManifest,
    update: BlobId,
}

/// A run's exit code, standard output as JSON if it is, and standard error.
struct Run {
    code: i32,
    json: Value,
    told: String,
}

impl Ground {
    /// A task of so many groups, one domain each, on one of the engine's fixtures.
    fn new(model: &str, groups: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("base");
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/fixtures");
        fs::create_dir(&base).unwrap();
        for file in ["config.json", "model.safetensors"] {
            fs::copy(fixture.join(model).join(file), base.join(file)).unwrap();
        }
        let model = Model::load(&base).unwrap();
        let blobs = DiskBlobs::open(folder.path().join("blobs")).unwrap();
        let (task, manifest) = publish_task(&model, groups, &blobs);
        let job = Job::Train(TrainJob {
            cycle: Cycle(0),
            task,
            state: manifest.first_state.unwrap(),
            group: GroupId(0),
            seed: Seed([1; 32]),
            stop_at: Block(9),
            residual: None,
        });
        let mut miner = StateLearner::new(blobs.clone(), EngineBackend::new(1), Conduct::Honest);
        let Outcome::Trained(trained) = miner.run(&job, &|| Block(1)) else {
            panic!("the miner did not train");
        };
        let ground = Self {
            folder,
            blobs,
            task,
            manifest,
            update: trained.update,
        };
        ground.write("update", ground.blobs.read(trained.update).unwrap());
        ground
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    /// What a validator finds.
    fn validators_finding(&self) -> Finding {
        let job = Job::Score(ScoreJob {
            cycle: Cycle(0),
            task: self.task,
            state: self.manifest.first_state.unwrap(),
            seed: SEED,
            updates: vec![Candidate {
                hotkey: Hotkey([1; 32]),
                group: GroupId(0),
                update: self.update,
            }],
            remembered: Vec::new(),
            stop_at: Block(9),
        });
        let backend = EngineBackend::new(2);
        let mut validator = StateLearner::new(self.blobs.clone(), backend, Conduct::Honest);
        match validator.run(&job, &|| Block(1)) {
            Outcome::Scored { findings, .. } => findings[0],
            other => panic!("{other:?}"),
        }
    }

    /// Runs `score` on the base with the seed and what else is typed, split at spaces.
    fn score(&self, arguments: &str) -> Run {
        self.score_on("--base base", arguments)
    }

    /// The same on the state that is named.
    fn score_on(&self, state: &str, arguments: &str) -> Run {
        let seed = SEED.to_string();
        let typed = ["score", "--seed", &seed, "--json"].into_iter();
        let typed = typed.chain(state.split(' '));
        let output = connito(typed.chain(arguments.split(' ')))
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        let code = output.status.code().unwrap();
        let json = match output.stdout.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&output.stdout).unwrap(),
        };
        assert!(!told.contains("panicked"), "{arguments}: {told}");
        assert!(
            code == 0 || told.lines().count() == 1,
            "{arguments}: {told}"
        );
        Run { code, json, told }
    }

    /// Runs `score` on the file `pool` with a seed as it may be typed.
    fn seeded(&self, seed: &str) -> Output {
        let typed = "score --base base --update update --data pool --sequence-length 16 --seed";
        let output = connito(typed.split(' ').chain([seed]))
            .current_dir(self.folder.path())
            .output();
        output.unwrap()
    }

    /// Options that name the task and its store.
    fn of_task(&self) -> String {
        let id = self.task.to_string();
        format!("--task blobs/{}/{id} --blobs blobs", &id[..2])
    }
}

/// Domains of runs of neighbouring tokens, which a model learns in a few steps.
fn publish_task(model: &Model, groups: u16, blobs: &DiskBlobs) -> (BlobId, TaskManifest) {
    let vocabulary = model.config().vocab_size as u32;
    let documents = |from: u32| {
        let sequence = |start| {
            (0..12)
                .map(|step| (start + step) % vocabulary)
                .collect::<Vec<u32>>()
        };
        TokenDocuments::from_sequences((from..from + 50).map(sequence)).unwrap()
    };
    let domain = |group: u16| DomainText {
        name: format!("domain {group}"),
        group: GroupId(group),
        training: documents(u32::from(group) * 30),
        scoring: documents(u32::from(group) * 30 + 7),
        gate: documents(u32::from(group) * 30 + 13),
    };
    let mut rules = Rules::default();
    rules.inner.steps = 3;
    rules.scoring.sequence_length = 16;
    rules.scoring.significance = 0.5;
    let plan = TaskPlan {
        name: "test".to_owned(),
        netuid: Netuid(1),
        starts: Block(1),
        rules,
        model,
        tokenizer: b"{}",
        groups,
        tickets: None,
        domains: (0..groups).map(domain).collect(),
    };
    let task = publish(&plan, blobs).unwrap();
    (task, read_task(task, blobs).unwrap())
}

fn assert_equal(run: &Run, finding: &Finding) {
    let Finding::Measured {
        measurement,
        loss_before,
        loss_after,
    } = finding
    else {
        panic!("{finding:?}");
    };
    assert_eq!(run.code, 0, "{}", run.told);
    for (key, expected) in [("loss_before", *loss_before), ("loss_after", *loss_after)] {
        let found = run.json[key].as_f64().unwrap();
        assert_eq!(
            found.to_bits(),
            expected.to_bits(),
            "{key}: {found} is not {expected}"
        );
    }
    for (key, expected) in [
        ("utility", measurement.utility),
        ("standard_error", measurement.standard_error),
    ] {
        let found: f32 = run.json[key].to_string().parse().unwrap();
        assert_eq!(
            found.to_bits(),
            expected.to_bits(),
            "{key}: {found} is not {expected}"
        );
    }
}

/// What should happen: the numbers of the report, bit for bit, also where the base is held in half the
/// memory and on another number of threads.
#[test]
fn the_number_is_the_validators_own_bit_for_bit() {
    for model in ["deepseek_v2_tiny", "qwen3_moe_bf16"] {
        let ground = Ground::new(model, 2);
        let run = ground.score(&format!("--update update {}", ground.of_task()));
        assert_equal(&run, &ground.validators_finding());
        let again = ground.score(&format!("--update update {} --threads 3", ground.of_task()));
        assert_eq!(run.json, again.json, "{model}");
        assert_eq!(run.json["sequences"], 32);
        assert_eq!(run.json["tokens"], 32 * 11);
        let state = format!("--state {}", ground.manifest.first_state.unwrap());
        let of_blobs = ground.score_on(&state, &format!("--update update {}", ground.of_task()));
        assert_eq!(run.json, of_blobs.json, "{model}: {}", of_blobs.told);

        let ground = Ground::new(model, 1);
        let pool = ground.manifest.domains[0].scoring;
        ground.write("pool", ground.blobs.read(pool).unwrap());
        let run = ground.score("--update update --data pool --sequence-length 16");
        assert_equal(&run, &ground.validators_finding());
    }
}

/// The code is that of the task's own z, of the default one without a task; text is measured as the pool
/// that an owner would make of it.
#[test]
fn text_is_measured_as_the_pool_that_it_would_be() {
    let folder = tempfile::tempdir().unwrap();
    let texts = [
        "one and one are two",
        "two and two are four",
        "four and four are eight",
    ];
    let texts: Vec<String> = (0..12).map(|i| format!("{} {i}", texts[i % 3])).collect();
    let tokenizer = Tokenizer::train(texts.iter().map(String::as_str), 300).unwrap();
    let config = ModelConfig {
        hidden_size: 16,
        intermediate_size: 16,
        ..ModelConfig::tiny(tokenizer.vocabulary())
    };
    let model = Model::random(&config, 3);
    model.save(&folder.path().join("base")).unwrap();
    tokenizer
        .save(&folder.path().join("base/tokenizer.json"))
        .unwrap();
    let ground = {
        let blobs = DiskBlobs::open(folder.path().join("blobs")).unwrap();
        let (task, manifest) = publish_task(&model, 2, &blobs);
        Ground {
            folder,
            blobs,
            task,
            manifest,
            update: BlobId([0; 32]),
        }
    };
    let mut update = split(&model, &ground.manifest.groups[1]);
    let values = update.0.values_mut().flat_map(|tensor| &mut tensor.values);
    values.for_each(|value| *value *= -0.5);
    ground.write("update", wire::encode(&update, Codec::Bf16));
    let lines: Vec<String> = texts
        .iter()
        .map(|text| serde_json::json!({ "text": text }).to_string())
        .collect();
    ground.write("text.jsonl", lines.join("\n"));
    let tokens = TokenDocuments::tokenize(&tokenizer, &texts, 8, Pieces::All).unwrap();
    ground.write("pool", tokens.to_bytes());
    let of_text =
        ground.score("--update update --data text.jsonl --sequence-length 8 --sequences 5");
    let of_pool = ground.score("--update update --data pool --sequence-length 8 --sequences 5");
    assert_eq!(of_text.code, 0, "{}", of_text.told);
    assert_eq!(of_text.json, of_pool.json);
    assert_eq!(of_text.json["sequences"], 5);
    let both = ground
        .score("--update update --data text.jsonl --data pool --sequence-length 8 --sequences 2");
    assert_eq!(both.json["sequences"], 4, "two of each at least");

    let lines = tokens.iter().map(|ids| {
        let line = serde_json::json!({ "domain": "sums", "ids": ids });
        line.to_string() + "\n\n"
    });
    ground.write("heldout.jsonl", lines.collect::<String>());
    let of_ids =
        ground.score("--update update --data heldout.jsonl --sequence-length 8 --sequences 5");
    assert_eq!(of_ids.json, of_pool.json, "{}", of_ids.told);
}

/// Updates that validators refuse: their bytes, the code, whether it takes the task to know, and what is
/// named.
fn refused_updates(ground: &Ground) -> Vec<(Vec<u8>, &'static str, bool, String)> {
    let model = Model::load(&ground.path("base")).unwrap();
    let group = |index: usize| split(&model, &ground.manifest.groups[index]);
    let (mut router, mut torn, mut broken, mut both) = (group(0), group(0), group(0), group(0));
    let name = group(0).0.keys().next().unwrap().clone();
    let tensor = router.0.remove(&name).unwrap();
    router.0.insert("model.norm.weight".to_owned(), tensor);
    torn.0.remove(&name);
    broken.0.get_mut(&name).unwrap().values[0] = f32::NAN;
    both.0.extend(group(1).0);
    let stranger = group(1).0.keys().next().unwrap().clone();
    let huge = u64::MAX.to_le_bytes().to_vec();
    let encode = |shard| wire::encode(shard, Codec::F32);
    let norm = "model.norm.weight".to_owned();
    vec![
        (b"short".to_vec(), "bad_layout", false, String::new()),
        (Vec::new(), "bad_layout", false, String::new()),
        (huge, "too_large", false, String::new()),
        (vec![0; 1 << 24], "too_large", false, String::new()),
        (encode(&router), "unexpected_tensor", false, norm),
        (encode(&torn), "missing_tensor", false, name.clone()),
        (encode(&broken), "non_finite_update", false, name),
        (encode(&both), "unexpected_tensor", true, stranger),
    ]
}

/// What should happen: the code that the network would give, the tensor by name, and exit code 1: the
/// question was answered.
#[test]
fn an_update_that_validators_refuse_is_refused_with_their_code() {
    let ground = Ground::new("deepseek_v2_tiny", 2);
    let pool = ground.manifest.domains[0].scoring;
    ground.write("pool", ground.blobs.read(pool).unwrap());
    for (bytes, code, takes_the_task, named) in refused_updates(&ground) {
        ground.write("refused", &bytes);
        let setting = match takes_the_task {
            true => ground.of_task(),
            false => "--data pool --sequence-length 16".to_owned(),
        };
        let run = ground.score(&format!("--update refused {setting}"));
        let found = (run.code, &run.json["code"]);
        assert_eq!(found, (1, &Value::from(code)), "{}", run.told);
        let is_told = run.told.contains("refused") && run.told.contains(&named);
        assert!(is_told, "{}", run.told);
        let detail = run.json["detail"].as_str().unwrap();
        assert!(detail.contains(&named), "{}", run.json);
    }
}

/// Losses that are no numbers are the update's fault, not the validator's.
#[test]
fn an_update_under_which_losses_are_no_numbers_is_refused() {
    let ground = Ground::new("deepseek_v2_tiny", 1);
    let model = Model::load(&ground.path("base")).unwrap();
    let mut update = split(&model, &ground.manifest.groups[0]);
    let values = update.0.values_mut().flat_map(|tensor| &mut tensor.values);
    values.for_each(|value| *value = f32::MAX);
    ground.write("huge", wire::encode(&update, Codec::F32));
    let run = ground.score(&format!("--update huge {}", ground.of_task()));
    assert_eq!(
        (run.code, &run.json["code"]),
        (1, &Value::from("non_finite_loss")),
        "{}",
        run.told
    );
}

/// Input that cannot be used: code 2, and the thing at fault by name.
#[test]
fn what_cannot_be_used_is_named() {
    let ground = Ground::new("deepseek_v2_tiny", 2);
    let other = Ground::new("qwen3_moe_bf16", 2);
    let pool = ground
        .blobs
        .read(ground.manifest.domains[0].scoring)
        .unwrap();
    ground.write("pool", &pool);
    ground.write("torn-pool", &pool[..pool.len() - 3]);
    ground.write("empty", "");
    ground.write("text.jsonl", "{\"text\": \"one\"}\n");
    ground.write("ids.jsonl", "{\"ids\": [1, 2]}\n{\"ids\": [1, -2]}\n");
    ground.write("strange-ids.jsonl", "{\"ids\": [1, 4000000000]}\n");
    ground.write("no-ids.jsonl", "{\"ids\": []}\n");
    ground.write("task", ground.blobs.read(ground.task).unwrap());
    ground.write("other-task", other.blobs.read(other.task).unwrap());
    fs::create_dir(ground.path("no-blobs")).unwrap();
    let scoring = ground.manifest.domains[0].scoring.to_string();
    for (arguments, named) in [
        ("--update absent --data pool", "absent"),
        ("--update base --data pool", "base"),
        ("--update update --data absent", "absent"),
        ("--update update --data base", "base"),
        ("--update update --data empty", "empty"),
        ("--update update --data torn-pool", "torn-pool"),
        ("--update update --data pool --sequence-length 4", "pool"),
        (
            "--update update --data pool --sequence-length 4000000000",
            "4000000000",
        ),
        ("--update update --data text.jsonl", "tokenizer.json"),
        ("--update update --data ids.jsonl", "ids.jsonl, line 2"),
        (
            "--update update --data strange-ids.jsonl",
            "strange-ids.jsonl",
        ),
        ("--update update --data no-ids.jsonl", "no-ids.jsonl"),
        ("--update update --task pool --blobs blobs", "pool"),
        (
            "--update update --task other-task --blobs blobs",
            "other-task",
        ),
        (
            "--update update --task task --blobs no-blobs",
            scoring.as_str(),
        ),
    ] {
        let run = ground.score(arguments);
        assert_eq!(run.code, 2, "{arguments}: {}", run.told);
        assert!(run.told.contains(named), "{arguments}: {}", run.told);
        assert_eq!(run.json, Value::Null, "{arguments}");
    }
    let mut left = fs::read_dir(ground.path("no-blobs")).unwrap();
    assert!(left.next().is_none(), "nothing is written to a store");
}

/// A state is its blobs, and a seed may be written like a number.
#[test]
fn states_and_seeds_that_are_none_are_refused() {
    let ground = Ground::new("deepseek_v2_tiny", 2);
    let pool = ground.manifest.domains[0].scoring;
    ground.write("pool", ground.blobs.read(pool).unwrap());
    for state in ["5".repeat(64), pool.to_string()] {
        let arguments = format!("--update update {}", ground.of_task());
        let run = ground.score_on(&format!("--state {state}"), &arguments);
        assert!(run.code == 2 && run.told.contains(&state), "{}", run.told);
    }
    for seed in ["", "0x", "-1", &"g".repeat(64), &"a".repeat(65)] {
        assert_eq!(ground.seeded(seed).status.code(), Some(2), "{seed}");
    }
    let padded = format!("{:0>64}", "ab");
    let (short, long) = (ground.seeded("0xAB"), ground.seeded(&padded));
    assert!(short.status.success() && short.stdout == long.stdout);
}

/// What should not happen: reading what never ends.
#[cfg(unix)]
#[test]
fn a_pool_without_an_end_is_named_and_not_read() {
    let ground = Ground::new("deepseek_v2_tiny", 1);
    let pool = ground.manifest.domains[0].scoring.to_string();
    let path = ground.path("blobs").join(&pool[..2]).join(&pool);
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    let run = ground.score(&format!("--update update {}", ground.of_task()));
    assert_eq!(run.code, 2, "{}", run.told);
    assert!(run.told.contains(&pool), "{}", run.told);
}
