//! The calls that the embedded chain carries out, in the bytes of spec 461.
//!
//! Indices and argument types are the runtime's; a call it has and we do not is undecodable here, as one
//! that nobody has. What the calls do is the pallets' business.

use parity_scale_codec::{Compact, Decode, DecodeLimit as _, Encode, Error};

use super::data::{Bounded, CommitmentInfo};
use super::storage::AccountId;

/// Bytes in one sealed setting of weights.
pub(super) const MAX_SEALED_WEIGHTS: usize = 5_000;

/// Levels of lists in one call: calls carry calls, and nobody nests them deeper than once or twice.
const MAX_DEPTH: u32 = 16;

/// A call with its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) enum Call {
    #[codec(index = 5)]
    Balances(Balances),
    #[codec(index = 7)]
    Subtensor(Subtensor),
    #[codec(index = 11)]
    Utility(Utility),
    #[codec(index = 18)]
    Commitments(Commitments),
    #[codec(index = 19)]
    AdminUtils(AdminUtils),
}

impl Call {
    /// Reads a call; every byte must belong to it.
    ///
    /// # Errors
    /// A pallet, call or argument that is not carried out here, calls nested too deep, or bytes left over.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        Self::decode_all_with_depth_limit(MAX_DEPTH, &mut &*bytes)
    }
}

/// Whom a transfer goes to. The runtime knows other kinds of address and looks none of them up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) enum Address {
    #[codec(index = 0)]
    Id(AccountId),
}

/// Calls of the pallet that keeps balances.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) enum Balances {
    #[codec(index = 0)]
    TransferAllowDeath { dest: Address, value: Compact<u64> },
    #[codec(index = 3)]
    TransferKeepAlive { dest: Address, value: Compact<u64> },
}

/// Uids and weights in the same order.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Weights {
    pub(super) uids: Vec<u16>,
    pub(super) values: Vec<u16>,
}

/// What opens a hashed setting of weights.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Opening {
    pub(super) weights: Weights,
    pub(super) salt: Vec<u16>,
    pub(super) version_key: u64,
}

/// A sealed setting of weights.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Seal {
    pub(super) commit: Bounded<MAX_SEALED_WEIGHTS>,
    pub(super) reveal_round: u64,
    pub(super) commit_reveal_version: u16,
}

/// Where a neuron can be reached, as it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct Axon {
    pub(super) version: u32,
    pub(super) ip: u128,
    pub(super) port: u16,
    pub(super) ip_type: u8,
    pub(super) protocol: u8,
    pub(super) placeholder1: u8,
    pub(super) placeholder2: u8,
}

/// Calls of the pallet that keeps subnets.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) enum Subtensor {
    #[codec(index = 0)]
    SetWeights {
        netuid: u16,
        weights: Weights,
        version_key: u64,
    },
    #[codec(index = 119)]
    SetMechanismWeights {
        netuid: u16,
        mecid: u8,
        weights: Weights,
        version_key: u64,
    },
    #[codec(index = 96)]
    CommitWeights { netuid: u16, commit_hash: [u8; 32] },
    #[codec(index = 115)]
    CommitMechanismWeights {
        netuid: u16,
        mecid: u8,
        commit_hash: [u8; 32],
    },
    #[codec(index = 97)]
    RevealWeights { netuid: u16, opening: Opening },
    #[codec(index = 116)]
    RevealMechanismWeights {
        netuid: u16,
        mecid: u8,
        opening: Opening,
    },
    #[codec(index = 113)]
    CommitTimelockedWeights { netuid: u16, seal: Seal },
    #[codec(index = 118)]
    CommitTimelockedMechanismWeights { netuid: u16, mecid: u8, seal: Seal },
    #[codec(index = 2)]
    AddStake {
        hotkey: AccountId,
        netuid: u16,
        amount_staked: u64,
    },
    #[codec(index = 3)]
    RemoveStake {
        hotkey: AccountId,
        netuid: u16,
        amount_unstaked: u64,
    },
    #[codec(index = 88)]
    AddStakeLimit {
        hotkey: AccountId,
        netuid: u16,
        amount_staked: u64,
        limit_price: u64,
        allow_partial: bool,
    },
    #[codec(index = 89)]
    RemoveStakeLimit {
        hotkey: AccountId,
        netuid: u16,
        amount_unstaked: u64,
        limit_price: u64,
        allow_partial: bool,
    },
    #[codec(index = 4)]
    ServeAxon { netuid: u16, axon: Axon },
    #[codec(index = 40)]
    ServeAxonTls {
        netuid: u16,
        axon: Axon,
        certificate: Vec<u8>,
    },
    #[codec(index = 7)]
    BurnedRegister { netuid: u16, hotkey: AccountId },
    #[codec(index = 134)]
    RegisterLimit {
        netuid: u16,
        hotkey: AccountId,
        limit_price: u64,
    },
    #[codec(index = 59)]
    RegisterNetwork { hotkey: AccountId },
    #[codec(index = 92)]
    StartCall { netuid: u16 },
    #[codec(index = 139)]
    SetTempo { netuid: u16, tempo: u16 },
    #[codec(index = 140)]
    SetActivityCutoffFactor { netuid: u16, factor_milli: u32 },
    #[codec(index = 141)]
    TriggerEpoch { netuid: u16 },
}

