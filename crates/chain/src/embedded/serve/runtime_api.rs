//! `state_call`: the runtime's own interfaces, in SCALE.
//!
//! The bytes of arguments and answers follow the metadata that this chain hands out, by name; what the
//! answers say of subnets and neurons is read from the state in `subnets.rs`, through the same metadata.
//! Fees are zero, whatever the extrinsic.

use std::sync::OnceLock;

use parity_scale_codec::{Compact, Decode, Encode};

use super::failure::Failure;
use super::state::apis;
use super::subnets::{Question, Subnets};
use crate::embedded::execute::{SPEC_NAME, WEIGHT};
use crate::embedded::extrinsic::{SPEC_VERSION, TRANSACTION_VERSION};
use crate::embedded::storage::{AccountId, State};
use crate::embedded::system;
use crate::runtime::{BUNDLED_VERSION, Runtime, bundled, bundled_with_slot};

/// The format of the metadata that comes with this crate.
const METADATA_VERSION: u32 = 15;

/// What a chain says of its runtime, worked out when it is first asked for.
#[derive(Debug, Default)]
pub(in crate::embedded) struct Described {
    metadata: OnceLock<Vec<u8>>,
    runtime: OnceLock<Option<Runtime>>,
}

impl Described {
    /// The runtime's metadata, with the speed of a chain with this block time.
    pub(super) fn metadata(&self, block_time_ms: u64) -> &[u8] {
        self.metadata
            .get_or_init(|| bundled_with_slot(block_time_ms))
    }

    /// The runtime as that metadata describes it.
    fn runtime(&self) -> Result<&Runtime, Failure> {
        let runtime = self
            .runtime
            .get_or_init(|| Runtime::from_metadata(bundled(), BUNDLED_VERSION).ok());
        runtime
            .as_ref()
            .ok_or_else(|| Failure::execution("the runtime has no metadata"))
    }

    /// Carries a runtime call out on a state.
    pub(super) fn call(
        &self,
        state: &impl State,
        block_time_ms: u64,
        (method, data): (&str, &[u8]),
    ) -> Result<Vec<u8>, Failure> {
        match method {
            "Core_version" => Ok(version()),
            "Metadata_metadata_versions" => Ok(vec![METADATA_VERSION].encode()),
            "Metadata_metadata_at_version" => {
                let wanted: u32 = arguments(method, data)?;
                let known = wanted == METADATA_VERSION;
                Ok(known.then(|| self.metadata(block_time_ms)).encode())
            }
            "AccountNonceApi_account_nonce" => {
                let account: AccountId = arguments(method, data)?;
                Ok(system::nonce(state, account).encode())
            }
            "TransactionPaymentApi_query_info" => {
                Ok((Compact(WEIGHT.0), Compact(WEIGHT.1), 0_u8, 0_u64).encode())
            }
            "TransactionPaymentApi_query_fee_details" => Ok(vec![0]),
            "TransactionPaymentApi_query_length_to_fee"
            | "TransactionPaymentApi_query_weight_to_fee" => Ok(0_u64.encode()),
            _ => self.described(state, method, data),
        }
    }

    fn described(&self, state: &impl State, name: &str, data: &[u8]) -> Result<Vec<u8>, Failure> {
        let runtime = self.runtime()?;
        let question = Question::named(name).ok_or_else(|| missing(name))?;
        let (api, method) = name.split_once('_').ok_or_else(|| missing(name))?;
        let arguments = runtime
            .runtime_api_arguments(api, method, data)
            .map_err(|_| bad_input(name))?;
        let answer = Subnets { runtime, state }.answer(question, &arguments);
        runtime
            .runtime_api_result(api, method, &answer)
            .map_err(|error| Failure::execution(&error.to_string()))
    }
}

fn version() -> Vec<u8> {
    let apis: Vec<([u8; 8], u32)> = apis().collect();
    let versions = (1_u32, SPEC_VERSION, 1_u32);
    let names = (SPEC_NAME, SPEC_NAME);
    (names, versions, apis, TRANSACTION_VERSION, 1_u8).encode()
}

/// All of a call's arguments.
fn arguments<T: Decode>(method: &str, data: &[u8]) -> Result<T, Failure> {
    let input = &mut &*data;
    match T::decode(input) {
        Ok(arguments) if input.is_empty() => Ok(arguments),
        _ => Err(bad_input(method)),
    }
}

fn bad_input(method: &str) -> Failure {
    Failure::execution(&format!(
        "Execution aborted due to trap: bad input data provided to {method}"
    ))
}

fn missing(method: &str) -> Failure {
    // A method's name is of its caller's choosing, and so is its length.
    let shown: String = method.chars().take(80).collect();
    Failure::execution(&format!(
        "Runtime API error: Exported method {shown} is not found"
    ))
}
