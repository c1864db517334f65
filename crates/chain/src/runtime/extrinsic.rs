//! Signed extrinsics of version 4.
//!
//! ```text
//! body     = 0x84 ‖ address ‖ signature ‖ explicit parts of the extensions ‖ call
//! message  = compact length of the body ‖ body
//! payload  = call ‖ explicit parts ‖ implicit parts
//! ```
//!
//! What is signed is the payload, or its BLAKE2b-256 if it is longer than 256 bytes. Which extensions
//! there are, and in which order, is the metadata's to say; what each of the usual ones wants is known
//! here. One that is not known and takes no bytes is passed over; any other makes signing impossible,
//! and the error names it.

use parity_scale_codec::{Compact, Encode as _};

use super::metadata::{EXTRINSIC_VERSION, Extension};
use super::{Runtime, ShapeError, Value, layout, types};
use crate::hash::blake2_256;
use crate::keys::Signer;

/// The bit that says that an extrinsic is signed.
const SIGNED: u8 = 0x80;
/// Payloads beyond this are hashed before they are signed.
const MAX_PLAIN_PAYLOAD: usize = 256;
/// Periods that the chain keeps block hashes for, powers of two.
const PERIODS: std::ops::RangeInclusive<u64> = 4..=65_536;

/// How long a signature holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// For ever.
    Immortal,
    /// From its birth for `period` blocks.
    Mortal {
        /// Blocks: rounded up to a power of two between 4 and 65,536.
        period: u64,
        /// A block of the period, usually the newest one known.
        current: u64,
        /// The hash of the block [`Era::birth`].
        hash: [u8; 32],
    },
}

/// What a signature covers besides the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SigningTerms {
    /// The hash of the chain's first block.
    pub genesis: [u8; 32],
    /// The account's next nonce.
    pub nonce: u64,
    /// A tip for the block's author, in the chain's smallest unit.
    pub tip: u64,
    /// How long the signature holds.
    pub era: Era,
}

/// An extrinsic, ready to be submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedExtrinsic {
    /// Length and body.
    pub bytes: Vec<u8>,
    /// What names it: the BLAKE2b-256 of its bytes.
    pub hash: [u8; 32],
}

impl Era {
    /// The first block in which the signature holds: the one whose hash it covers. Block 0 for ever.
    #[must_use]
    pub fn birth(&self) -> u64 {
        let Some((period, phase)) = self.period_and_phase() else {
            return 0;
        };
        let Self::Mortal { current, .. } = *self else {
            return 0;
        };
        (current.max(phase) - phase) / period * period + phase
    }

    /// The last block that can include the extrinsic; none for ever.
    #[must_use]
    pub fn last_block(&self) -> Option<u64> {
        let (period, _) = self.period_and_phase()?;
        Some(self.birth().saturating_add(period - 1))
    }

    /// Period and phase as the chain reads them back: long periods have coarse phases.
    fn period_and_phase(&self) -> Option<(u64, u64)> {
        let Self::Mortal {
            period, current, ..
        } = *self
        else {
            return None;
        };
        let period = period
            .clamp(*PERIODS.start(), *PERIODS.end())
            .next_power_of_two();
        let step = phase_step(period);
        Some((period, current % period / step * step))
    }

    fn encode_to(&self, out: &mut Vec<u8>) {
        match self.period_and_phase() {
            None => out.push(0),
            Some((period, phase)) => {
                let exponent = (period.trailing_zeros() - 1).clamp(1, 15) as u16;
                // A phase has 12 bits: `step` sees to that.
                let phase = (phase / phase_step(period)) as u16;
                out.extend_from_slice(&(exponent | phase << 4).to_le_bytes());
            }
        }
    }
}

/// Blocks between two phases that have different bytes.
fn phase_step(period: u64) -> u64 {
    (period >> 12).max(1)
}

impl Runtime {
    /// What a signature over `call` covers, before the rule that long payloads are hashed.
    ///
    /// # Errors
    /// The runtime has an extension that is not known here.
    pub fn signing_payload(
        &self,
        call: &[u8],
        terms: &SigningTerms,
    ) -> Result<Vec<u8>, ShapeError> {
        let (explicit, implicit) = self.extensions(terms)?;
        Ok([call, &explicit, &implicit].concat())
    }

