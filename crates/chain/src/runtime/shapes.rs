//! The calls and storage items that the adapter uses, with the layouts it was written for.
//!
//! Names find a call whatever its number, but a name says nothing about meaning: an argument that
//! turns from a count of blocks into a count of epochs keeps its name and, if care was taken, changes
//! its type. So a call or item whose layout is not the expected one is not used. Newtypes are seen
//! through (see `types.rs`), so `NetUid(u16)` still is `u16`; enums may grow (see `layout.rs`).
//!
//! Layouts are those of the main network since spec 365. They are written as `layout.rs` writes them:
//! a call as its arguments, an item as its keys, `->` and its value.

use std::fmt;

use super::layout::{Layout, MAX_DEPTH};
use super::metadata::{Metadata, StorageItem};
use super::types::{Types, Variant};

/// What kind of thing has a shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemKind {
    /// A call.
    Call,
    /// A storage item.
    Storage,
}

/// Something that the adapter uses, as it was written for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsedItem {
    /// Call or storage item.
    pub kind: ItemKind,
    /// The pallet.
    pub pallet: &'static str,
    /// The call's or item's name.
    pub name: &'static str,
    /// Its layout, as error messages show it.
    pub layout: &'static str,
}

/// Everything that the adapter uses.
pub fn used_items() -> impl Iterator<Item = UsedItem> {
    let used = |kind| {
        move |&(pallet, name, layout): &Shape| UsedItem {
            kind,
            pallet,
            name,
            layout,
        }
    };
    let calls = CALLS.iter().map(used(ItemKind::Call));
    calls.chain(STORAGE.iter().map(used(ItemKind::Storage)))
}

/// Something that the adapter uses and the runtime does not have, or has differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// What is used, with the layout that is understood.
    pub used: UsedItem,
    /// The layout it has; none if it is absent.
    pub found: Option<String>,
}

impl Misfit {
    /// What is wrong, without the name.
    #[must_use]
    pub fn detail(&self) -> String {
        match &self.found {
            Some(found) => format!("it is {found}, {} is understood", self.used.layout),
            None => "the runtime does not have it".to_owned(),
        }
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{}: {}",
            self.used.pallet,
            self.used.name,
            self.detail()
        )
    }
}

