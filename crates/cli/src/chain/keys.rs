//! What a person means by a key or an address: an ss58 address, a key file, or a development name.
//!
//! The secrets of development names are public, so such a name is taken only where the chain is one of
//! this machine: on any other chain its money would be somebody else's within seconds.

use std::path::Path;

use anyhow::{Context, anyhow};
use connito_chain::keys::{self, Keypair, Signer, Stored};
use connito_protocol::ids::Hotkey;

use crate::chain_access::is_on_this_machine;
use crate::exit::{Blame, Failure};
use crate::password;

/// Who signs.
pub(super) fn signer(key: &str, endpoint: &str) -> Result<Keypair, Failure> {
    match development(key, endpoint)? {
        Some(pair) => Ok(pair),
        // A password may have to be typed, and takes seconds to check.
        None => tokio::task::block_in_place(|| password::unlock(Path::new(key))),
    }
}

/// Whose address is meant. A key file needs no password for it if it is not
/// encrypted.
pub(super) fn account(spelled: &str, endpoint: &str) -> Result<Hotkey, Failure> {
    if let Some(pair) = development(spelled, endpoint)? {
        return Ok(pair.hotkey());
    }
    let path = Path::new(spelled);
    // Nobody keeps keys under names that look like addresses.
    if !path.exists() {
        let what = || format!("{spelled:.80} is neither an address nor a key file");
        return spelled.parse().with_context(what).input();
    }
    match keys::open(path).input()? {
        Stored::Public(address) => Ok(address),
        Stored::Pair(pair) => Ok(pair.hotkey()),
        Stored::Locked(_) => {
            let pair = tokio::task::block_in_place(|| password::unlock(path));
            Ok(pair?.hotkey())
        }
    }
}

fn development(key: &str, endpoint: &str) -> Result<Option<Keypair>, Failure> {
    if !key.starts_with("//") {
        return Ok(None);
    }
    let pair = Keypair::development(key)
        .ok_or_else(|| anyhow!("{key:.80} is no development name: they are like //Alice"))
        .input()?;
    if !is_on_this_machine(endpoint) {
        return Err(Failure::Input(anyhow!(
            "{key:.80} is a key that everybody has, and {endpoint:.80} is no chain of this machine"
        )));
    }
    Ok(Some(pair))
}
