//! `connito audit` over a run that nobody took part in: the owner announces a task, and cycles pass without
//! a submission. What it says of real runs is tested with them; here, of folders that were changed.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use connito_chain::embedded::{EmbeddedChain, GenesisNeuron, GenesisSpec};
use connito_chain::keys::{Keypair, Signer};
use connito_chain::subtensor::{Connection, SubtensorChain};
use connito_chain::{Chain, Field, Op};
use connito_engine::data::documents::TokenDocuments;
use connito_engine::{Model, ModelConfig};
use connito_learning::task::{DomainText, TaskPlan, publish, read_task};
use connito_node::blobs::DiskBlobs;
use connito_node::server::{Limits, chain_router, serve};
use connito_protocol::announcement::Announcement;
use connito_protocol::ids::{BlobId, Block, Cycle, GroupId, Netuid};
use connito_protocol::manifest::{Document, TaskManifest};
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
        Self::announcing(|_, _| Vec::new())
    }

    /// The same, with tasks that the owner announced after it, made from its own.
    fn announcing(others: impl FnOnce(BlobId, &TaskManifest) -> Vec<TaskManifest>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let blobs = DiskBlobs::open(folder.path().join("blobs")).unwrap();
        let id = task(&blobs);
        let task = read_task(id, &blobs).unwrap();
        let blocks = task.starts.0 + 2 * task.rules.windows.cycle() + 1;
        let others = others(id, &task).into_iter();
        let others = others.map(|other| blobs.put(&other.to_bytes()).unwrap());
        let announced: Vec<BlobId> = std::iter::once(id).chain(others).collect();
        chain(&folder.path().join("chain"), &announced, blocks);
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

/// A chain of so many blocks, on which the owner has announced the tasks, one after the other.
fn chain(folder: &Path, tasks: &[BlobId], blocks: u64) {
    make_blocks(EmbeddedChain::open(folder, spec()).unwrap(), tasks, blocks);
}

fn owner() -> Keypair {
    Keypair::from_seed(&[1; 32])
}

fn spec() -> GenesisSpec {
    let owner = owner();
    let mut spec = GenesisSpec::new(Netuid(1), owner.hotkey());
    spec.block_time_ms = 50;
    spec.neurons.push(GenesisNeuron {
        hotkey: owner.hotkey(),
        coldkey: None,
        stake_rao: 0,
        validator_permit: false,
    });
    spec
}

fn make_blocks(chain: Arc<EmbeddedChain>, tasks: &[BlobId], blocks: u64) {
    let owner = owner();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let client = SubtensorChain::connect(Arc::clone(&chain), Connection::default())
            .await
            .unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let making = tokio::spawn(Arc::clone(&chain).run(async move {
            let _ = stopped.await;
        }));
        for task in tasks {
            let announcement = Announcement::Task { task: *task }.encode();
            let operation = Op::Commit(vec![Field::Raw(announcement)]);
            client.submit(&owner, operation).await.unwrap();
        }
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
        ("http://".to_owned(), text(&blobs), 2, "http://"),
        (text(&chain), "http://".to_owned(), 2, "http://"),
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

/// Roles say a sentence about such a task and go on with the one before; so does an audit.
#[test]
fn an_announced_task_that_no_role_works_on_is_left_alone() {
    type Change = fn(&mut TaskManifest);
    let changes: [Change; 6] = [
        |task| task.rules.selection.sequences = 0,
        |task| task.starts = task.starts.next(),
        |task| task.starts = Block(u64::MAX),
        |task| task.netuid = Netuid(2),
        |task| task.follows = Some(BlobId([1; 32])),
        // Sound, and nobody voted for it.
        |_| {},
    ];
    let out = Out::announcing(|id, first| {
        let next = |change: &Change| {
            let mut next = TaskManifest {
                follows: Some(id),
                starts: Block(first.starts.0 + first.rules.windows.cycle()),
                first_cycle: Cycle(1),
                first_state: None,
                ..first.clone()
            };
            change(&mut next);
            next
        };
        changes.iter().map(next).collect()
    });
    let output = out.audit();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), told.as_str()), (Some(0), ""));
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed["cycles"], 2);
}

