//! The embedded chain's state at one block, and its digest.
//!
//! The state is a few sections. A section is shared between blocks until an operation touches it
//! (copy on write down to the single record), and keeps its digest until then, so an idle block
//! costs a handful of pointers. The state digest hashes the sections' digests in a fixed order.
//! Which changes are allowed is decided in `rules.rs` and `epoch.rs`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use connito_protocol::ids::{Block, Hotkey, Uid};

use super::genesis::GenesisSpec;
use crate::chain::{CommitmentRecord, EpochState, Metagraph, Neuron, WeightRow};
use crate::codec::{put_bytes, put_count};
use crate::envelope::blake2_256;
use crate::fields;

/// Everything the chain knows after one block.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) spec: Arc<GenesisSpec>,
    spec_digest: [u8; 32],
    pub(super) epoch: EpochState,
    /// In the order of uids.
    pub(super) neurons: Section<Vec<Arc<Neuron>>>,
    pub(super) commitments: Section<BTreeMap<Hotkey, Arc<CommitmentRecord>>>,
    /// By the uid of the validator that set them.
    pub(super) weights: Section<BTreeMap<Uid, Row>>,
    /// The next nonce of every account that has ever sent an operation.
    pub(super) nonces: Section<BTreeMap<Hotkey, u64>>,
    pub(super) space: Section<BTreeMap<Hotkey, UsedSpace>>,
}

/// One validator's weights.
pub(super) type Row = Arc<Vec<(Uid, u16)>>;

/// Commitment bytes that one hotkey wrote in one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UsedSpace {
    pub(super) epoch: u64,
    pub(super) bytes: u64,
}

impl State {
    /// The state at block 0.
    pub(super) fn genesis(spec: Arc<GenesisSpec>) -> Self {
        Self {
            spec_digest: spec.digest(),
            epoch: EpochState {
                tempo: spec.tempo,
                last_epoch_block: Block(0),
                index: 0,
                next_epoch_block: Some(Block(spec.tempo.into())),
            },
            neurons: Section::new(spec.first_neurons().map(Arc::new).collect()),
            commitments: Section::new(BTreeMap::new()),
            weights: Section::new(BTreeMap::new()),
            nonces: Section::new(BTreeMap::new()),
            space: Section::new(BTreeMap::new()),
            spec,
        }
    }

    /// Hashes what has changed, and the whole.
    pub(super) fn digest(&mut self) -> [u8; 32] {
        let mut whole = self.spec_digest.to_vec();
        whole.extend_from_slice(&self.epoch.last_epoch_block.0.to_le_bytes());
        whole.extend_from_slice(&self.epoch.index.to_le_bytes());
        whole.extend_from_slice(&self.neurons.digest(put_neurons));
        whole.extend_from_slice(&self.commitments.digest(put_commitments));
        whole.extend_from_slice(&self.weights.digest(put_weights));
        whole.extend_from_slice(&self.nonces.digest(put_nonces));
        whole.extend_from_slice(&self.space.digest(put_space));
        blake2_256(&whole)
    }

    pub(super) fn neuron(&self, hotkey: Hotkey) -> Option<&Neuron> {
        self.neurons
            .get()
            .iter()
            .find(|neuron| neuron.hotkey == hotkey)
            .map(AsRef::as_ref)
    }

    /// The neuron in a slot, for changing. The slot exists.
    pub(super) fn neuron_mut(&mut self, uid: Uid) -> &mut Neuron {
        Arc::make_mut(&mut self.neurons.edit()[usize::from(uid.0)])
    }

    /// The next nonce of an account.
    pub(super) fn nonce(&self, account: Hotkey) -> u64 {
        self.nonces.get().get(&account).copied().unwrap_or(0)
    }

    /// Commitment bytes this hotkey has written in the current epoch.
    pub(super) fn used_space(&self, hotkey: Hotkey) -> u64 {
        let used = self.space.get().get(&hotkey);
        used.filter(|used| used.epoch == self.epoch.index)
            .map_or(0, |used| used.bytes)
    }

    pub(super) fn metagraph(&self) -> Metagraph {
        Metagraph {
            netuid: self.spec.netuid,
            owner: Some(self.spec.owner),
            neurons: self
                .neurons
                .get()
                .iter()
                .map(|neuron| (**neuron).clone())
                .collect(),
            params: self.spec.params(),
            epoch: self.epoch,
        }
    }