    /// Signs `call`, the bytes that [`Runtime::call`] gave.
    ///
    /// # Errors
    /// The runtime has an extension that is not known here, or takes no sr25519 signatures by account
    /// in extrinsics of version 4.
    pub fn sign(
        &self,
        signer: &dyn Signer,
        call: &[u8],
        terms: &SigningTerms,
    ) -> Result<SignedExtrinsic, ShapeError> {
        let (explicit, implicit) = self.extensions(terms)?;
        let payload = [call, &explicit, &implicit].concat();
        let signature = if payload.len() > MAX_PLAIN_PAYLOAD {
            signer.sign(&blake2_256(&payload))
        } else {
            signer.sign(&payload)
        };
        let mut body = vec![SIGNED | EXTRINSIC_VERSION];
        self.put_signature(signer, signature, &mut body)?;
        body.extend_from_slice(&explicit);
        body.extend_from_slice(call);
        let length = u32::try_from(body.len());
        let length = length.map_err(|_| self.shape("extrinsic", "the call is too long"))?;
        let mut bytes = Compact(length).encode();
        bytes.append(&mut body);
        let hash = blake2_256(&bytes);
        Ok(SignedExtrinsic { bytes, hash })
    }

    fn put_signature(
        &self,
        signer: &dyn Signer,
        signature: [u8; 64],
        out: &mut Vec<u8>,
    ) -> Result<(), ShapeError> {
        let extrinsic = &self.metadata().extrinsic;
        if !extrinsic.versions.contains(&EXTRINSIC_VERSION) {
            return Err(self.shape("extrinsic", "version 4 is not accepted"));
        }
        let account = Value::from(signer.hotkey());
        let parts = [
            ("address", extrinsic.address, "Id", account),
            (
                "signature",
                extrinsic.signature,
                "Sr25519",
                signature.into(),
            ),
        ];
        for (part, ty, variant, value) in parts {
            let ty = ty.ok_or_else(|| self.misfit("extrinsic", part, "of unknown type"))?;
            // A chain may take plain accounts, or know no other kind of signature.
            let is_enum = matches!(self.metadata().types.get(ty), types::Type::Enum(_));
            let value = if is_enum {
                Value::variant_of(variant, [value])
            } else {
                value
            };
            super::encode::encode(&self.metadata().types, ty, &value, out)
                .map_err(|unfit| self.misfit("extrinsic", part, unfit))?;
        }
        Ok(())
    }

    /// The explicit and the implicit parts of all extensions.
    fn extensions(&self, terms: &SigningTerms) -> Result<(Vec<u8>, Vec<u8>), ShapeError> {
        let (mut explicit, mut implicit) = (Vec::new(), Vec::new());
        for extension in &self.metadata().extrinsic.extensions {
            self.put_extension(extension, terms, &mut explicit, &mut implicit)
                .map_err(|detail| self.shape(format!("extension {}", extension.name), detail))?;
        }
        Ok((explicit, implicit))
    }

    fn put_extension(
        &self,
        extension: &Extension,
        terms: &SigningTerms,
        explicit: &mut Vec<u8>,
        implicit: &mut Vec<u8>,
    ) -> Result<(), String> {
        let known = match extension.name.as_str() {
            "CheckSpecVersion" => {
                implicit.extend_from_slice(&self.version().spec.to_le_bytes());
                ("()", "u32")
            }
            "CheckTxVersion" => {
                implicit.extend_from_slice(&self.version().transaction.to_le_bytes());
                ("()", "u32")
            }
            "CheckGenesis" => {
                implicit.extend_from_slice(&terms.genesis);
                ("()", "[u8; 32]")
            }
            "CheckMortality" | "CheckEra" => {
                terms.era.encode_to(explicit);
                implicit.extend_from_slice(match &terms.era {
                    Era::Immortal => &terms.genesis,
                    Era::Mortal { hash, .. } => hash,
                });
                ("<Immortal, Mortal1(u8), Mortal255(u8)>", "[u8; 32]")
            }
            "CheckNonce" => {
                let nonce = u32::try_from(terms.nonce);
                let nonce = nonce.map_err(|_| format!("{} is no nonce", terms.nonce))?;
                Compact(nonce).encode_to(explicit);
                ("compact u32", "()")
            }
            "ChargeTransactionPayment" => {
                Compact(terms.tip).encode_to(explicit);
                ("compact u64", "()")
            }
            "CheckMetadataHash" => {
                // The mode "disabled": no hash of the metadata is signed.
                explicit.push(0);
                implicit.push(0);
                ("{mode: <Disabled, Enabled>}", "<None, Some([u8; 32])>")
            }
            _ => ("()", "()"),
        };
        self.check_extension(extension, known)
    }

    fn check_extension(&self, extension: &Extension, known: (&str, &str)) -> Result<(), String> {
        let types = &self.metadata().types;
        let parts = [
            ("explicit", extension.explicit, known.0),
            ("implicit", extension.implicit, known.1),
        ];
        for (part, ty, expected) in parts {
            let found = layout::layout_like(types, ty, expected);
            let empty = expected == "()" && types.is_empty(ty);
            // The same compact integer, whatever width the chain's balances have.
            let same = found == expected || (expected, &*found) == ("compact u64", "compact u128");
            if !(empty || same) {
                return Err(format!("its {part} part is {found}, {expected} is known"));
            }
        }
        Ok(())
    }
}
