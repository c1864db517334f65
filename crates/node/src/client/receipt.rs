//! A miner's receipt, as a validator signed it (P-42).
//!
//! What is signed is the receipt's JSON as it stands in the answer, so it is verified before it is
//! read: a number that is read and written again may be spelled otherwise. Knows nothing of what a
//! receipt says, or of who is worth asking.

use connito_chain::keys::{SIGNATURE_BYTES, verify};
use connito_protocol::ids::{Cycle, Hotkey};
use connito_protocol::receipt::Receipt;
use connito_protocol::snapshot::Endpoint;

use super::{BlobClient, under};

/// Longest answer that is read.
const MAXIMUM_BYTES: u64 = 16 << 10;

impl BlobClient {
    /// The receipt of `hotkey` for `cycle`, from the first validator that has one and signed it.
    pub async fn receipt(
        &self,
        cycle: Cycle,
        hotkey: Hotkey,
        from: &[(Hotkey, Endpoint)],
    ) -> Option<Receipt> {
        for (validator, endpoint) in from {
            let url = under(&endpoint.url(), &format!("v1/receipts/{cycle}/{hotkey}"));
            match self.get_bytes(&url, MAXIMUM_BYTES).await {
                Ok(Some(body)) => {
                    if let Some(receipt) = verified(&body, *validator) {
                        return Some(receipt);
                    }
                    tracing::warn!(target: "receipts", %url, "not a receipt signed by {validator}");
                }
                Ok(None) => {}
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(target: "receipts", error, "not asked");
                }
            }
        }
        None
    }
}

/// The receipt in `{"receipt": …, "signature": …}`, if `issuer` signed it and is named in it.
fn verified(body: &[u8], issuer: Hotkey) -> Option<Receipt> {
    let text = std::str::from_utf8(body).ok()?;
    let text = text.strip_prefix("{\"receipt\":")?.strip_suffix("\"}")?;
    let (json, digits) = text.rsplit_once(",\"signature\":\"")?;
    let mut signature = [0; SIGNATURE_BYTES];
    hex::decode_to_slice(digits, &mut signature).ok()?;
    if !verify(issuer, json.as_bytes(), &signature) {
        return None;
    }
    let receipt: Receipt = serde_json::from_str(json).ok()?;
    (receipt.validator == issuer).then_some(receipt)
}

#[cfg(test)]
mod tests {
    use connito_chain::keys::{Keypair, Signer};
    use connito_protocol::ids::{GroupId, Seed, StateId};
    use connito_protocol::reason::ReasonCode;

    use super::*;
    use crate::driver::SignedReceipt;

    fn issued(by: &Keypair, named: Hotkey) -> Vec<u8> {
        let receipt = Receipt {
            cycle: Cycle(3),
            hotkey: Hotkey([1; 32]),
            group: GroupId(0),
            base: StateId([2; 32]),
            seed: Seed([3; 32]),
            update: None,
            code: ReasonCode::Accepted,
            measurement: None,
            weight: 0.1 + 0.2,
            reward: 1.0 / 3.0,
            rank: 1,
            validator: named,
            own: None,
        };
        serde_json::to_vec(&SignedReceipt::sign(&receipt, by)).unwrap()
    }

    #[test]
    fn a_receipt_is_believed_if_the_validator_that_was_asked_signed_these_very_bytes() {
        let (validator, other) = (Keypair::from_seed(&[1; 32]), Keypair::from_seed(&[2; 32]));
        let body = issued(&validator, validator.hotkey());
        let receipt = verified(&body, validator.hotkey()).unwrap();
        assert_eq!((receipt.cycle, receipt.reward), (Cycle(3), 1.0 / 3.0));
        assert_eq!(verified(&body, other.hotkey()), None, "it is another's");
        let borrowed = issued(&validator, other.hotkey());
        assert_eq!(
            verified(&borrowed, validator.hotkey()),
            None,
            "it names another"
        );
        assert_eq!(verified(&borrowed, other.hotkey()), None);
    }

    /// What should not happen: one changed byte being believed, or a panic.
    #[test]
    fn no_byte_of_a_receipt_can_be_changed() {
        let validator = Keypair::from_seed(&[1; 32]);
        let body = issued(&validator, validator.hotkey());
        for position in 0..body.len() {
            let mut changed = body.clone();
            changed[position] ^= 1;
            assert_eq!(
                verified(&changed, validator.hotkey()),
                None,
                "byte {position}"
            );
            assert_eq!(verified(&body[..position], validator.hotkey()), None);
        }
    }
}
