//! What a commitment holds, as the commitments pallet reads and stores it (spec 461).
//!
//! The codec is written by hand in the runtime too: one tag carries both the kind and, for short raw
//! bytes, the length. Everything here is bounded while it is decoded, because a call that is too large
//! is not a failed call but one that does not exist.

use parity_scale_codec::{Compact, Decode, Encode, Error, Input, Output};

/// Fields in one commitment.
const MAX_FIELDS: u32 = 3;
/// Bytes in [`Data::Raw`].
const MAX_RAW: u8 = 128;
/// Bytes in [`Data::BigRaw`].
const MAX_BIG_RAW: usize = 512;
/// Bytes in [`Data::TimelockEncrypted`].
const MAX_CIPHERTEXT: usize = 1_024;

/// At most `MAX` bytes: a list that says how many there are.
#[derive(Debug, Clone, PartialEq, Eq, Encode)]
pub(super) struct Bounded<const MAX: usize>(pub(super) Vec<u8>);

impl<const MAX: usize> Decode for Bounded<MAX> {
    fn decode<I: Input>(input: &mut I) -> Result<Self, Error> {
        let Compact(length) = Compact::<u32>::decode(input)?;
        if length as usize > MAX {
            return Err("a list exceeds its bound".into());
        }
        let mut bytes = vec![0; length as usize];
        input.read(&mut bytes)?;
        Ok(Self(bytes))
    }
}

/// One field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Data {
    /// Nothing.
    None,
    /// Short bytes.
    Raw(Vec<u8>),
    /// A BLAKE2b-256 digest.
    BlakeTwo256([u8; 32]),
    /// A SHA-256 digest.
    Sha256([u8; 32]),
    /// A Keccak-256 digest.
    Keccak256([u8; 32]),
    /// A SHA3-256 digest.
    ShaThree256([u8; 32]),
    /// Sealed until a round of the beacon.
    TimelockEncrypted {
        /// The ciphertext, bare or in the client's envelope.
        encrypted: Bounded<MAX_CIPHERTEXT>,
        /// The round whose signature opens it.
        reveal_round: u64,
    },
    /// Asks for the signer's bonds to be forgotten.
    ResetBondsFlag,
    /// Long bytes.
    BigRaw(Bounded<MAX_BIG_RAW>),
    /// What became of a seal that could not be opened. Only the runtime writes it.
    TimelockRevealFailed {
        /// The ciphertext as it was.
        encrypted: Bounded<MAX_CIPHERTEXT>,
        /// The round that did not open it.
        reveal_round: u64,
    },
}

impl Data {
    /// The bytes that a commitment is charged for.
    pub(super) fn charged_bytes(&self) -> u64 {
        let bytes = match self {
            Self::None | Self::ResetBondsFlag => 0,
            Self::Raw(bytes) => bytes.len(),
            Self::BigRaw(Bounded(bytes)) => bytes.len(),
            Self::BlakeTwo256(digest)
            | Self::Sha256(digest)
            | Self::Keccak256(digest)
            | Self::ShaThree256(digest) => digest.len(),
            Self::TimelockEncrypted { encrypted, .. }
            | Self::TimelockRevealFailed { encrypted, .. } => encrypted.0.len(),
        };
        bytes as u64
    }

    fn tag(&self) -> u8 {
        match self {
            Self::None => 0,
            // No longer than `MAX_RAW`, or it would not have been decoded.
            Self::Raw(bytes) => 1 + bytes.len() as u8,
            Self::BlakeTwo256(_) => 130,
            Self::Sha256(_) => 131,
            Self::Keccak256(_) => 132,
            Self::ShaThree256(_) => 133,
            Self::TimelockEncrypted { .. } => 134,
            Self::ResetBondsFlag => 135,
            Self::BigRaw(_) => 136,
            Self::TimelockRevealFailed { .. } => 137,
        }
    }
}

impl Encode for Data {
    fn encode_to<T: Output + ?Sized>(&self, out: &mut T) {
        out.push_byte(self.tag());
        match self {
            Self::None | Self::ResetBondsFlag => {}
            Self::Raw(bytes) => out.write(bytes),
            Self::BigRaw(bytes) => bytes.encode_to(out),
            Self::BlakeTwo256(digest)
            | Self::Sha256(digest)
            | Self::Keccak256(digest)
            | Self::ShaThree256(digest) => out.write(digest),
            Self::TimelockEncrypted {
                encrypted,
                reveal_round,
            }
            | Self::TimelockRevealFailed {
                encrypted,
                reveal_round,
            } => {
                encrypted.encode_to(out);
                reveal_round.encode_to(out);
            }
        }
    }
}

