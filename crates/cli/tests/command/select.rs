//! What `select` and `affinity` write, against the library asked directly and against published files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use connito_engine::tokenizer::Tokenizer;
use connito_engine::{Model, ModelConfig, Routing, RoutingStatistics};
use connito_learning::selection::{
    Amount, ExpertConfig, Score, ScoreSummary, group_affinity, select, select_within,
};
use connito_protocol::partition::CoActivation;
use serde_json::Value;
use tempfile::TempDir;

use super::connito;

/// Experts of a layer, in a model whose layers 1 and 2 have any.
const EXPERTS: usize = 8;

const TEXTS: [&str; 6] = [
    "one and one are two",
    "two and two are four",
    "three and one are four, and so are one and three",
    "a b c d e f g h i j k l m n o p q r s t u v w x y z",
    "zero",
    "four and four are eight, eight and eight are sixteen",
];

/// A folder with a model and two domains.
struct Ground {
    folder: TempDir,
    model: Model,
    tokenizer: Tokenizer,
}

impl Ground {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = Tokenizer::train(TEXTS.into_iter(), 300).unwrap();
        let mut config = ModelConfig {
            hidden_size: 16,
            intermediate_size: 16,
            num_hidden_layers: 3,
            ..ModelConfig::tiny(tokenizer.vocabulary())
        };
        config.mixture.width = 8;
        let model = Model::random(&config, 4);
        model.save(&folder.path().join("model")).unwrap();
        tokenizer
            .save(&folder.path().join("model/tokenizer.json"))
            .unwrap();
        let ground = Self {
            folder,
            model,
            tokenizer,
        };
        ground.write("words.jsonl", &TEXTS[..3]);
        ground.write("letters.jsonl", &TEXTS[3..]);
        ground
    }

    fn write(&self, name: &str, texts: &[&str]) {
        let lines = texts
            .iter()
            .map(|text| serde_json::json!({ "text": text }).to_string());
        let lines: Vec<String> = lines.collect();
        std::fs::write(self.path(name), lines.join("\n")).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// What a command line that is split at spaces prints.
    fn printed(&self, arguments: &str) -> String {
        printed(self.folder.path(), arguments)
    }

    /// The scores of texts by the engine, every text cut into sequences of at most `longest` tokens.
    fn scores(&self, texts: &[&str], longest: usize) -> ScoreSummary {
        ScoreSummary::of(&self.statistics(texts, longest)).unwrap()
    }

    fn statistics(&self, texts: &[&str], longest: usize) -> RoutingStatistics {
        let documents = texts
            .iter()
            .map(|text| self.tokenizer.encode_document(text).unwrap());
        let documents: Vec<Vec<u32>> = documents.collect();
        let sequences: Vec<&[u32]> = documents
            .iter()
            .flat_map(|ids| ids.chunks(longest))
            .collect();
        self.model
            .routing_statistics(&sequences, &Routing::Classic)
            .unwrap()
    }
}