/// Pallet, name, layout.
type Shape = (&'static str, &'static str, &'static str);

const MODULE: &str = "SubtensorModule";
const COMMITMENTS: &str = "Commitments";
const ADMIN: &str = "AdminUtils";
const DRAND: &str = "Drand";

const COMMITMENT: &str = "{netuid: u16, info: {fields: [<Raw0([u8; 0]), Raw1([u8; 1]), \
     Raw128([u8; 128]), BlakeTwo256([u8; 32]), Sha256([u8; 32]), Keccak256([u8; 32]), \
     ShaThree256([u8; 32]), TimelockEncrypted{encrypted: [u8], reveal_round: u64}, ResetBondsFlag, \
     BigRaw([u8])>]}}";

const CALLS: &[Shape] = &[
    (
        MODULE,
        "set_weights",
        "{netuid: u16, dests: [u16], weights: [u16], version_key: u64}",
    ),
    (
        MODULE,
        "set_mechanism_weights",
        "{netuid: u16, mecid: u8, dests: [u16], weights: [u16], version_key: u64}",
    ),
    (
        MODULE,
        "commit_weights",
        "{netuid: u16, commit_hash: [u8; 32]}",
    ),
    (
        MODULE,
        "reveal_weights",
        "{netuid: u16, uids: [u16], values: [u16], salt: [u16], version_key: u64}",
    ),
    (
        MODULE,
        "commit_mechanism_weights",
        "{netuid: u16, mecid: u8, commit_hash: [u8; 32]}",
    ),
    (
        MODULE,
        "reveal_mechanism_weights",
        "{netuid: u16, mecid: u8, uids: [u16], values: [u16], salt: [u16], version_key: u64}",
    ),
    (
        MODULE,
        "commit_timelocked_weights",
        "{netuid: u16, commit: [u8], reveal_round: u64, commit_reveal_version: u16}",
    ),
    (
        MODULE,
        "commit_timelocked_mechanism_weights",
        "{netuid: u16, mecid: u8, commit: [u8], reveal_round: u64, commit_reveal_version: u16}",
    ),
    (
        MODULE,
        "serve_axon",
        "{netuid: u16, version: u32, ip: u128, port: u16, ip_type: u8, protocol: u8, \
         placeholder1: u8, placeholder2: u8}",
    ),
    (
        MODULE,
        "serve_axon_tls",
        "{netuid: u16, version: u32, ip: u128, port: u16, ip_type: u8, protocol: u8, \
         placeholder1: u8, placeholder2: u8, certificate: [u8]}",
    ),
    (MODULE, "burned_register", "{netuid: u16, hotkey: [u8; 32]}"),
    (
        MODULE,
        "register_limit",
        "{netuid: u16, hotkey: [u8; 32], limit_price: u64}",
    ),
    (MODULE, "register_network", "{hotkey: [u8; 32]}"),
    (MODULE, "start_call", "{netuid: u16}"),
    (MODULE, "set_tempo", "{netuid: u16, tempo: u16}"),
    (MODULE, "trigger_epoch", "{netuid: u16}"),
    (
        MODULE,
        "add_stake",
        "{hotkey: [u8; 32], netuid: u16, amount_staked: u64}",
    ),
    (COMMITMENTS, "set_commitment", COMMITMENT),
    (
        "Balances",
        "transfer_keep_alive",
        "{dest: <Id([u8; 32])>, value: compact u64}",
    ),
    (
        ADMIN,
        "sudo_set_serving_rate_limit",
        "{netuid: u16, serving_rate_limit: u64}",
    ),
    (
        ADMIN,
        "sudo_set_weights_version_key",
        "{netuid: u16, weights_version_key: u64}",
    ),
    (
        ADMIN,
        "sudo_set_weights_set_rate_limit",
        "{netuid: u16, weights_set_rate_limit: u64}",
    ),
    (
        ADMIN,
        "sudo_set_immunity_period",
        "{netuid: u16, immunity_period: u16}",
    ),
    (
        ADMIN,
        "sudo_set_min_allowed_weights",
        "{netuid: u16, min_allowed_weights: u16}",
    ),
    (
        ADMIN,
        "sudo_set_max_allowed_uids",
        "{netuid: u16, max_allowed_uids: u16}",
    ),
    (ADMIN, "sudo_set_min_burn", "{netuid: u16, min_burn: u64}"),
    (ADMIN, "sudo_set_max_burn", "{netuid: u16, max_burn: u64}"),
    (
        ADMIN,
        "sudo_set_max_allowed_validators",
        "{netuid: u16, max_allowed_validators: u16}",
    ),
    (ADMIN, "sudo_set_tempo", "{netuid: u16, tempo: u16}"),
    (
        ADMIN,
        "sudo_set_commit_reveal_weights_enabled",
        "{netuid: u16, enabled: bool}",
    ),
    (
        ADMIN,
        "sudo_set_commit_reveal_weights_interval",
        "{netuid: u16, interval: u64}",
    ),
    (
        ADMIN,
        "sudo_set_activity_cutoff_factor",
        "{netuid: u16, factor_milli: u32}",
    ),
];

const STORAGE: &[Shape] = &[
    ("System", "Number", "-> u32"),
    ("System", "BlockHash", "u32 -> [u8; 32]"),
    (
        "System",
        "Account",
        "[u8; 32] -> {nonce: u32, consumers: u32, providers: u32, sufficients: u32, \
         data: {free: u64, reserved: u64, frozen: u64, flags: u128}}",
    ),
    (
        "System",
        "Events",
        "-> [{phase: <ApplyExtrinsic(u32)>, event: <>, topics: [[u8; 32]]}]",
    ),
    ("Timestamp", "Now", "-> u64"),
    (MODULE, "Tempo", "u16 -> u16"),
    (MODULE, "LastEpochBlock", "u16 -> u64"),
    (MODULE, "PendingEpochAt", "u16 -> u64"),
    (MODULE, "SubnetEpochIndex", "u16 -> u64"),
    (MODULE, "BlocksSinceLastStep", "u16 -> u64"),
    (MODULE, "SubnetworkN", "u16 -> u16"),
    (MODULE, "NetworksAdded", "u16 -> bool"),
    (MODULE, "Uids", "u16, [u8; 32] -> u16"),
    (MODULE, "Keys", "u16, u16 -> [u8; 32]"),
    (MODULE, "Owner", "[u8; 32] -> [u8; 32]"),
    (
        MODULE,
        "Axons",
        "u16, [u8; 32] -> {block: u64, version: u32, ip: u128, port: u16, ip_type: u8, \
         protocol: u8, placeholder1: u8, placeholder2: u8}",
    ),
    (MODULE, "Active", "u16 -> [bool]"),
    (MODULE, "ValidatorPermit", "u16 -> [bool]"),
    (MODULE, "LastUpdate", "u16 -> [u64]"),
    (MODULE, "Incentive", "u16 -> [u16]"),
    (MODULE, "Emission", "u16 -> [u64]"),
    (MODULE, "Weights", "u16, u16 -> [(u16, u16)]"),
    (MODULE, "BlockAtRegistration", "u16, u16 -> u64"),
    (MODULE, "TotalHotkeyAlpha", "[u8; 32], u16 -> u64"),
    (
        MODULE,
        "TotalHotkeySharesV2",
        "[u8; 32], u16 -> {mantissa: u128, exponent: i64}",
    ),
    (
        MODULE,
        "AlphaV2",
        "[u8; 32], [u8; 32], u16 -> {mantissa: u128, exponent: i64}",
    ),
    (MODULE, "WeightsSetRateLimit", "u16 -> u64"),
    (MODULE, "MinAllowedWeights", "u16 -> u16"),
    (MODULE, "MaxWeightsLimit", "u16 -> u16"),
    (MODULE, "WeightsVersionKey", "u16 -> u64"),
    (MODULE, "ServingRateLimit", "u16 -> u64"),
    (MODULE, "ImmunityPeriod", "u16 -> u16"),
    (MODULE, "MaxAllowedUids", "u16 -> u16"),
    (MODULE, "MaxAllowedValidators", "u16 -> u16"),
    (MODULE, "ActivityCutoffFactorMilli", "u16 -> u32"),
    (MODULE, "CommitRevealWeightsEnabled", "u16 -> bool"),
    (MODULE, "RevealPeriodEpochs", "u16 -> u64"),
    (MODULE, "CommitRevealWeightsVersion", "-> u16"),
    (MODULE, "StakeThreshold", "-> u64"),
    (
        MODULE,
        "WeightCommits",
        "u16, [u8; 32] -> [([u8; 32], u64, u64, u64)]",
    ),
    (
        MODULE,
        "TimelockedWeightCommits",
        "u16, u64 -> [([u8; 32], u64, [u8], u64)]",
    ),
    (MODULE, "Burn", "u16 -> u64"),
    (MODULE, "SubnetOwner", "u16 -> [u8; 32]"),
    (MODULE, "SubnetOwnerHotkey", "u16 -> [u8; 32]"),
    (MODULE, "MechanismCountCurrent", "u16 -> u8"),
    (
        COMMITMENTS,
        "CommitmentOf",
        "u16, [u8; 32] -> {deposit: u64, block: u32, info: {fields: [<Raw0([u8; 0]), \
         Raw1([u8; 1]), Raw128([u8; 128]), BlakeTwo256([u8; 32]), Sha256([u8; 32]), \
         Keccak256([u8; 32]), ShaThree256([u8; 32]), TimelockEncrypted{encrypted: [u8], \
         reveal_round: u64}, ResetBondsFlag, BigRaw([u8])>]}}",
    ),
    (COMMITMENTS, "LastCommitment", "u16, [u8; 32] -> u32"),
    (
        COMMITMENTS,
        "RevealedCommitments",
        "u16, [u8; 32] -> [([u8], u64)]",
    ),
    (
        COMMITMENTS,
        "UsedSpaceOf",
        "u16, [u8; 32] -> {last_epoch: u64, used_space: u64}",
    ),
    (COMMITMENTS, "MaxSpace", "-> u32"),
    (COMMITMENTS, "TimelockedIndex", "-> [(u16, [u8; 32])]"),
    (
        DRAND,
        "Pulses",
        "u64 -> {round: u64, randomness: [u8], signature: [u8]}",
    ),
    (DRAND, "LastStoredRound", "-> u64"),
    (DRAND, "OldestStoredRound", "-> u64"),
    (
        DRAND,
        "BeaconConfig",
        "-> {public_key: [u8], period: u32, genesis_time: u32, hash: [u8], group_hash: [u8], \
         scheme_id: [u8], metadata: {beacon_id: [u8]}}",
    ),
];

/// Everything that is used and that `metadata` does not have as it was when this was written.
pub(super) fn misfits(metadata: &Metadata) -> Vec<Misfit> {
    let types = &metadata.types;
    let misfit = |used: UsedItem| {
        let pallet = metadata.pallets.get(used.pallet);
        let found = match used.kind {
            ItemKind::Call => pallet
                .and_then(|pallet| pallet.call(types, used.name))
                .map(|call| arguments(types, call, used.layout)),
            ItemKind::Storage => pallet
                .and_then(|pallet| pallet.storage.get(used.name))
                .map(|item| keys_and_value(types, item, used.layout)),
        };
        (found.as_deref() != Some(used.layout)).then_some(Misfit { used, found })
    };
    used_items().filter_map(misfit).collect()
}

fn arguments(types: &Types, call: &Variant, expected: &str) -> String {
    let mut layout = Layout::like(types, expected);
    layout.fields(&call.fields, MAX_DEPTH);
    layout.out
}

fn keys_and_value(types: &Types, item: &StorageItem, expected: &str) -> String {
    let mut layout = Layout::like(types, expected);
    for (place, (_, key)) in item.keys.iter().enumerate() {
        layout.out.push_str(if place > 0 { ", " } else { "" });
        layout.value(*key, MAX_DEPTH);
    }
    layout
        .out
        .push_str(if item.keys.is_empty() { "-> " } else { " -> " });
    layout.value(item.value, MAX_DEPTH);
    layout.out
}
