//! Someone who was not there: what `connito audit` says of a network's folders, and of changed copies.

use std::path::{Path, PathBuf};
use std::process::Output;

use connito_learning::task::read_state;
use connito_node::blobs::DiskBlobs;
use connito_protocol::ids::BlobId;
use connito_protocol::manifest::StateManifest;
use serde_json::Value;

use super::localnet::REHEARSAL;
use super::{STAGE, connito};

fn audit(out: &Path) -> Output {
    let mut command = connito(["audit", "--json"]);
    command.arg("--chain").arg(out.join("chain"));
    command.arg("--blobs").arg(out.join("blobs"));
    command.output().unwrap()
}

/// The parts of a network's folder that an audit reads, copied to a folder of this name.
fn copy(name: &str) -> PathBuf {
    let to = STAGE.out(name);
    for part in ["chain", "blobs"] {
        copy_folder(&REHEARSAL.out.join(part), &to.join(part));
    }
    to
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.metadata().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn blob(out: &Path, id: BlobId) -> PathBuf {
    let name = id.to_string();
    out.join("blobs").join(&name[..2]).join(name)
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// The state that cycle 1 led to.
fn last_state() -> StateManifest {
    let id = REHEARSAL.summary["final"]["state_hash"].as_str().unwrap();
    let store = DiskBlobs::open(REHEARSAL.out.join("blobs")).unwrap();
    read_state(id.parse().unwrap(), &store).unwrap()
}

#[test]
fn an_audit_recomputes_every_state_of_a_network() {
    let output = audit(&REHEARSAL.out);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}");
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        printed["last_state"],
        REHEARSAL.summary["final"]["state_hash"]
    );
}

/// What should happen: one sentence that names the cycle and the thing. What should not: a pass.
#[test]
fn a_changed_or_removed_blob_is_named_with_its_cycle() {
    let last = last_state();
    let merged = last.merged[0].clone();
    let update = format!("cycle 1: the update of {}", merged.hotkey);
    let group = last.groups.iter().find(|group| group.group == merged.group);
    let shard = group.unwrap().shard;
    let removed = copy("removed-upload");
    std::fs::remove_file(blob(&removed, merged.update)).unwrap();
    let changed = copy("changed-shard");
    flip(&blob(&changed, shard), 4_000);
    let renamed = copy("changed-manifest");
    flip(&blob(&renamed, last.id().manifest_blob()), 200);
    for (out, named) in [
        (removed, update.as_str()),
        (changed, "cycle 1: the shard of group"),
        (renamed, "cycle 1: state manifest"),
    ] {
        let output = audit(&out);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(named), "{told}");
    }
}
