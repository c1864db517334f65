//! Signed extrinsics of version 4 as spec 461 reads them: their bytes, and whether the signature holds.
//!
//! ```text
//! message = compact(length) ‖ body
//! body    = 84 ‖ 00 ‖ account[32] ‖ kind ‖ signature ‖ era ‖ compact(nonce) ‖ compact(tip) ‖ mode ‖ call
//! payload = call ‖ era ‖ compact(nonce) ‖ compact(tip) ‖ mode
//!           ‖ spec u32 ‖ transaction version u32 ‖ genesis[32] ‖ birth block[32] ‖ 00
//! signed  = payload, or its blake2_256 where it is longer than 256 bytes
//! ```
//!
//! Every byte must belong to the extrinsic. Only sr25519 signs here; the other kinds that the runtime knows
//! are read and never verify. A tip is neither charged nor heeded: this chain has no fees.
//! Nonces and what the call does are not judged here.

use parity_scale_codec::{Compact, Decode, Encode, Error};

use super::call::Call;
use super::refusal::Refusal;
use super::storage::AccountId;
use crate::hash::blake2_256;
use crate::keys;
use connito_protocol::ids::Hotkey;

/// The runtime's version, which every signature covers.
pub(super) const SPEC_VERSION: u32 = 461;
/// The version of the extrinsics' format, which every signature covers.
pub(super) const TRANSACTION_VERSION: u32 = 1;
/// No extrinsic is longer. A reveal of weights for every uid has 20 KiB.
pub(super) const MAX_EXTRINSIC_BYTES: usize = 64 * 1024;

const SIGNED_VERSION_4: u8 = 0x84;
const ACCOUNT_ID: u8 = 0;
const SR25519: u8 = 1;
/// Where a body's signature begins: after version, kind of address, account and kind of signature.
const SIGNATURE_AT: usize = 35;
/// Payloads that are longer are hashed before they are signed.
const LONGEST_SIGNED: usize = 256;

/// For how long an extrinsic may be included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Era {
    /// For ever.
    Immortal,
    /// From a block congruent to the phase until a period later.
    Mortal {
        /// A power of two from 4 to 65,536, in blocks.
        period: u64,
        /// Below the period.
        phase: u64,
    },
}

impl Era {
    fn decode(input: &mut &[u8]) -> Result<Self, Error> {
        let low = u8::decode(input)?;
        if low == 0 {
            return Ok(Self::Immortal);
        }
        let encoded = u64::from(low) | u64::from(u8::decode(input)?) << 8;
        let period = 2_u64 << (encoded % 16);
        let phase = (encoded >> 4) * (period >> 12).max(1);
        if period < 4 || phase >= period {
            return Err(Error::from("an era that is none"));
        }
        Ok(Self::Mortal { period, phase })
    }

    /// The block from which an extrinsic with this era lives that is looked at in block `current`.
    pub(super) fn birth(self, current: u64) -> u64 {
        match self {
            Self::Immortal => 0,
            Self::Mortal { period, phase } => {
                (current.max(phase) - phase) / period * period + phase
            }
        }
    }

    /// The first block that cannot include it any more.
    pub(super) fn death(self, current: u64) -> u64 {
        match self {
            Self::Immortal => u64::MAX,
            Self::Mortal { period, .. } => self.birth(current).saturating_add(period),
        }
    }
}

/// A signed extrinsic, taken apart. Whether the signature holds is another question.
#[derive(Debug, Clone)]
pub(super) struct Extrinsic {
    /// `blake2_256` of the message: the name under which a pool knows it.
    pub(super) hash: [u8; 32],
    /// The message.
    pub(super) bytes: Vec<u8>,
    pub(super) signer: AccountId,
    pub(super) era: Era,
    pub(super) nonce: u32,
    pub(super) call: Call,
    /// Absent where it is of a kind that nobody signs with here.
    signature: Option<[u8; 64]>,
    /// Whether the signer wants the runtime's metadata checked, which this runtime has no hash of.
    checks_metadata: bool,
    /// What was signed of the extrinsic's own bytes: call, era, nonce, tip and mode.
    signed_part: Vec<u8>,
}

impl Extrinsic {
    /// Takes a message apart.
    ///
    /// # Errors
    /// The bytes are no signed extrinsic of this runtime, or not all of them.
    pub(super) fn decode(message: &[u8]) -> Result<Self, Refusal> {
        Self::read(message).map_err(|error| Refusal::Undecodable(error.to_string()))
    }

