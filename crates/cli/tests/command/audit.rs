//! `connito audit` over a run that nobody took part in: the owner announces a task, and cycles pass without
//! a submission. What it says of real runs is tested with them; here, of folders that were changed.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use connito_chain::keys::{Keypair, Signer};
use connito_chain::local::{GenesisNeuron, GenesisSpec, LocalChain};
use connito_chain::rpc::RpcChain;
use connito_chain::{Chain, Field, Op};
use connito_engine::data::documents::TokenDocuments;
use connito_engine::{Model, ModelConfig};
use connito_learning::task::{DomainText, TaskPlan, publish, read_task};
use connito_node::blobs::DiskBlobs;
use connito_protocol::announcement::Announcement;
use connito_protocol::ids::{BlobId, Block, GroupId, Netuid};
use connito_protocol::manifest::TaskManifest;
use connito_protocol::rules::Rules;
use serde_json::Value;
use tempfile::TempDir;

use super::connito;

/// A folder like a localnet's OUT, with `chain` and `blobs`.
struct Out {
    folder: TempDir,
    task: TaskManifest,
}

impl Out {
    /// A task whose third cycle is under way.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let blobs = DiskBlobs::open(folder.path().join("blobs")).unwrap();
        let id = task(&blobs);
        let task = read_task(id, &blobs).unwrap();
        let blocks = task.starts.0 + 2 * task.rules.windows.cycle() + 1;
        chain(&folder.path().join("chain"), id, blocks);
        Self { folder, task }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn blob(&self, id: BlobId) -> PathBuf {
        let name = id.to_string();
        self.path("blobs").join(&name[..2]).join(name)
    }

    fn audit(&self) -> Output {
        let (chain, blobs) = (self.path("chain"), self.path("blobs"));
        let arguments = [
            "audit".as_ref(),
            "--json".as_ref(),
            "--chain".as_ref(),
            chain.as_os_str(),
        ];
        let mut command = connito(arguments);
        command.arg("--blobs").arg(blobs).output().unwrap()
    }

    /// The last line on standard error; the command must say that something does not match.
    fn mismatch(&self) -> String {
        let output = self.audit();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{told}");
        let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(printed["mismatch"]["what"].is_string(), "{printed}");
        told.lines().last().unwrap_or_default().to_owned()
    }
}

fn task(blobs: &DiskBlobs) -> BlobId {
    let mut config = ModelConfig {
        hidden_size: 16,
        intermediate_size: 16,
        num_hidden_layers: 2,
        ..ModelConfig::tiny(16)
    };
    config.mixture.width = 8;
    let pool = |token: u32| TokenDocuments::from_sequences((0..4).map(|_| vec![token; 4])).unwrap();
    let domain = DomainText {
        name: "prose".to_owned(),
        group: GroupId(0),
        training: pool(1),
        scoring: pool(2),
        gate: pool(3),
    };
    let plan = TaskPlan {
        name: "toy".to_owned(),
        netuid: Netuid(1),
        starts: Block(10),
        rules: Rules::for_fast_blocks(),
        model: &Model::random(&config, 1),
        tokenizer: b"{}",
        groups: 1,
        tickets: None,
        domains: vec![domain],
    };
    publish(&plan, blobs).unwrap()
}

/// A chain of so many blocks, on which the owner has announced the task.
fn chain(folder: &Path, task: BlobId, blocks: u64) {
    let owner = Keypair::from_seed(&[1; 32]);
    let mut spec = GenesisSpec::new(Netuid(1), owner.hotkey());
    spec.block_time_ms = 50;
    spec.neurons.push(GenesisNeuron {
        hotkey: owner.hotkey(),
        coldkey: None,
        stake_rao: 0,
        validator_permit: false,
    });
    let chain = LocalChain::open(folder, spec).unwrap();
    let announcement = Announcement::Task { task }.encode();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let client = RpcChain::connect(Arc::clone(&chain)).await.unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let making = tokio::spawn(Arc::clone(&chain).run(async move {
            let _ = stopped.await;
        }));
        let operation = Op::Commit(vec![Field::Raw(announcement)]);
        client.submit(&owner, operation).await.unwrap();
        stop.send(()).unwrap();
        making.await.unwrap().unwrap();
    });
    let made = chain.head().number.0;
    chain.advance(blocks.saturating_sub(made)).unwrap();
}

