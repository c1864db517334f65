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
use crate::runtime::{BUNDLED_VERSION, Runtime, as_version_14, bundled, bundled_with_slot};

/// The formats in which the metadata is handed out. A node that says nothing of a format means the first.
const METADATA_VERSIONS: [u32; 2] = [14, 15];

/// What a chain says of its runtime, worked out when it is first asked for.
#[derive(Debug, Default)]
pub(in crate::embedded) struct Described {
    /// In the format of version 15, which comes with this crate.
    metadata: OnceLock<Vec<u8>>,
    /// The same in that of version 14.
    earlier: OnceLock<Option<Vec<u8>>>,
    runtime: OnceLock<Option<Runtime>>,
}

impl Described {
    /// The runtime's metadata in a format, with the speed of a chain with this block time.
    fn metadata_of(&self, version: u32, block_time_ms: u64) -> Option<&[u8]> {
        let metadata = || {
            self.metadata
                .get_or_init(|| bundled_with_slot(block_time_ms))
        };
        match version {
            14 => self
                .earlier
                .get_or_init(|| as_version_14(metadata()).ok())
                .as_deref(),
            15 => Some(metadata()),
            _ => None,
        }
    }

    /// The runtime's metadata in the format that every tool reads.
    pub(super) fn metadata(&self, block_time_ms: u64) -> Result<&[u8], Failure> {
        self.metadata_of(METADATA_VERSIONS[0], block_time_ms)
            .ok_or_else(no_metadata)
    }

    /// The runtime as that metadata describes it.
    fn runtime(&self) -> Result<&Runtime, Failure> {
        let runtime = self
            .runtime
            .get_or_init(|| Runtime::from_metadata(bundled(), BUNDLED_VERSION).ok());
        runtime.as_ref().ok_or_else(no_metadata)
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
            "Metadata_metadata" => Ok(self.metadata(block_time_ms)?.encode()),
            "Metadata_metadata_versions" => Ok(METADATA_VERSIONS.to_vec().encode()),
            "Metadata_metadata_at_version" => {
                let wanted: u32 = arguments(method, data)?;
                Ok(self.metadata_of(wanted, block_time_ms).encode())
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

fn no_metadata() -> Failure {
    Failure::execution("the runtime has no metadata")
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
