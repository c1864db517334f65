//! Single figures at one block: what an account has, what is staked, what a parameter is.
//!
//! For people who set a subnet up by hand and want to see what holds. Roles need none of them.

use connito_protocol::ids::Hotkey;

use super::SubtensorChain;
use super::metagraph::PALLET;
use super::view::Wanted;
use crate::chain::{At, Pinned};
use crate::error::ChainError;
use crate::parameters::Parameter;
use crate::rpc::RpcTransport;
use crate::runtime::Value;

type Entry<'a> = (&'static str, &'static str, &'a [Value]);

impl<T: RpcTransport> SubtensorChain<T> {
    /// The money of an account in rao, without what it has staked.
    ///
    /// # Errors
    /// The chain cannot be read, or its runtime has another shape.
    pub async fn balance(&self, account: Hotkey, at: At) -> Result<Pinned<u64>, ChainError> {
        let entry = ("System", "Account", &[account.0.into()][..]);
        self.figure(at, entry, |info| {
            info.field("data")?.field("free")?.number()
        })
        .await
    }

    /// The stake on a hotkey in the subnet, in rao, whoever owns it.
    ///
    /// # Errors
    /// The chain cannot be read, or its runtime has another shape.
    pub async fn stake(&self, hotkey: Hotkey, at: At) -> Result<Pinned<u64>, ChainError> {
        let keys = [hotkey.0.into(), self.identity.netuid.0.into()];
        let entry = (PALLET, "TotalHotkeyAlpha", &keys[..]);
        self.figure(at, entry, Value::number).await
    }

    /// A parameter of the subnet: 0 or 1 for what is off or on.
    ///
    /// # Errors
    /// The chain cannot be read, or its runtime has another shape.
    pub async fn parameter(
        &self,
        parameter: &Parameter,
        at: At,
    ) -> Result<Pinned<u64>, ChainError> {
        let entry = (PALLET, parameter.item, &[self.identity.netuid.0.into()][..]);
        let read = |value: &Value| value.number().or_else(|| value.as_bool().map(u64::from));
        self.figure(at, entry, read).await
    }

    async fn figure(
        &self,
        at: At,
        (pallet, item, keys): Entry<'_>,
        read: impl FnOnce(&Value) -> Option<u64>,
    ) -> Result<Pinned<u64>, ChainError> {
        let view = self.node.pinned(at).await?;
        let mut wanted = Wanted::default();
        let place = view.want(&mut wanted, (pallet, item), keys)?;
        let value = view.read(wanted).await?.get(place, read)?;
        Ok(Pinned {
            at: view.block,
            value,
        })
    }
}