    fn read(message: &[u8]) -> Result<Self, Error> {
        if message.len() > MAX_EXTRINSIC_BYTES {
            return Err(Error::from("longer than any extrinsic"));
        }
        let mut input = message;
        let Compact(length) = <Compact<u32>>::decode(&mut input)?;
        if length as usize != input.len() {
            return Err(Error::from("not as long as it says"));
        }
        if u8::decode(&mut input)? != SIGNED_VERSION_4 {
            return Err(Error::from("not a signed extrinsic of version 4"));
        }
        if u8::decode(&mut input)? != ACCOUNT_ID {
            return Err(Error::from("signed by an address that is no account id"));
        }
        let signer = AccountId::decode(&mut input)?;
        let signature = read_signature(&mut input)?;
        let extensions = input;
        let era = Era::decode(&mut input)?;
        let Compact(nonce) = <Compact<u32>>::decode(&mut input)?;
        let Compact(_tip) = <Compact<u64>>::decode(&mut input)?;
        let checks_metadata = match u8::decode(&mut input)? {
            0 => false,
            1 => true,
            _ => return Err(Error::from("a metadata mode that is none")),
        };
        let extensions = &extensions[..extensions.len() - input.len()];
        Ok(Self {
            hash: blake2_256(message),
            bytes: message.to_vec(),
            signer,
            era,
            nonce,
            call: Call::decode(input)?,
            signature,
            checks_metadata,
            signed_part: [input, extensions].concat(),
        })
    }

    /// Whether the signer signed this for the chain with this genesis, born in the block with this hash.
    ///
    /// # Errors
    /// He did not, or asks for a check that this runtime cannot do.
    pub(super) fn verify(&self, genesis: &[u8; 32], birth: &[u8; 32]) -> Result<(), Refusal> {
        if self.checks_metadata {
            return Err(Refusal::CannotLookup);
        }
        let mut payload = self.signed_part.clone();
        SPEC_VERSION.encode_to(&mut payload);
        TRANSACTION_VERSION.encode_to(&mut payload);
        payload.extend_from_slice(genesis);
        payload.extend_from_slice(birth);
        payload.push(0);
        if payload.len() > LONGEST_SIGNED {
            payload = blake2_256(&payload).to_vec();
        }
        let holds = |signature| keys::verify(Hotkey(self.signer), &payload, &signature);
        match self.signature.is_some_and(holds) {
            true => Ok(()),
            false => Err(Refusal::BadProof),
        }
    }
}

/// The signature, if it is of the one kind that can verify.
fn read_signature(input: &mut &[u8]) -> Result<Option<[u8; 64]>, Error> {
    let kind = u8::decode(input)?;
    let signature = <[u8; 64]>::decode(input)?;
    match kind {
        SR25519 => Ok(Some(signature)),
        // Ed25519.
        0 => Ok(None),
        // ECDSA, with its recovery byte.
        2 => u8::decode(input).map(|_| None),
        _ => Err(Error::from("a kind of signature that is none")),
    }
}

/// The message with zeros for its signature.
pub(super) fn without_signature(message: &[u8]) -> Vec<u8> {
    let mut blank = message.to_vec();
    let mut body = message;
    if <Compact<u32>>::decode(&mut body).is_ok() && body.first() == Some(&SIGNED_VERSION_4) {
        let at = message.len() - body.len() + SIGNATURE_AT;
        if let Some(signature) = blank.get_mut(at..at + 64) {
            signature.fill(0);
        }
    }
    blank
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mortal(bytes: [u8; 2]) -> Era {
        Era::decode(&mut bytes.as_slice()).unwrap()
    }

    /// The bytes of chain tools for a period of 64 blocks, signed at block 66.
    #[test]
    fn an_era_is_born_at_its_phase_and_dies_a_period_later() {
        let era = mortal([0x25, 0x00]);
        assert_eq!(
            era,
            Era::Mortal {
                period: 64,
                phase: 2
            }
        );
        assert_eq!((era.birth(66), era.death(66)), (66, 130));
        assert_eq!((era.birth(129), era.death(129)), (66, 130));
        assert_eq!(era.birth(130), 130);
        assert_eq!(era.birth(0), 2);
        assert_eq!(Era::Immortal.death(7), u64::MAX);
    }

    #[test]
    fn an_era_with_a_phase_beyond_its_period_is_refused() {
        // Period 4, phases up to 3 only; and a period of 2.
        assert!(Era::decode(&mut [0x41, 0x00].as_slice()).is_err());
        assert!(Era::decode(&mut [0x10, 0x00].as_slice()).is_err());
        assert_eq!(
            mortal([0xff, 0xff]),
            Era::Mortal {
                period: 65_536,
                phase: 65_520
            }
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_decoding_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Extrinsic::decode(&bytes);
            let framed = bytes.encode();
            let _ = Extrinsic::decode(&framed);
            prop_assert_eq!(without_signature(&framed).len(), framed.len());
        }

        #[test]
        fn an_extrinsic_is_alive_between_birth_and_death(low in 1_u8.., high: u8, current in 0_u64..1 << 40) {
            if let Ok(era) = Era::decode(&mut [low, high].as_slice()) {
                let (birth, death) = (era.birth(current), era.death(current));
                prop_assert!(current < death);
                prop_assert!(birth <= current || birth < 65_536);
            }
        }
    }
}