impl Decode for Data {
    fn decode<I: Input>(input: &mut I) -> Result<Self, Error> {
        Ok(match input.read_byte()? {
            0 => Self::None,
            tag if tag <= 1 + MAX_RAW => {
                let mut bytes = vec![0; usize::from(tag - 1)];
                input.read(&mut bytes)?;
                Self::Raw(bytes)
            }
            130 => Self::BlakeTwo256(Decode::decode(input)?),
            131 => Self::Sha256(Decode::decode(input)?),
            132 => Self::Keccak256(Decode::decode(input)?),
            133 => Self::ShaThree256(Decode::decode(input)?),
            134 => Self::TimelockEncrypted {
                encrypted: Decode::decode(input)?,
                reveal_round: Decode::decode(input)?,
            },
            135 => Self::ResetBondsFlag,
            136 => Self::BigRaw(Decode::decode(input)?),
            137 => Self::TimelockRevealFailed {
                encrypted: Decode::decode(input)?,
                reveal_round: Decode::decode(input)?,
            },
            _ => return Err("an unknown kind of commitment field".into()),
        })
    }
}

/// The fields of one commitment.
#[derive(Debug, Clone, PartialEq, Eq, Encode)]
pub(super) struct CommitmentInfo {
    pub(super) fields: Vec<Data>,
}

impl Decode for CommitmentInfo {
    fn decode<I: Input>(input: &mut I) -> Result<Self, Error> {
        let Compact(count) = Compact::<u32>::decode(input)?;
        if count > MAX_FIELDS {
            return Err("too many commitment fields".into());
        }
        let fields = (0..count)
            .map(|_| Data::decode(input))
            .collect::<Result<_, _>>()?;
        Ok(Self { fields })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parity_scale_codec::DecodeAll as _;
    use proptest::prelude::*;

    fn decoded(fields: &[Data]) -> Result<CommitmentInfo, Error> {
        let fields = fields.to_vec();
        CommitmentInfo::decode_all(&mut CommitmentInfo { fields }.encode().as_slice())
    }

    #[test]
    fn the_largest_commitment_is_one_and_anything_larger_is_none() {
        let sealed = |bytes| Data::TimelockEncrypted {
            encrypted: Bounded(vec![1; bytes]),
            reveal_round: 9,
        };
        let largest = [
            Data::Raw(vec![2; 128]),
            Data::BigRaw(Bounded(vec![3; 512])),
            sealed(1_024),
        ];
        assert_eq!(decoded(&largest).unwrap().fields, largest);
        assert!(decoded(&vec![Data::None; 4]).is_err());
        assert!(decoded(&[Data::BigRaw(Bounded(vec![3; 513]))]).is_err());
        assert!(decoded(&[sealed(1_025)]).is_err());
        assert!(CommitmentInfo::decode_all(&mut [4, 138].as_slice()).is_err());
    }

    fn data() -> impl Strategy<Value = Data> {
        let bytes = |max| proptest::collection::vec(any::<u8>(), 0..=max);
        prop_oneof![
            Just(Data::None),
            Just(Data::ResetBondsFlag),
            bytes(128).prop_map(Data::Raw),
            bytes(512).prop_map(|bytes| Data::BigRaw(Bounded(bytes))),
            any::<[u8; 32]>().prop_map(Data::BlakeTwo256),
            any::<[u8; 32]>().prop_map(Data::Sha256),
            any::<[u8; 32]>().prop_map(Data::Keccak256),
            any::<[u8; 32]>().prop_map(Data::ShaThree256),
            (bytes(1_024), any::<u64>()).prop_map(|(bytes, reveal_round)| {
                let encrypted = Bounded(bytes);
                Data::TimelockEncrypted {
                    encrypted,
                    reveal_round,
                }
            }),
        ]
    }

    proptest! {
        #[test]
        fn fields_read_back_as_they_were_written(fields in proptest::collection::vec(data(), 0..=3)) {
            prop_assert_eq!(decoded(&fields).unwrap().fields, fields);
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
            let _ = CommitmentInfo::decode_all(&mut bytes.as_slice());
        }
    }
}