/// Changes one byte, counted from the end where negative.
fn flip(path: &Path, at: i64) {
    let mut bytes = std::fs::read(path).unwrap();
    let length = i64::try_from(bytes.len()).unwrap();
    let at = usize::try_from(if at < 0 { length + at } else { at }).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// What should not happen: that an audit leaves a trace in what it audits.
#[test]
fn an_audit_of_untouched_folders_ends_well_and_changes_nothing() {
    let out = Out::new();
    let listed = || {
        let mut folders = vec![out.folder.path().to_owned()];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                let metadata = entry.metadata().unwrap();
                if metadata.is_dir() {
                    folders.push(entry.path());
                }
                files.push((entry.path(), metadata.modified().unwrap()));
            }
        }
        files.sort();
        files
    };
    let before = listed();
    let output = out.audit();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), told.as_str()), (Some(0), ""));
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed["mismatch"], Value::Null);
    assert_eq!(
        (&printed["cycles"], &printed["states"]),
        (&2.into(), &1.into())
    );
    assert_eq!(
        printed["last_state"],
        out.task.first_state.unwrap().to_string()
    );
    assert_eq!(listed(), before);
}

#[test]
fn a_part_of_the_task_that_was_changed_or_removed_is_named_under_cycle_0() {
    let out = Out::new();
    let backbone = out.task.model.backbone;
    flip(&out.blob(backbone), -1);
    let said = out.mismatch();
    assert!(said.starts_with("connito: cycle 0: the backbone"), "{said}");
    assert!(said.contains(&backbone.to_string()), "{said}");

    let out = Out::new();
    std::fs::remove_file(out.blob(out.task.first_state.unwrap().manifest_blob())).unwrap();
    let said = out.mismatch();
    assert!(
        said.starts_with("connito: cycle 0: state manifest"),
        "{said}"
    );
}

/// What should happen: the cycle whose blocks cannot be believed is named. What should not: that the audit
/// ends before the damage without a word.
#[test]
fn a_damaged_chain_is_named_with_the_cycle_in_which_it_breaks() {
    let out = Out::new();
    let log = out.path("chain").join("blocks.log");
    let length = i64::try_from(std::fs::metadata(&log).unwrap().len()).unwrap();
    // Blocks are of one length here and the cycles two: the last quarter begins in the second.
    flip(&log, length * 3 / 4);
    let said = out.mismatch();
    assert!(
        said.starts_with("connito: cycle 1: ") && said.contains("damaged"),
        "{said}"
    );
    flip(&log, 20);
    let said = out.mismatch();
    assert!(
        said.starts_with("connito: cycle 0: ") && said.contains("blocks.log"),
        "{said}"
    );
}

#[test]
fn a_blob_that_nothing_names_must_be_whole_too() {
    let out = Out::new();
    let stray = DiskBlobs::open(out.path("blobs"))
        .unwrap()
        .put(b"stray")
        .unwrap();
    assert_eq!(out.audit().status.code(), Some(0));
    flip(&out.blob(stray), 0);
    let said = out.mismatch();
    assert!(
        said.starts_with("connito: cycle 2: a blob that no record names"),
        "{said}"
    );
}

#[test]
fn places_that_cannot_be_audited_are_named() {
    let out = Out::new();
    let empty = out.path("empty");
    std::fs::create_dir(&empty).unwrap();
    let (chain, blobs) = (out.path("chain"), out.path("blobs"));
    let text = |path: &Path| path.display().to_string();
    // Bound and let go of: nobody listens there.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    for (chain, blobs, code, named) in [
        (text(&empty), text(&blobs), 2, "holds no chain"),
        (text(&out.path("absent")), text(&blobs), 2, "absent"),
        (text(&chain), text(&out.path("nothing")), 2, "nothing"),
        (nobody.clone(), text(&blobs), 3, "127.0.0.1"),
        (text(&chain), nobody, 3, "127.0.0.1"),
        ("ftp://chain".to_owned(), text(&blobs), 2, "ftp://chain"),
        (text(&chain), "ftp://blobs".to_owned(), 2, "ftp://blobs"),
        (text(&chain), text(&empty), 1, "cycle 0: "),
    ] {
        let output = connito(["audit", "--chain", &chain, "--blobs", &blobs])
            .output()
            .unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{chain} {blobs}: {told}");
        assert!(told.contains(named) && told.lines().count() == 1, "{told}");
        assert_eq!(output.stdout, b"");
    }
}
