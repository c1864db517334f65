//! The pallets' own reasons to refuse a call, with their indices at spec 461.
//!
//! Clients know a reason by its name, which is the name of the variant here; the pool knows some of them
//! by a number that never changes.

use super::event::DispatchError;

/// A pallet's reasons: an enum with the runtime's names and indices, and how it becomes an error.
macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident of pallet $pallet:literal { $($variant:ident = $index:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub(super) enum $name {
            $($variant = $index,)*
        }

        #[cfg(test)]
        impl $name {
            /// Every reason there is.
            pub(super) const ALL: &'static [Self] = &[$(Self::$variant,)*];
        }

        impl From<$name> for DispatchError {
            fn from(reason: $name) -> Self {
                Self::Module {
                    pallet: $pallet,
                    error: reason as u8,
                }
            }
        }
    };
}

reasons! {
    /// The pallet that keeps subnets.
    Subtensor of pallet 7 {
        InvalidIpType = 1,
        InvalidIpAddress = 2,
        InvalidPort = 3,
        HotKeyNotRegisteredInSubNet = 4,
        HotKeyAccountNotExists = 5,
        HotKeyNotRegisteredInNetwork = 6,
        NonAssociatedColdKey = 7,
        NotEnoughStakeToWithdraw = 9,
        NotEnoughStakeToSetWeights = 10,
        NotEnoughBalanceToStake = 12,
        NeuronNoValidatorPermit = 15,
        WeightVecNotEqualSize = 16,
        DuplicateUids = 17,
        UidVecContainInvalidOne = 18,
        WeightVecLengthIsLow = 19,
        HotKeyAlreadyRegisteredInSubNet = 21,
        MaxWeightExceeded = 27,
        SettingWeightsTooFast = 29,
        IncorrectWeightVersionKey = 30,
        ServingRateLimitExceeded = 31,
        UidsLengthExceedUidsInSubNet = 32,
        NetworkTxRateLimitExceeded = 33,
        SubNetRegistrationDisabled = 37,
        NotSubnetOwner = 41,
        RegistrationNotPermittedOnRootSubnet = 42,
        CanNotSetRootNetworkWeights = 47,
        NoNeuronIdAvailable = 48,
        NoWeightsCommitFound = 51,
        InvalidRevealCommitHashNotMatch = 52,
        CommitRevealEnabled = 53,
        CommitRevealDisabled = 54,
        TxRateLimitExceeded = 64,
        MechanismDoesNotExist = 74,
        SubnetNotExists = 76,
        TooManyUnrevealedCommits = 77,
        ExpiredWeightCommit = 78,
        RevealTooEarly = 79,
        CommittingWeightsTooFast = 81,
        AmountTooLow = 82,
        SlippageTooHigh = 84,
        FirstEmissionBlockNumberAlreadySet = 88,
        SubtokenDisabled = 94,
        AdminActionProhibitedDuringWeightsWindow = 108,
        IncorrectCommitRevealVersion = 111,
        InvalidRevealRound = 112,
        RevealPeriodTooLarge = 113,
        RevealPeriodTooSmall = 114,
        SubnetLimitReached = 116,
        CannotAffordLockCost = 117,
        RegistrationPriceLimitExceeded = 136,
        TempoOutOfBounds = 144,
        ActivityCutoffFactorMilliOutOfBounds = 145,
        EpochTriggerAlreadyPending = 146,
        AutoEpochAlreadyImminent = 147,
        DynamicTempoBlockedByCommitReveal = 148,
    }
}

reasons! {
    /// The system itself.
    System of pallet 0 {
        CallFiltered = 5,
    }
}

reasons! {
    /// The pallet whose calls carry others.
    Utility of pallet 11 {
        TooManyCalls = 0,
    }
}

reasons! {
    /// The pallet that keeps commitments.
    Commitments of pallet 18 {
        AccountNotAllowedCommit = 1,
        SpaceLimitExceeded = 2,
        TimelockRevealFailedNotAllowed = 4,
    }
}

reasons! {
    /// The pallet that sets hyperparameters.
    AdminUtils of pallet 19 {
        SubnetDoesNotExist = 0,
        MaxValidatorsLargerThanMaxUIds = 1,
        MaxAllowedUIdsLessThanCurrentUIds = 2,
        ValueNotInBounds = 5,
        MaxAllowedUidsGreaterThanDefaultMaxAllowedUids = 9,
    }
}

impl Subtensor {
    /// The number under which the pool refuses a call for this reason.
    pub(super) fn custom(self) -> u8 {
        match self {
            Self::AmountTooLow | Self::NotEnoughStakeToSetWeights => 1,
            Self::NotEnoughBalanceToStake => 2,
            Self::SubnetNotExists => 3,
            Self::HotKeyAccountNotExists => 4,
            Self::NotEnoughStakeToWithdraw => 5,
            Self::CommittingWeightsTooFast
            | Self::SettingWeightsTooFast
            | Self::NetworkTxRateLimitExceeded => 6,
            Self::SlippageTooHigh => 8,
            Self::HotKeyNotRegisteredInNetwork => 10,
            Self::InvalidIpAddress => 11,
            Self::ServingRateLimitExceeded => 12,
            Self::InvalidPort => 13,
            Self::InvalidRevealRound => 15,
            Self::NoWeightsCommitFound => 16,
            Self::RevealTooEarly => 17,
            Self::HotKeyNotRegisteredInSubNet => 19,
            Self::NonAssociatedColdKey => 25,
            _ => 255,
        }
    }
}