/// Calls that carry others.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) enum Utility {
    #[codec(index = 0)]
    Batch { calls: Vec<Call> },
    #[codec(index = 2)]
    BatchAll { calls: Vec<Call> },
    #[codec(index = 4)]
    ForceBatch { calls: Vec<Call> },
}

/// Calls of the pallet that keeps commitments.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) enum Commitments {
    #[codec(index = 0)]
    SetCommitment { netuid: u16, info: CommitmentInfo },
}

/// Calls that set hyperparameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) enum AdminUtils {
    #[codec(index = 3)]
    ServingRateLimit { netuid: u16, value: u64 },
    #[codec(index = 6)]
    WeightsVersionKey { netuid: u16, value: u64 },
    #[codec(index = 7)]
    WeightsSetRateLimit { netuid: u16, value: u64 },
    #[codec(index = 13)]
    ImmunityPeriod { netuid: u16, value: u16 },
    #[codec(index = 14)]
    MinAllowedWeights { netuid: u16, value: u16 },
    #[codec(index = 15)]
    MaxAllowedUids { netuid: u16, value: u16 },
    #[codec(index = 22)]
    MinBurn { netuid: u16, value: u64 },
    #[codec(index = 23)]
    MaxBurn { netuid: u16, value: u64 },
    #[codec(index = 25)]
    MaxAllowedValidators { netuid: u16, value: u16 },
    #[codec(index = 30)]
    Tempo { netuid: u16, value: u16 },
    #[codec(index = 42)]
    StakeThreshold { value: u64 },
    #[codec(index = 49)]
    CommitRevealWeightsEnabled { netuid: u16, value: bool },
    #[codec(index = 57)]
    CommitRevealWeightsInterval { netuid: u16, value: u64 },
    #[codec(index = 74)]
    AdminFreezeWindow { value: u16 },
    #[codec(index = 75)]
    OwnerHyperparamRateLimit { value: u16 },
    #[codec(index = 97)]
    ActivityCutoffFactor { netuid: u16, value: u32 },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::data::Data;
    use proptest::prelude::*;

    const ALICE: &str = "d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d";

    fn alice() -> AccountId {
        hex::decode(ALICE).unwrap().try_into().unwrap()
    }

    fn commitment(data: Data) -> Call {
        let info = CommitmentInfo { fields: vec![data] };
        Call::Commitments(Commitments::SetCommitment { netuid: 3, info })
    }

    fn weights(uids: &[u16], values: &[u16]) -> Weights {
        Weights {
            uids: uids.to_vec(),
            values: values.to_vec(),
        }
    }

    fn check<const N: usize>(vectors: [(Call, String); N]) {
        for (call, bytes) in vectors {
            assert_eq!(hex::encode(call.encode()), bytes, "{call:?}");
            assert_eq!(Call::decode(&hex::decode(bytes).unwrap()).unwrap(), call);
        }
    }

    /// Bytes recorded from a real client, as those below: the same at specs 419, 439 and 461.
    #[test]
    fn calls_about_weights_have_the_bytes_of_the_runtime() {
        let set = Subtensor::SetWeights {
            netuid: 3,
            weights: weights(&[0, 1, 300], &[1, 65_535, 7]),
            version_key: 0,
        };
        let set_mechanism = Subtensor::SetMechanismWeights {
            netuid: 3,
            mecid: 1,
            weights: weights(&[0, 1], &[1, 65_535]),
            version_key: 9,
        };
        let commit = Subtensor::CommitWeights {
            netuid: 3,
            commit_hash: [0xab; 32],
        };
        let reveal = Subtensor::RevealWeights {
            netuid: 3,
            opening: Opening {
                weights: weights(&[1, 2], &[3, 4]),
                salt: vec![5, 6],
                version_key: 7,
            },
        };
        let sealed = Subtensor::CommitTimelockedMechanismWeights {
            netuid: 3,
            mecid: 0,
            seal: Seal {
                commit: Bounded(vec![1; 100]),
                reveal_round: 12_345_678,
                commit_reveal_version: 4,
            },
        };
        let vectors = [
            (
                set,
                "070003000c000001002c010c0100ffff07000000000000000000".to_owned(),
            ),
            (
                set_mechanism,
                "07770300010800000100080100ffff0900000000000000".to_owned(),
            ),
            (commit, format!("07600300{}", "ab".repeat(32))),
            (
                reveal,
                "076103000801000200080300040008050006000700000000000000".to_owned(),
            ),
            (
                sealed,
                format!("07760300009101{}4e61bc00000000000400", "01".repeat(100)),
            ),
        ];
        check(vectors.map(|(call, bytes)| (Call::Subtensor(call), bytes)));
    }

    #[test]
    fn calls_about_slots_and_endpoints_have_the_bytes_of_the_runtime() {
        let serve = Subtensor::ServeAxon {
            netuid: 3,
            axon: Axon {
                version: 1,
                ip: 0xcb00_7107,
                port: 8_091,
                ip_type: 4,
                protocol: 4,
                placeholder1: 0,
                placeholder2: 0,
            },
        };
        let register = Subtensor::BurnedRegister {
            netuid: 3,
            hotkey: alice(),
        };
        let register_limit = Subtensor::RegisterLimit {
            netuid: 3,
            hotkey: alice(),
            limit_price: 1_000_000_000,
        };
        let vectors = [
            (
                serve,
                "0704030001000000077100cb0000000000000000000000009b1f04040000".to_owned(),
            ),
            (register, format!("07070300{ALICE}")),
            (register_limit, format!("07860300{ALICE}00ca9a3b00000000")),
        ];
        check(vectors.map(|(call, bytes)| (Call::Subtensor(call), bytes)));
    }

    #[test]
    fn commitments_have_the_bytes_of_the_runtime() {
        let sealed = Data::TimelockEncrypted {
            encrypted: Bounded(vec![0x22; 64]),
            reveal_round: 999,
        };
        let vectors = [
            (
                Data::Raw(b"hello".to_vec()),
                "12000300040668656c6c6f".to_owned(),
            ),
            (
                Data::BigRaw(Bounded(vec![0xaa; 200])),
                format!("1200030004882103{}", "aa".repeat(200)),
            ),
            (
                Data::Sha256([0x11; 32]),
                format!("120003000483{}", "11".repeat(32)),
            ),
            (
                sealed,
                format!("1200030004860101{}e703000000000000", "22".repeat(64)),
            ),
        ];
        check(vectors.map(|(data, bytes)| (commitment(data), bytes)));
    }

    #[test]
    fn a_call_with_bytes_left_over_is_none() {
        let mut bytes = commitment(Data::None).encode();
        assert!(Call::decode(&bytes).is_ok());
        bytes.push(0);
        assert!(Call::decode(&bytes).is_err());
        assert!(Call::decode(&[7, 200]).is_err());
        assert!(Call::decode(&[]).is_err());
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(
            pallet in proptest::sample::select(vec![5_u8, 7, 11, 18, 19]),
            rest in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut bytes = vec![pallet];
            bytes.extend(rest);
            let _ = Call::decode(&bytes);
        }
    }
}
