//! `slice` and `join`: what comes out of the real command, byte for byte, and how much memory it takes.
//!
//! Models are those that the engine is held against `transformers` with: small, and stored in every
//! layout and type that there is.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use connito_engine::checkpoint::Checkpoint;
use connito_engine::config::MixtureConfig;
use connito_engine::device::Cpu;
use connito_engine::{Holding, Model, ModelConfig, Residency};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::connito;

/// One tensor an expert, in three types; all experts fused, in both orientations.
const MODELS: [&str; 7] = [
    "deepseek_v2_tiny",
    "deepseek_v3_tiny",
    "qwen3_moe_bf16",
    "mixtral_f16",
    "mixtral_fused",
    "qwen3_vl_moe_released",
    "qwen3_vl_moe_tiny",
];

/// A folder that commands run in.
struct Ground(TempDir);

impl Ground {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// With a model in `base`.
    fn with(model: &str) -> Self {
        let ground = Self::new();
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/fixtures");
        fs::create_dir(ground.path("base")).unwrap();
        for file in ["config.json", "model.safetensors"] {
            let from = fixtures.join(model).join(file);
            fs::copy(from, ground.path("base").join(file)).unwrap();
        }
        fs::write(ground.path("base/tokenizer.json"), "{}").unwrap();
        ground
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs a command line that is split at spaces.
    fn run(&self, arguments: &str) -> Output {
        connito(arguments.split(' '))
            .current_dir(self.0.path())
            .output()
            .unwrap()
    }

    /// Runs a command line that should succeed; its result as JSON, and what it told besides.
    fn told(&self, arguments: &str) -> (Value, String) {
        let output = self.run(&format!("{arguments} --json"));
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{arguments}: {told}");
        (serde_json::from_slice(&output.stdout).unwrap(), told)
    }

    /// The one sentence about a command line that should be refused, nothing having been written.
    fn refusal(&self, arguments: &str) -> String {
        let before = listing(self.0.path());
        let output = self.run(arguments);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments}: {told}");
        assert!(output.stdout.is_empty(), "{arguments} printed a result");
        assert_eq!(told.lines().count(), 1, "{told}");
        assert_eq!(listing(self.0.path()), before, "{arguments} left something");
        told
    }

    /// Slices of all groups of two, in `s0` and `s1`.
    fn slices(&self) {
        for group in [0, 1] {
            self.told(&format!(
                "slice --model base --groups 2 --group {group} --out s{group}"
            ));
        }
    }

    fn weights(&self, folder: &str) -> Vec<u8> {
        fs::read(self.path(folder).join("model.safetensors")).unwrap()
    }
}

/// Every file below a folder, and its size.
fn listing(folder: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            found.extend(listing(&entry.path()));
        }
        found.insert(entry.path(), metadata.len());
    }
    found
}

fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = listing(folder).into_keys();
    files
        .map(|path| {
            let name = path.strip_prefix(folder).unwrap().to_owned();
            (name, fs::read(path).unwrap())
        })
        .collect()
}

