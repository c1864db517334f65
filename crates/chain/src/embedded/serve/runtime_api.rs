//! `state_call`: the runtime's own interfaces, in SCALE.

use parity_scale_codec::{Compact, Decode, Encode};

use super::failure::Failure;
use super::state::apis;
use crate::embedded::execute::{SPEC_NAME, WEIGHT};
use crate::embedded::extrinsic::{SPEC_VERSION, TRANSACTION_VERSION};
use crate::embedded::storage::{AccountId, State};
use crate::embedded::system;

/// The runtime's metadata in its fourteenth format.
pub(super) fn metadata_v14() -> Result<Vec<u8>, Failure> {
    Err(missing("Metadata_metadata"))
}

/// Carries a runtime call out on a state.
pub(super) fn call(state: &impl State, method: &str, data: &[u8]) -> Result<Vec<u8>, Failure> {
    match method {
        "Core_version" => Ok(version()),
        "AccountNonceApi_account_nonce" => {
            let account: AccountId = arguments(method, data)?;
            Ok(system::nonce(state, account).encode())
        }
        // Fees: there are none, whatever the extrinsic.
        "TransactionPaymentApi_query_info" => {
            Ok((Compact(WEIGHT.0), Compact(WEIGHT.1), 0_u8, 0_u64).encode())
        }
        "TransactionPaymentApi_query_fee_details" => Ok(vec![0]),
        "TransactionPaymentApi_query_length_to_fee"
        | "TransactionPaymentApi_query_weight_to_fee" => Ok(0_u64.encode()),
        _ => Err(missing(method)),
    }
}

fn version() -> Vec<u8> {
    let apis: Vec<([u8; 8], u32)> = apis().collect();
    let versions = (1_u32, SPEC_VERSION, 1_u32);
    (
        SPEC_NAME,
        SPEC_NAME,
        versions,
        apis,
        TRANSACTION_VERSION,
        1_u8,
    )
        .encode()
}

/// All of a call's arguments.
fn arguments<T: Decode>(method: &str, data: &[u8]) -> Result<T, Failure> {
    let input = &mut &*data;
    match T::decode(input) {
        Ok(arguments) if input.is_empty() => Ok(arguments),
        _ => Err(Failure::execution(&format!(
            "Execution aborted due to trap: bad input data provided to {method}"
        ))),
    }
}

fn missing(method: &str) -> Failure {
    // A method's name is of its caller's choosing, and so is its length.
    let shown: String = method.chars().take(80).collect();
    Failure::execution(&format!(
        "Runtime API error: Exported method {shown} is not found"
    ))
}
