//! A merge: not more for fifty updates than for two, and in no case a shard and a half.

use std::collections::BTreeMap;
use std::sync::Arc;

use connito_engine::Tensor;
use connito_learning::shard::{Layout, Shard};
use connito_learning::store::{Blob, BlobSink, BlobStore, HashSink, StoreError};
use connito_learning::succession::Succession;
use connito_learning::wire::encode;
use connito_protocol::ids::{BlobId, GroupId};
use connito_protocol::manifest::GroupState;
use connito_protocol::rules::{Codec, Rules};

use super::{alone, most_held};

/// A store that lends what it holds and only names what is written.
#[derive(Default)]
struct Lending(BTreeMap<BlobId, Arc<Vec<u8>>>);

impl Lending {
    fn keep(&mut self, bytes: Vec<u8>) -> BlobId {
        let id = BlobId::of(&bytes);
        self.0.insert(id, Arc::new(bytes));
        id
    }
}

impl BlobStore for Lending {
    fn has(&self, id: BlobId) -> bool {
        self.0.contains_key(&id)
    }

    fn read(&self, id: BlobId) -> Result<Vec<u8>, StoreError> {
        self.open(id).map(|blob| blob.to_vec())
    }

    fn open(&self, id: BlobId) -> Result<Blob, StoreError> {
        let held = self.0.get(&id).cloned();
        held.map(Blob::from)
            .ok_or_else(|| StoreError(format!("{id} is not here")))
    }

    fn write(&self, bytes: &[u8]) -> Result<BlobId, StoreError> {
        Ok(BlobId::of(bytes))
    }

    fn create(&self) -> Result<Box<dyn BlobSink + '_>, StoreError> {
        Ok(Box::<HashSink>::default())
    }
}

fn shard(layout: &Layout, value: f32) -> Shard {
    let tensor = |shape: &Vec<usize>| Tensor {
        shape: shape.clone(),
        values: vec![value; shape.iter().product()],
    };
    Shard(
        layout
            .iter()
            .map(|(name, shape)| (name.clone(), tensor(shape)))
            .collect(),
    )
}

/// The most that a merge of so many updates had allocated at once, beyond its inputs.
fn held_while_merging(updates: usize, layout: &Layout) -> usize {
    let mut store = Lending::default();
    let parameters = encode(&shard(layout, 1.0), Codec::F32);
    let before = GroupState {
        group: GroupId(0),
        bytes: parameters.len() as u64,
        shard: store.keep(parameters),
        momentum: Some(store.keep(encode(&shard(layout, 0.5), Codec::F32))),
        reference_norm: Some(1.0),
    };
    let accepted: Vec<(BlobId, f64)> = (0..updates)
        .map(|number| {
            let update = shard(layout, 0.001 * (number + 1) as f32);
            (store.keep(encode(&update, Codec::Bf16)), 0.01)
        })
        .collect();
    let rules = Rules::default().outer;
    let succession = Succession {
        store: &store,
        layout,
        rules: &rules,
    };
    most_held(|| succession.merged(&before, &accepted).unwrap())
}

/// Sixteen tensors of 1 MiB each in f32. What should not happen: memory that grows with the updates'
/// values; their names and places are all that adds up.
#[test]
fn however_many_updates_are_merged_memory_stays_below_a_shard_and_a_half() {
    let _alone = alone();
    let layout: Layout = (0..16)
        .map(|tensor| (format!("experts.{tensor}.all.weight"), vec![512, 512]))
        .collect();
    let shard_bytes = 16 * 512 * 512 * 4;
    // Once before: threads and their stacks are started by the first.
    held_while_merging(1, &layout);
    let (few, many) = (
        held_while_merging(2, &layout),
        held_while_merging(50, &layout),
    );
    assert!(many * 2 < shard_bytes * 3, "{many} bytes for 50 updates");
    assert!(
        many < few + shard_bytes / 16,
        "{few} bytes for 2 updates, {many} for 50"
    );
}
