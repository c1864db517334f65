//! An operation made binding: who asks, on which chain, once, and until when.
//!
//! ```text
//! payload = "connito-local-op/1" ‖ genesis[32] ‖ signer[32] ‖ nonce u64 ‖ valid_until u64 ‖ call
//! wire    = payload without its first part ‖ sr25519 signature[64] over the payload
//! id      = blake2_256(payload)
//! ```
//!
//! The genesis hash keeps it off other chains, the nonce makes it happen at most once, the last
//! block makes silence final. The id leaves the signature out: sr25519 signatures are randomised,
//! and the name of an operation should depend only on what is asked.

use blake2::{Blake2b, Digest, digest::consts::U32};
use connito_protocol::ids::{Block, BlockHash, Hotkey};

use crate::chain::ChainId;
use crate::codec::{DecodeError, Reader};
use crate::fields::{self, FieldsError};
use crate::keys::{self, SIGNATURE_BYTES, Signer};
use crate::operation::{Op, OperationId, encode_call};

const DOMAIN: &[u8] = b"connito-local-op/1";

/// Everything that is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Envelope {
    /// The chain it is meant for.
    pub(crate) genesis: BlockHash,
    /// Who asks. For a registration the coldkey, otherwise the hotkey.
    pub(crate) signer: Hotkey,
    /// How many operations of this signer came before.
    pub(crate) nonce: u64,
    /// The last block that may include it.
    pub(crate) valid_until: Block,
    /// The call's bytes.
    pub(crate) call: Vec<u8>,
}

impl Envelope {
    fn payload(&self) -> Vec<u8> {
        let mut payload = DOMAIN.to_vec();
        payload.extend_from_slice(&self.genesis.0);
        payload.extend_from_slice(&self.signer.0);
        payload.extend_from_slice(&self.nonce.to_le_bytes());
        payload.extend_from_slice(&self.valid_until.0.to_le_bytes());
        payload.extend_from_slice(&self.call);
        payload
    }

    pub(crate) fn sign(self, signer: &dyn Signer) -> SignedOp {
        let signature = signer.sign(&self.payload());
        SignedOp {
            envelope: self,
            signature,
        }
    }
}

/// An operation and its signature, which need not be valid: [`SignedOp::verify`] tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedOp {
    pub(crate) envelope: Envelope,
    pub(crate) signature: [u8; SIGNATURE_BYTES],
}

impl SignedOp {
    /// Signs `op` for one chain, as the signer's operation number `nonce` (counted from 0), to be
    /// included no later than `valid_until`.
    ///
    /// # Errors
    /// A commitment with more fields or bytes than any chain takes.
    pub fn sign(
        signer: &dyn Signer,
        chain: &ChainId,
        op: &Op,
        nonce: u64,
        valid_until: Block,
    ) -> Result<Self, FieldsError> {
        if let Op::Commit(record) = op {
            fields::check(record)?;
        }
        let call = encode_call(chain.netuid, op);
        let (genesis, account) = (chain.genesis, signer.hotkey());
        let envelope = Envelope {
            genesis,
            signer: account,
            nonce,
            valid_until,
            call,
        };
        Ok(envelope.sign(signer))
    }

    /// The operation's name. Does not depend on the signature.
    #[must_use]
    pub fn id(&self) -> OperationId {
        OperationId(blake2_256(&self.envelope.payload()))
    }

    /// Whether the signature is the signer's over exactly this operation.
    #[must_use]
    pub fn verify(&self) -> bool {
        keys::verify(
            self.envelope.signer,
            &self.envelope.payload(),
            &self.signature,
        )
    }

    /// The bytes that are sent and logged.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.envelope.payload().split_off(DOMAIN.len());
        bytes.extend_from_slice(&self.signature);
        bytes
    }

    /// Reads what [`SignedOp::to_bytes`] wrote. The call inside is not looked at.
    ///
    /// # Errors
    /// Fewer bytes than an envelope and a signature take.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let genesis = BlockHash(reader.array()?);
        let signer = Hotkey(reader.array()?);
        let (nonce, valid_until) = (reader.u64()?, Block(reader.u64()?));
        let mut call = reader.rest().to_vec();
        let split = call.len().checked_sub(SIGNATURE_BYTES);
        let split = split.ok_or_else(|| reader.refuse("unexpected end"))?;
        let mut signature = [0; SIGNATURE_BYTES];
        signature.copy_from_slice(&call.split_off(split));
        Ok(Self {
            envelope: Envelope {
                genesis,
                signer,
                nonce,
                valid_until,
                call,
            },
            signature,
        })
    }
}

/// The BLAKE2b-256 hash, which Substrate uses for everything.
pub(crate) fn blake2_256(bytes: &[u8]) -> [u8; 32] {
    Blake2b::<U32>::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Keypair;

    fn signed() -> SignedOp {
        let envelope = Envelope {
            genesis: BlockHash([7; 32]),
            signer: Keypair::from_seed(&[1; 32]).hotkey(),
            nonce: 5,
            valid_until: Block(99),
            call: vec![1, 2, 3],
        };
        envelope.sign(&Keypair::from_seed(&[1; 32]))
    }

    #[test]
    fn a_signed_operation_reads_back_and_verifies() {
        let signed = signed();
        let again = SignedOp::from_bytes(&signed.to_bytes()).unwrap();
        assert_eq!(again, signed);
        assert!(again.verify());
    }

    /// What should not happen: any byte of the operation changed and the signature still holds.
    #[test]
    fn no_byte_of_it_can_change_without_breaking_the_signature() {
        let bytes = signed().to_bytes();
        for position in 0..bytes.len() {
            let mut tampered = bytes.clone();
            tampered[position] ^= 1;
            assert!(
                !SignedOp::from_bytes(&tampered).unwrap().verify(),
                "byte {position}"
            );
        }
        for length in 0..144 {
            assert!(
                SignedOp::from_bytes(&bytes[..length]).is_err(),
                "{length} bytes"
            );
        }
    }

    /// Two signatures over the same operation differ; its name must not.
    #[test]
    fn the_id_does_not_depend_on_the_signature() {
        let (one, other) = (signed(), signed());
        assert_ne!(one.signature, other.signature);
        assert_eq!(one.id(), other.id());
    }
}