/// Deals the tensors of the model in `base` over three files.
fn shard(ground: &Ground) {
    let bytes = ground.weights("base");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut shards: [Vec<(String, TensorView<'_>)>; 3] = Default::default();
    let mut map = BTreeMap::new();
    for (number, (name, view)) in file.tensors().into_iter().enumerate() {
        map.insert(name.clone(), format!("model-{:05}.safetensors", number % 3));
        shards[number % 3].push((name, view));
    }
    for (number, shard) in shards.into_iter().enumerate() {
        let path = ground.path(&format!("base/model-{number:05}.safetensors"));
        safetensors::serialize_to_file(shard, None, &path).unwrap();
    }
    let index = json!({"metadata": {}, "weight_map": map});
    let path = ground.path("base/model.safetensors.index.json");
    fs::write(path, index.to_string()).unwrap();
    fs::remove_file(ground.path("base/model.safetensors")).unwrap();
}

/// Where a tensor's bytes are in a file.
fn place(bytes: &[u8], tensor: &str) -> Range<usize> {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let data = file.tensor(tensor).unwrap().data().as_ptr_range();
    let offset = |at: *const u8| at as usize - bytes.as_ptr() as usize;
    offset(data.start)..offset(data.end)
}

#[test]
fn all_slices_together_are_the_model_bit_for_bit() {
    for model in MODELS {
        for sharded in [false, true] {
            let ground = Ground::with(model);
            if sharded {
                shard(&ground);
            }
            ground.slices();
            let (told, more) = ground.told("join --model base --slices s1 s0 --out joined");
            assert_eq!(told["experts"], told["model_experts"], "{model}: {told}");
            assert_eq!(told["changed_experts"], 0);
            assert_eq!(more, "");
            let [joined, base] = ["joined", "base"].map(|name| contents(&ground.path(name)));
            assert!(joined == base, "{model} sharded: {sharded}");
        }
    }
}

/// What should happen: the slice, and the model read through it, are what they say. What should not:
/// that they are larger than their part.
#[test]
fn a_slice_says_what_it_holds_and_is_read_as_that() {
    for model in MODELS {
        let ground = Ground::with(model);
        let (told, _) = ground.told("slice --model base --groups 2 --group 1 --out slice");
        let whole = Checkpoint::open(&ground.path("base")).unwrap();
        let config = whole.config();
        let half = config.mixture.experts / 2;
        let layers = config.moe_layers();
        let experts = layers.map(|layer| (layer, (half..2 * half).collect::<Vec<_>>()));
        let experts: BTreeMap<_, _> = experts.collect();
        let bytes = ground.weights("slice");
        let whole_bytes = ground.weights("base").len();
        assert_eq!(told["bytes"], bytes.len());
        assert_eq!(told["model_bytes"], whole_bytes);
        assert!(bytes.len() < whole_bytes, "{model}");
        assert_eq!(told["experts"], experts.len() * half);
        assert_eq!(
            (&told["groups"], &told["group_count"]),
            (&json!([1]), &json!(2))
        );
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(told["tensors"], header.tensors().len());
        let text = header.metadata().as_ref().unwrap();
        assert_eq!(text["connito.group_ids"], "[1]");
        assert_eq!(text["connito.group_count"], "2");
        assert_eq!(
            text["connito.partition"],
            told["partition"].as_str().unwrap()
        );
        let listed: BTreeMap<usize, Vec<usize>> =
            serde_json::from_str(&text["connito.experts"]).unwrap();
        assert_eq!(listed, experts, "{model}");

        let holding = Holding {
            residency: Residency::Slice(experts),
            ..Holding::whole()
        };
        let slice = Checkpoint::open(&ground.path("slice")).unwrap();
        let [own, expected] = [&slice, &whole]
            .map(|folder| Model::from_checkpoint(Cpu::single(), folder, &holding).unwrap());
        for name in expected.names() {
            assert_eq!(own.tensor(name), expected.tensor(name), "{model} {name}");
        }
    }
}

/// What should happen: the bytes of the one expert that was trained are other ones, in the base's order.
#[test]
fn training_one_expert_changes_its_bytes_and_no_others() {
    let ground = Ground::with("qwen3_vl_moe_released");
    ground.slices();
    let tensor = "model.language_model.layers.1.mlp.experts.gate_up_proj";
    let mut trained = ground.weights("s1");
    let place_in_slice = place(&trained, tensor);
    let row = place_in_slice.len() / 3;
    // The slice's second row is expert 4 of the model.
    let number = place_in_slice.start + row + 8;
    trained[number..number + 4].copy_from_slice(&0.375_f32.to_le_bytes());
    fs::write(ground.path("s1/model.safetensors"), &trained).unwrap();
    let (told, _) = ground.told("join --model base --slices s1 --out joined");
    assert_eq!(
        (&told["changed_experts"], &told["slices"]),
        (&json!(1), &json!(1))
    );
    let mut expected = ground.weights("base");
    let number = place(&expected, tensor).start + 4 * row + 8;
    expected[number..number + 4].copy_from_slice(&0.375_f32.to_le_bytes());
    assert!(ground.weights("joined") == expected);
}

/// A trainer that keeps its experts in single precision, and nothing else, not even a configuration.
#[test]
fn experts_in_another_type_are_rounded_and_that_is_said() {
    let ground = Ground::with("qwen3_moe_bf16");
    let name = |matrix| format!("model.layers.0.mlp.experts.2.{matrix}.weight");
    let values = 1.0_f32 + 3.0 / 256.0;
    let bytes: Vec<u8> = std::iter::repeat_n(values.to_le_bytes(), 240)
        .flatten()
        .collect();
    let tensors = [
        ("gate_proj", [10, 24]),
        ("up_proj", [10, 24]),
        ("down_proj", [24, 10]),
    ];
    let views = tensors.map(|(matrix, shape)| {
        let view = TensorView::new(Dtype::F32, shape.to_vec(), &bytes).unwrap();
        (name(matrix), view)
    });
    fs::create_dir(ground.path("trained")).unwrap();
    let path = ground.path("trained/model.safetensors");
    safetensors::serialize_to_file(views, None, &path).unwrap();
    let (told, more) = ground.told("join --model base --slices trained --out joined");
    let converted = json!([{"slice": "trained", "from": "F32", "to": "BF16", "tensors": 3}]);
    assert_eq!(told["converted"], converted);
    assert!(
        more.contains("trained: 3 tensors are stored as F32 and became BF16"),
        "{more}"
    );
    let mut expected = ground.weights("base");
    for (matrix, _) in tensors {
        let place = place(&expected, &name(matrix));
        // 1 + 3/256 lies half way between two numbers of the type; 1 + 4/256 is the even one.
        expected[place].as_chunks_mut().0.fill([0x82, 0x3f]);
    }
    assert!(ground.weights("joined") == expected);
}

#[test]
fn what_cannot_be_sliced_is_named() {
    let ground = Ground::with("qwen3_moe_bf16");
    shard(&ground);
    fs::write(ground.path("file"), "").unwrap();
    let slice = "slice --groups 2 --group 0 --model";
    for (arguments, named) in [
        (
            "slice --model base --groups 2 --group 2 --out out",
            "--group 2",
        ),
        ("slice --model base --groups 7 --group 0 --out out", "7"),
        (&format!("{slice} absent --out out"), "absent"),
        (&format!("{slice} base --out base"), "base"),
        (
            &format!("{slice} base --out base/part/of/it"),
            "base/part/of/it",
        ),
        (&format!("{slice} base --out file"), "file"),
        (&format!("{slice} base --out ."), "."),
        (&format!("{slice} base --out file/out"), "file"),
    ] {
        let told = ground.refusal(arguments);
        assert!(told.contains(named), "{arguments}: {told}");
    }
    let shard = ground.path("base/model-00001.safetensors");
    let bytes = fs::read(&shard).unwrap();
    fs::write(&shard, &bytes[..bytes.len() - 3]).unwrap();
    let told = ground.refusal(&format!("{slice} base --out out"));
    assert!(told.contains("model-00001.safetensors"), "{told}");
    fs::remove_file(&shard).unwrap();
    let told = ground.refusal(&format!("{slice} base --out out"));
    assert!(told.contains("model-00001.safetensors"), "{told}");
}

#[test]
fn what_cannot_be_joined_is_named() {
    let ground = Ground::with("qwen3_moe_bf16");
    ground.slices();
    let join = "join --model base --slices";
    for (arguments, named) in [
        (&*format!("{join} s0 s0 --out out"), "expert 0 of layer 0"),
        (&format!("{join} s0 absent --out out"), "absent"),
        (&format!("{join} s0 --out s0"), "s0"),
        (&format!("{join} s0 --out s0/out"), "s0/out"),
        (&format!("{join} s0 --out base"), "base"),
        (&format!("{join} s0 --out s1"), "s1 is not empty"),
        ("join --model s0 --slices s1 --out out", "is missing"),
    ] {
        let told = ground.refusal(arguments);
        assert!(told.contains(named), "{arguments}: {told}");
    }
    let path = ground.path("s1/model.safetensors");
    let bytes = ground.weights("s1");
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let told = ground.refusal(&format!("{join} s1 --out out"));
    assert!(told.contains("s1/model.safetensors"), "{told}");
    for (tensor, value, named) in [
        (
            "model.norm.weight",
            [0x12, 0x34],
            "only routed experts may be trained",
        ),
        (
            "model.layers.0.mlp.experts.4.up_proj.weight",
            [0x80, 0x7f],
            "not finite",
        ),
    ] {
        let mut bytes = bytes.clone();
        let start = place(&bytes, tensor).start;
        bytes[start..start + 2].copy_from_slice(&value);
        fs::write(&path, bytes).unwrap();
        let told = ground.refusal(&format!("{join} s1 --out out"));
        assert!(told.contains(named) && told.contains(tensor), "{told}");
    }
    let config = fs::read_to_string(ground.path("base/config.json")).unwrap();
    fs::write(ground.path("base/config.json"), format!("{config} ")).unwrap();
    let told = ground.refusal(&format!("{join} s0 --out out"));
    assert!(
        told.contains("s0/model.safetensors was taken beside another config.json"),
        "{told}"
    );
}

/// An empty folder that is there stays the one that it is: somebody may have it mounted.
#[test]
fn a_folder_that_is_there_and_empty_is_filled() {
    let ground = Ground::with("mixtral_fused");
    fs::create_dir(ground.path("out")).unwrap();
    let number = || fs::metadata(ground.path("out")).unwrap().ino();
    let before = number();
    ground.told("slice --model base --groups 4 --group 1 --group 3 --out out");
    assert_eq!(number(), before);
    let found: Vec<_> = contents(&ground.path("out")).into_keys().collect();
    let expected = ["config.json", "model.safetensors", "tokenizer.json"].map(PathBuf::from);
    assert_eq!(found, expected);
}

/// What the command may have of address space: a tenth of the model below.
const MEMORY_KIB: u64 = 300_000;

/// A model whose weights are a hole in the file system, but for one number of expert 1 in layer 3.
fn hollow(folder: &Path) -> u64 {
    let tiny = ModelConfig::tiny(100);
    let config = ModelConfig {
        hidden_size: 512,
        num_hidden_layers: 27,
        mixture: MixtureConfig {
            experts: 64,
            per_token: 6,
            width: 640,
            shared_width: 1280,
            ..tiny.mixture
        },
        ..tiny
    };
    fs::create_dir(folder).unwrap();
    fs::write(folder.join("config.json"), config.to_json()).unwrap();
    let mut end = 0;
    let mut marked = 0;
    let rows = Model::expected_tensors(&config).into_iter();
    let rows = rows.map(|(name, shape)| {
        let start = end;
        end += 2 * shape.iter().product::<usize>() as u64;
        if name == "model.layers.3.mlp.experts.1.up_proj.weight" {
            marked = start;
        }
        let row = json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, end]});
        (name, row)
    });
    let table = Value::Object(rows.collect()).to_string();
    let data = 8 + table.len() as u64;
    let mut file = File::create(folder.join("model.safetensors")).unwrap();
    file.write_all(&(table.len() as u64).to_le_bytes()).unwrap();
    file.write_all(table.as_bytes()).unwrap();
    file.set_len(data + end).unwrap();
    file.seek(SeekFrom::Start(data + marked)).unwrap();
    file.write_all(&[0x80, 0x3f]).unwrap();
    assert!(
        file.metadata().unwrap().blocks() * 512 < 4 << 20,
        "the file has no hole"
    );
    data + end
}