/// What should not happen: a panic over numbers at the end of their range, or a pass.
#[test]
fn a_task_that_cannot_be_worked_on_is_a_mismatch() {
    type Change = fn(&mut TaskManifest);
    let changes: [(&str, Change); 3] = [
        ("at most", |task| task.starts = Block(u64::MAX)),
        ("at most", |task| task.starts = Block(u64::MAX - 40)),
        ("subnet 2", |task| task.netuid = Netuid(2)),
    ];
    for (named, change) in changes {
        let folder = tempfile::tempdir().unwrap();
        let blobs = DiskBlobs::open(folder.path().join("blobs")).unwrap();
        let mut task = read_task(task(&blobs), &blobs).unwrap();
        change(&mut task);
        let id = blobs.put(&task.to_bytes()).unwrap();
        chain(&folder.path().join("chain"), &[id], 60);
        let said = Out { folder, task }.mismatch();
        let expected = "connito: cycle 0: the task cannot be worked on";
        assert!(said.starts_with(expected) && said.contains(named), "{said}");
    }
}

/// What should not happen: an audit that waits for whoever might write to it.
#[cfg(unix)]
#[test]
fn a_pipe_among_the_blobs_is_no_blob() {
    let out = Out::new();
    let backbone = out.blob(out.task.model.backbone);
    std::fs::remove_file(&backbone).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&backbone).status();
    assert!(made.unwrap().success());
    let said = out.mismatch();
    assert!(said.contains("not an ordinary file"), "{said}");
}

/// Answers one request after the other, each with what `answer` says of its path, and closes.
fn server(answer: impl Fn(&str) -> String + Send + 'static) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let read = stream.read(&mut request).unwrap();
            let request = String::from_utf8_lossy(&request[..read]).into_owned();
            let path = request.split(' ').nth(1).unwrap_or_default();
            let _ = stream.write_all(answer(path).as_bytes());
        }
    });
    address
}

/// What should happen: whose fault it is. A server that does not answer is no sign that anything was
/// changed; one that lacks what it must have, or has other bytes, is.
#[test]
fn a_server_that_does_not_answer_is_no_mismatch() {
    let out = Out::new();
    let chain = out.path("chain").display().to_string();
    let health =
        r#"{"role":"validator","hotkey":null,"block":1,"cycle":0,"state":null,"version":"0"}"#;
    let answers: [(u8, &str, &str); 4] = [
        (3, "HTTP/1.1 500 -\r\ncontent-length: 0\r\n", "status 500"),
        (3, "", "no answer from http://127.0.0.1"),
        (
            1,
            "HTTP/1.1 404 -\r\ncontent-length: 0\r\n",
            "on none of 1 sources",
        ),
        (1, "HTTP/1.1 200 -\r\ncontent-length: 0\r\n", "other bytes"),
    ];
    for (code, answer, named) in answers {
        let blobs = server(move |path| match path {
            "/v1/health" => {
                let length = health.len();
                format!(
                    "HTTP/1.1 200 -\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{health}"
                )
            }
            _ if answer.is_empty() => String::new(),
            _ => format!("{answer}connection: close\r\n\r\n"),
        });
        let output = connito(["audit", "--chain", &chain, "--blobs", &blobs]);
        let output = { output }.output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(i32::from(code)), "{told}");
        assert!(told.contains(named) && told.contains("blob "), "{told}");
    }
}

/// Cycles passed and nothing was decided until the chain had forgotten the first of them. What should not
/// happen: a mismatch, for nothing is known to be other than it was.
#[test]
fn a_chain_that_has_forgotten_how_it_began_is_no_mismatch() {
    let out = Out::new();
    let bytes = out.task.to_bytes();
    let chain = EmbeddedChain::in_memory(spec()).unwrap();
    make_blocks(Arc::clone(&chain), &[BlobId::of(&bytes)], 2_600);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0");
    let listener = runtime.block_on(listener).unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let limits = Limits::default();
    let router = chain_router(chain, &limits);
    runtime.spawn(serve(listener, router, limits, std::future::pending()));
    let blobs = out.path("blobs").display().to_string();
    let output = connito(["audit", "--chain", &address, "--blobs", &blobs]);
    let output = { output }.output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.contains("audit the chain's folder"), "{told}");
}