fn printed(folder: &Path, arguments: &str) -> String {
    let output = connito(arguments.split(' '))
        .current_dir(folder)
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

fn in_every_layer(experts: &[usize]) -> BTreeMap<usize, Vec<usize>> {
    [1, 2].map(|layer| (layer, experts.to_vec())).into()
}

/// The published file of a task, or `None` where there are none beside the repository.
fn published(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/data/esft")
        .join(name);
    if !path.is_file() {
        eprintln!("skipped: there is no {}", path.display());
        return None;
    }
    Some(path)
}

/// What should happen: the published configurations to the byte, without any model.
#[test]
fn published_scores_give_the_published_configurations() {
    let folder = tempfile::tempdir().unwrap();
    for (task, by_token, by_gate) in [("law", 153, 163), ("summary", 128, 193)] {
        let Some(scores) = published(&format!("expert_scores/{task}/summary.json")) else {
            return;
        };
        let configuration = published(&format!("expert_configs/{task}.json")).unwrap();
        let from = format!(
            "select --from-scores {} --out out.json --json",
            scores.display()
        );
        printed(folder.path(), &format!("{from} --score token --top-p 0.2"));
        let written = std::fs::read(folder.path().join("out.json")).unwrap();
        assert_eq!(written, std::fs::read(configuration).unwrap(), "{task}");

        for (score, selected) in [("token", by_token), ("gate", by_gate)] {
            let report = printed(folder.path(), &format!("{from} --score {score}"));
            let report: Value = serde_json::from_str(&report).unwrap();
            assert_eq!(report["selected"], selected, "{task}, {score}");
            assert_eq!(report["layers"], 26);
            assert_eq!(report["tokens"], Value::Null);
        }
    }
}

/// What should happen: all tokens of all files count once, whichever way documents are drawn and cut.
#[test]
fn a_models_scores_are_those_of_all_tokens_of_the_text() {
    let ground = Ground::new();
    let expected = ground.scores(&TEXTS, 5);
    let command = "select --model model --data words.jsonl --data letters.jsonl --sequence-length 5 \
                   --scores-out scores.json --out out.json";
    for (score, kind, amount, options) in [
        ("token", Score::Token, "--top-p 0.4", ""),
        ("gate", Score::Gate, "--top-k 3", " --seed 7 --threads 2"),
    ] {
        ground.printed(&format!("{command} --score {score} {amount}{options}"));
        assert_eq!(ground.read("scores.json"), expected.to_json(), "{score}");
        let wanted = match kind {
            Score::Token => Amount::top_p(0.4).unwrap(),
            Score::Gate => Amount::top_k(3).unwrap(),
        };
        let selected = select(expected.scores(kind), wanted).unwrap();
        assert_eq!(ground.read("out.json"), selected.to_json());

        // Recorded scores select the same, for they are rounded before anything is compared.
        ground.printed(&format!(
            "select --from-scores scores.json --model model --score {score} {amount} --out again.json"
        ));
        assert_eq!(ground.read("again.json"), selected.to_json());
    }
}

#[test]
fn the_report_counts_what_is_trained() {
    let ground = Ground::new();
    let command = "select --model model --data words.jsonl --top-k 3 --out out.json";
    let report: Value =
        serde_json::from_str(&ground.printed(&format!("{command} --json"))).unwrap();
    // Three matrices of 8 × 16 make an expert.
    let parameters = 2 * 3 * (3 * 8 * 16);
    for (key, value) in [
        ("selected", 6),
        ("candidates", 16),
        ("smallest_layer", 3),
        ("largest_layer", 3),
        ("top_k", 3),
        ("trained_parameters", parameters),
        ("trained_bytes", 2 * parameters),
    ] {
        assert_eq!(report[key], value, "{key}");
    }
    assert_eq!(report["routing"], "classic");
    let config = ExpertConfig::from_json(&ground.read("out.json")).unwrap();
    let listed: BTreeMap<usize, Vec<usize>> =
        serde_json::from_value(report["experts"].clone()).unwrap();
    assert_eq!(listed, config.experts);
    let text = ground.printed(command);
    assert!(
        text.contains("6 of 16 experts in 2 layers: 3 to 3 a layer"),
        "{text}"
    );
    assert!(text.contains("2304 parameters"), "{text}");
}

/// What should happen: a sample is as large as it was asked to be, and a matter of the seed alone.
#[test]
fn a_sample_is_drawn_by_its_seed_and_ends_at_its_last_token() {
    let ground = Ground::new();
    let sampled = |seed: u64| {
        let report = ground.printed(&format!(
            "select --model model --data words.jsonl --tokens 11 --seed {seed} --scores-out s.json \
             --out out.json --json"
        ));
        let report: Value = serde_json::from_str(&report).unwrap();
        assert_eq!(report["tokens"], 11);
        ground.read("s.json")
    };
    assert_eq!(sampled(1), sampled(1));
    let distinct: BTreeSet<String> = (1..6).map(sampled).collect();
    assert!(distinct.len() > 1, "the seed changes nothing");
}

#[test]
fn a_group_is_chosen_among_alone_however_it_is_named() {
    let ground = Ground::new();
    let summary = ground.scores(&TEXTS[..3], 4096);
    let scores = summary.scores(Score::Token);
    ground.printed("select --model model --data words.jsonl --scores-out s.json --out out.json");
    let within = |members: &[usize], top_p: f64, scores: &_| {
        let amount = Amount::top_p(top_p).unwrap();
        select_within(scores, amount, &in_every_layer(members))
            .unwrap()
            .to_json()
    };
    let measured = "select --model model --data words.jsonl --top-p 0.5 --out out.json";
    ground.printed(&format!("{measured} --groups 2 --within-group 1"));
    assert_eq!(ground.read("out.json"), within(&[4, 5, 6, 7], 0.5, scores));

    let recorded = ScoreSummary::from_json(&ground.read("s.json")).unwrap();
    let recorded = recorded.scores(Score::Token);
    let from = "select --from-scores s.json --top-p 0.5 --out out.json";
    for (options, members) in [
        ("--groups 2 --within-group 1", &[4, 5, 6, 7][..]),
        (
            "--groups 2 --within-group 1 --strategy strided",
            &[1, 3, 5, 7],
        ),
        ("--groups 3 --within-group 0 --allow-uneven", &[0, 1, 2]),
        ("--groups 3 --within-group 2 --allow-uneven", &[6, 7]),
        ("--groups 1 --within-group 0", &[0, 1, 2, 3, 4, 5, 6, 7]),
    ] {
        ground.printed(&format!("{from} {options}"));
        assert_eq!(
            ground.read("out.json"),
            within(members, 0.5, recorded),
            "{options}"
        );
    }
}

/// What should happen: a layer without a visited expert is listed as empty, and told.
#[test]
fn a_layer_that_never_visits_the_group_selects_nothing_and_is_reported() {
    let ground = Ground::new();
    let row = |second: f64| serde_json::json!({"0": 1.0 - second, "1": second});
    let rows = serde_json::json!({"3": row(0.0), "5": row(0.25)});
    let summary = serde_json::json!({"token_scores": rows, "gate_scores": rows});
    std::fs::write(ground.path("s.json"), summary.to_string()).unwrap();
    let command = "select --from-scores s.json --groups 2 --within-group 1 --out out.json";
    let report: Value =
        serde_json::from_str(&ground.printed(&format!("{command} --json"))).unwrap();
    assert_eq!(report["empty_layers"], serde_json::json!([3]));
    assert_eq!(report["covered_of_group"], 1.0);
    let written = ExpertConfig::from_json(&ground.read("out.json")).unwrap();
    assert_eq!(written.experts, [(3, vec![]), (5, vec![1])].into());
    let text = ground.printed(command);
    assert!(text.contains("in layers 3"), "{text}");
}

#[test]
fn groups_are_ranked_for_every_domain_and_add_up() {
    let ground = Ground::new();
    let command = "affinity --model model --data words.jsonl --data letters.jsonl --groups 4";
    let report: Value =
        serde_json::from_str(&ground.printed(&format!("{command} --json"))).unwrap();
    for (index, (name, texts)) in [("words", &TEXTS[..3]), ("letters", &TEXTS[3..])]
        .into_iter()
        .enumerate()
    {
        let summary = ground.scores(texts, 4096);
        let domain = &report["domains"][index];
        assert_eq!(domain["domain"], name);
        let groups = domain["groups"].as_array().unwrap();
        let affinities = groups
            .iter()
            .map(|group| group["affinity"].as_f64().unwrap());
        assert!((affinities.sum::<f64>() - 1.0).abs() < 1e-9);
        let mut last = f64::INFINITY;
        for (rank, ranked) in (1..).zip(groups) {
            assert_eq!(ranked["rank"], rank);
            let group = usize::try_from(ranked["group"].as_u64().unwrap()).unwrap();
            let members = in_every_layer(&[2 * group, 2 * group + 1]);
            let expected = group_affinity(summary.scores(Score::Token), &members).unwrap();
            assert!((ranked["affinity"].as_f64().unwrap() - expected).abs() < 1e-12);
            assert!((ranked["uniform"].as_f64().unwrap() - 0.25).abs() < 1e-12);
            let relative = ranked["relative"].as_f64().unwrap();
            assert!(relative <= last, "not in order");
            last = relative;
        }
    }
    let text = ground.printed(command);
    for line in [
        "words: token score over",
        "letters: token score over",
        "group   words  letters",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

/// Eight experts make eight groups when nobody says how many.
#[test]
fn groups_are_ranked_without_having_been_asked_for() {
    let ground = Ground::new();
    let command = "affinity --model model --data words.jsonl";
    let asked = ground.printed(&format!("{command} --groups 8"));
    assert_eq!(ground.printed(command), asked);
    let command = "select --model model --data words.jsonl --within-group 3 --out out.json";
    let asked = ground.printed(&format!("{command} --groups 8"));
    assert_eq!(ground.printed(command), asked);
}

/// Before registering, the second question after which group fits is how many are there already.
#[test]
fn miners_that_are_there_already_stand_beside_their_groups() {
    let ground = Ground::new();
    let hotkeys: Vec<String> = (0..40).map(|number| format!("{number:064x}")).collect();
    std::fs::write(ground.path("hotkeys"), hotkeys.join("\n")).unwrap();
    let command = "affinity --model model --data words.jsonl --groups 4 --hotkeys hotkeys";
    let report: Value =
        serde_json::from_str(&ground.printed(&format!("{command} --json"))).unwrap();
    let assigned: Value =
        serde_json::from_str(&ground.printed("assign --hotkeys hotkeys --groups 4 --json"))
            .unwrap();
    for ranked in report["domains"][0]["groups"].as_array().unwrap() {
        let group = usize::try_from(ranked["group"].as_u64().unwrap()).unwrap();
        assert_eq!(ranked["miners"], assigned["groups"][group]["hotkeys"]);
    }
    assert!(ground.printed(command).contains("miners"));
}

/// What should happen: groups in which more tokens meet than in consecutive ones, of one size, and the same
/// ones wherever groups are asked for. What should not: that they depend on anything but model and text.
#[test]
fn experts_that_fire_together_land_together() {
    let ground = Ground::new();
    let counted = ground.statistics(&TEXTS[..3], 4096).coactivation();
    let counts = CoActivation::from_rows(&counted).unwrap();
    let groups = |options: &str| {
        let command = format!("partition --model model --groups 2 {options} --json");
        let partition: Value = serde_json::from_str(&ground.printed(&command)).unwrap();
        std::fs::write(ground.path("partition.json"), partition.to_string()).unwrap();
        let experts = |group: &Value| -> Vec<usize> {
            let experts = group["expert_indices"].as_array().unwrap().iter();
            experts
                .map(|id| usize::try_from(id.as_u64().unwrap()).unwrap())
                .collect()
        };
        let groups = partition["groups"].as_array().unwrap();
        groups.iter().map(experts).collect::<Vec<_>>()
    };
    let within =
        |groups: &[Vec<usize>]| -> u128 { groups.iter().map(|group| counts.within(group)).sum() };
    let consecutive = within(&groups("--strategy contiguous"));
    let coactive = groups("--strategy coactivation --data words.jsonl");
    assert!(
        coactive.iter().all(|group| group.len() == EXPERTS / 2),
        "{coactive:?}"
    );
    assert!(within(&coactive) > consecutive, "{coactive:?}");

    let slice = |options: &str, out: &str| {
        ground.printed(&format!(
            "slice --model model {options} --group 1 --out {out}"
        ));
        std::fs::read(ground.path(out).join("model.safetensors")).unwrap()
    };
    let options = "--groups 2 --strategy coactivation --data words.jsonl";
    assert_eq!(
        slice(options, "one"),
        slice("--partition partition.json", "other")
    );
}

/// The names of elements that are opened and not closed, in order: none if a picture is well formed.
fn left_open(xml: &str) -> Vec<String> {
    let mut open = Vec::new();
    for tag in xml.split('<').skip(1) {
        let (tag, text) = tag.split_once('>').unwrap();
        assert!(!text.contains('&') || text.contains("&amp;"), "{text}");
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name));
        } else if !tag.ends_with('/') {
            open.push(tag.split(' ').next().unwrap().to_owned());
        }
    }
    open
}

/// A cell for every layer, expert and domain; the picture is the same whenever it is drawn.
#[test]
fn the_heat_map_is_a_well_formed_picture_of_every_expert() {
    let ground = Ground::new();
    std::fs::rename(ground.path("model"), ground.path("a<b>&c")).unwrap();
    let command = "affinity --model a<b>&c --data words.jsonl --data letters.jsonl --groups 4 \
                   --heat-map map.svg";
    ground.printed(command);
    let svg = ground.read("map.svg");
    assert_eq!(left_open(&svg), Vec::<String>::new());
    assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""));
    assert!(svg.contains("a&lt;b&gt;&amp;c"));
    assert_eq!(svg.matches("times the mean (").count(), 2 * 2 * EXPERTS);
    ground.printed(&format!("{command} --json"));
    assert_eq!(ground.read("map.svg"), svg);
}