/// What should happen: a slice of gigabytes in a tenth of the memory. What should not: that the model is
/// mapped or held, which this much address space would not allow.
#[test]
fn slicing_takes_no_more_memory_for_a_larger_model() {
    let limit = format!("ulimit -v {MEMORY_KIB}");
    let can_limit = Command::new("sh").args(["-c", &limit]).status();
    if !can_limit.is_ok_and(|status| status.success()) {
        eprintln!("skipped: there is no sh that can limit memory");
        return;
    }
    let ground = Ground::new();
    let size = hollow(&ground.path("base"));
    assert!(size > 10 * MEMORY_KIB * 1024, "{size} bytes");
    let output = Command::new("sh")
        .arg("-c")
        .arg(format!(r#"{limit}; exec "$0" "$@""#))
        .arg(env!("CARGO_BIN_EXE_connito"))
        .args(["slice", "--model", "base", "--groups", "64", "--group", "1"])
        .args(["--out", "slice", "--json"])
        .current_dir(ground.0.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&told["experts"], &told["model_bytes"]),
        (&json!(26), &json!(size))
    );
    let bytes = ground.weights("slice");
    assert!((bytes.len() as u64) < size / 20);
    let place = place(&bytes, "model.layers.3.mlp.experts.1.up_proj.weight");
    assert_eq!(bytes[place][..4], [0x80, 0x3f, 0, 0]);
}
