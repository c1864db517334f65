//! What happened in a block, and why a call failed, in the bytes of spec 461.
//!
//! The variants carry the runtime's names and indices; clients resolve both by name through the
//! metadata. When they are deposited is the pallets' business.

use parity_scale_codec::{Encode, Output};

use super::storage::AccountId;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Encode)]
pub(super) enum Event {
    #[codec(index = 0)]
    System(System),
    #[codec(index = 5)]
    Balances(Balances),
    #[codec(index = 7)]
    Subtensor(Subtensor),
    #[codec(index = 11)]
    Utility(Utility),
    #[codec(index = 18)]
    Commitments(Commitments),
    #[codec(index = 26)]
    Drand(Drand),
}

/// Events of the system itself, but for what became of an extrinsic: the block's maker says that.
#[derive(Debug, Clone, PartialEq, Eq, Encode)]
pub(super) enum System {
    #[codec(index = 3)]
    NewAccount { account: AccountId },
    #[codec(index = 4)]
    KilledAccount { account: AccountId },
}

/// Events of the pallet that keeps balances.
#[derive(Debug, Clone, PartialEq, Eq, Encode)]
pub(super) enum Balances {
    #[codec(index = 0)]
    Endowed {
        account: AccountId,
        free_balance: u64,
    },
    #[codec(index = 1)]
    DustLost { account: AccountId, amount: u64 },
    #[codec(index = 2)]
    Transfer {
        from: AccountId,
        to: AccountId,
        amount: u64,
    },
    #[codec(index = 7)]
    Deposit { who: AccountId, amount: u64 },
    #[codec(index = 8)]
    Withdraw { who: AccountId, amount: u64 },
}

/// Events of calls that carry others.
#[derive(Debug, Clone, PartialEq, Eq, Encode)]
pub(super) enum Utility {
    #[codec(index = 0)]
    BatchInterrupted { index: u32, error: DispatchError },
    #[codec(index = 1)]
    BatchCompleted,
    #[codec(index = 2)]
    BatchCompletedWithErrors,
    #[codec(index = 3)]
    ItemCompleted,
    #[codec(index = 4)]
    ItemFailed { error: DispatchError },
}

/// Events of the pallet that keeps subnets.
#[derive(Debug, Clone, PartialEq, Eq, Encode)]
pub(super) enum Subtensor {
    #[codec(index = 0)]
    NetworkAdded(u16, u16),
    #[codec(index = 2)]
    StakeAdded(Stake),
    #[codec(index = 3)]
    StakeRemoved(Stake),
    #[codec(index = 5)]
    WeightsSet(u16, u16),
    #[codec(index = 7)]
    NeuronRegistered(u16, u16, AccountId),
    #[codec(index = 10)]
    MaxAllowedUidsSet(u16, u16),
    #[codec(index = 20)]
    MinAllowedWeightSet(u16, u16),
    #[codec(index = 23)]
    WeightsSetRateLimitSet(u16, u64),
    #[codec(index = 24)]
    ImmunityPeriodSet(u16, u16),
    #[codec(index = 28)]
    MaxAllowedValidatorsSet(u16, u16),
    #[codec(index = 29)]
    AxonServed(u16, AccountId),
    #[codec(index = 33)]
    WeightsVersionKeySet(u16, u64),
    #[codec(index = 36)]
    ServingRateLimitSet(u16, u64),
    #[codec(index = 38)]
    MaxBurnSet(u16, u64),
    #[codec(index = 39)]
    MinBurnSet(u16, u64),
    #[codec(index = 44)]
    AdminFreezeWindowSet(u16),
    #[codec(index = 45)]
    OwnerHyperparamRateLimitSet(u16),
    #[codec(index = 53)]
    TempoSet(u16, u16),
    #[codec(index = 55)]
    StakeThresholdSet(u64),
    #[codec(index = 86)]
    WeightsCommitted(AccountId, u16, [u8; 32]),
    #[codec(index = 87)]
    WeightsRevealed(AccountId, u16, [u8; 32]),
    #[codec(index = 96)]
    FirstEmissionBlockNumberSet(u16, u64),
    #[codec(index = 101)]
    CommitRevealPeriodsSet(u16, u64),
    #[codec(index = 102)]
    CommitRevealEnabled(u16, bool),
    #[codec(index = 108)]
    TimelockedWeightsCommitted(AccountId, u16, [u8; 32], u64),
    #[codec(index = 109)]
    TimelockedWeightsRevealed(u16, AccountId),
    #[codec(index = 135)]
    ActivityCutoffFactorMilliSet { netuid: u16, factor_milli: u32 },
    #[codec(index = 136)]
    EpochTriggered {
        netuid: u16,
        by: AccountId,
        fires_at: u64,
    },
    #[codec(index = 137)]
    EpochDeferred {
        netuid: u16,
        from_block: u64,
        to_block: u64,
    },
}

/// A change of stake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode)]
pub(super) struct Stake {
    pub(super) coldkey: AccountId,
    pub(super) hotkey: AccountId,
    pub(super) tao: u64,
    pub(super) alpha: u64,
    pub(super) netuid: u16,
    pub(super) fee: u64,
}

/// Events of the pallet that keeps commitments.
#[derive(Debug, Clone, PartialEq, Eq, Encode)]
pub(super) enum Commitments {
    #[codec(index = 0)]
    Commitment { netuid: u16, who: AccountId },
    #[codec(index = 1)]
    TimelockCommitment {
        netuid: u16,
        who: AccountId,
        reveal_round: u64,
    },
    #[codec(index = 2)]
    CommitmentRevealed { netuid: u16, who: AccountId },
    #[codec(index = 3)]
    CommitmentRevealFailed {
        netuid: u16,
        who: AccountId,
        reveal_round: u64,
        error: RevealFailure,
    },
}

/// Why a seal was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode)]
pub(super) enum RevealFailure {
    #[codec(index = 2)]
    Decrypt,
    #[codec(index = 3)]
    EmptyPlaintext,
    #[codec(index = 4)]
    PulseExpired,
}

/// Events of the pallet that keeps the beacon's pulses.
#[derive(Debug, Clone, PartialEq, Eq, Encode)]
pub(super) enum Drand {
    #[codec(index = 1)]
    NewPulse { rounds: Vec<u64> },
    #[codec(index = 2)]
    SetOldestStoredRound(u64),
}

/// Why a call had no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DispatchError {
    /// The signer may not make this call.
    BadOrigin,
    /// A pallet's own reason.
    Module {
        /// The pallet's index.
        pallet: u8,
        /// The reason's index within it.
        error: u8,
    },
    /// There is not enough money, or too little would remain.
    Token(TokenError),
}

/// What is wrong with money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode)]
pub(super) enum TokenError {
    #[codec(index = 0)]
    FundsUnavailable,
    #[codec(index = 2)]
    BelowMinimum,
    #[codec(index = 8)]
    NotExpendable,
}

impl Encode for DispatchError {
    fn encode_to<T: Output + ?Sized>(&self, out: &mut T) {
        match self {
            Self::BadOrigin => out.push_byte(2),
            Self::Module { pallet, error } => out.write(&[3, *pallet, *error, 0, 0, 0]),
            Self::Token(error) => {
                out.push_byte(7);
                error.encode_to(out);
            }
        }
    }
}
