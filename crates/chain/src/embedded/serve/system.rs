//! `system_*`: what the node says of itself.

use serde_json::{Value, json};

use super::failure::Failure;
use crate::embedded::EmbeddedChain;

impl EmbeddedChain {
    pub(super) fn about_node(&self, method: &str) -> Result<Value, Failure> {
        Ok(match method {
            "system_name" => json!("Connito embedded chain"),
            "system_version" => json!(env!("CARGO_PKG_VERSION")),
            "system_chain" => json!("Connito"),
            "system_chainType" => json!("Local"),
            "system_nodeRoles" => json!(["Authority"]),
            "system_peers" => json!([]),
            "system_health" => {
                json!({ "peers": 0, "isSyncing": false, "shouldHavePeers": false })
            }
            "system_properties" => {
                json!({ "ss58Format": 42, "tokenDecimals": 9, "tokenSymbol": "TAO" })
            }
            "system_syncState" => {
                let head = self.head().number.0;
                json!({ "startingBlock": 0, "currentBlock": head, "highestBlock": head })
            }
            _ => return Err(Failure::method_not_found()),
        })
    }
}