    pub(super) fn commitment_records(&self) -> Vec<CommitmentRecord> {
        self.commitments
            .get()
            .values()
            .map(|record| (**record).clone())
            .collect()
    }

    pub(super) fn weight_rows(&self) -> Vec<WeightRow> {
        let neurons = self.neurons.get();
        let row = |(uid, weights): (&Uid, &Row)| {
            let validator = neurons.get(usize::from(uid.0))?.hotkey;
            Some(WeightRow {
                validator,
                weights: (**weights).clone(),
            })
        };
        self.weights.get().iter().filter_map(row).collect()
    }
}

/// A part of the state, shared until it is changed, with its digest until then.
#[derive(Debug, Clone)]
pub(super) struct Section<T> {
    value: Arc<T>,
    digest: Option<[u8; 32]>,
}

impl<T: Clone> Section<T> {
    fn new(value: T) -> Self {
        Self {
            value: Arc::new(value),
            digest: None,
        }
    }

    pub(super) fn get(&self) -> &T {
        &self.value
    }

    pub(super) fn edit(&mut self) -> &mut T {
        self.digest = None;
        Arc::make_mut(&mut self.value)
    }

    fn digest(&mut self, put: fn(&mut Vec<u8>, &T)) -> [u8; 32] {
        *self.digest.get_or_insert_with(|| {
            let mut bytes = Vec::new();
            put(&mut bytes, &self.value);
            blake2_256(&bytes)
        })
    }
}

fn put_neurons(out: &mut Vec<u8>, neurons: &Vec<Arc<Neuron>>) {
    put_count(out, neurons.len());
    for neuron in neurons {
        out.extend_from_slice(&neuron.uid.0.to_le_bytes());
        out.extend_from_slice(&neuron.hotkey.0);
        out.extend_from_slice(&neuron.coldkey.0);
        out.extend_from_slice(&neuron.registered_at.0.to_le_bytes());
        let endpoint = neuron.endpoint.map_or_else(Vec::new, |endpoint| {
            let mut bytes = match endpoint.ip {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            bytes.extend_from_slice(&endpoint.port.to_le_bytes());
            bytes
        });
        put_bytes(out, &endpoint);
        out.extend_from_slice(&neuron.served_at.0.to_le_bytes());
        out.extend_from_slice(&[neuron.validator_permit.into(), neuron.active.into()]);
        out.extend_from_slice(&neuron.stake_rao.to_le_bytes());
        out.extend_from_slice(&neuron.last_update.0.to_le_bytes());
        out.extend_from_slice(&neuron.incentive.to_le_bytes());
    }
}

fn put_commitments(out: &mut Vec<u8>, records: &BTreeMap<Hotkey, Arc<CommitmentRecord>>) {
    put_count(out, records.len());
    for record in records.values() {
        out.extend_from_slice(&record.hotkey.0);
        out.extend_from_slice(&record.block.0.to_le_bytes());
        out.extend_from_slice(&record.index.to_le_bytes());
        fields::encode(&record.fields, out);
    }
}

fn put_weights(out: &mut Vec<u8>, rows: &BTreeMap<Uid, Row>) {
    put_count(out, rows.len());
    for (validator, row) in rows {
        out.extend_from_slice(&validator.0.to_le_bytes());
        put_count(out, row.len());
        for (uid, weight) in row.iter() {
            out.extend_from_slice(&uid.0.to_le_bytes());
            out.extend_from_slice(&weight.to_le_bytes());
        }
    }
}

fn put_nonces(out: &mut Vec<u8>, nonces: &BTreeMap<Hotkey, u64>) {
    put_count(out, nonces.len());
    for (account, nonce) in nonces {
        out.extend_from_slice(&account.0);
        out.extend_from_slice(&nonce.to_le_bytes());
    }
}

fn put_space(out: &mut Vec<u8>, space: &BTreeMap<Hotkey, UsedSpace>) {
    put_count(out, space.len());
    for (hotkey, used) in space {
        out.extend_from_slice(&hotkey.0);
        out.extend_from_slice(&used.epoch.to_le_bytes());
        out.extend_from_slice(&used.bytes.to_le_bytes());
    }
}
