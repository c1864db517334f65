//! Setting up a network by hand: money, slots, stake and parameters, one signed operation each.
//!
//! Every command goes through the adapter that roles use, waits until its operation is in a block, and
//! tells what holds at that block. What the chain refuses is a failed check; a chain that does not
//! answer is the environment's fault.

use anyhow::anyhow;
use connito_chain::keys::Signer;
use connito_chain::parameters::{Kind, PARAMETERS, Parameter, SetBy};
use connito_chain::{At, Chain, ChainError, Op, OperationId, Receipt, Reject};
use connito_protocol::ids::{Block, Hotkey, Netuid, Uid};
use serde::Serialize;

use super::keys::{account, signer};
use crate::args::chain::{
    FaucetArguments, ReachArguments, RegisterArguments, SetHyperparameterArguments, StakeArguments,
};
use crate::chain_access::{ChainAccess, RemoteChain};
use crate::exit::{Blame, Failure};
use crate::output::print;
use crate::tao::Tao;

/// What holds at the block that included an operation; what does not concern it is left out.
#[derive(Debug, Serialize)]
struct Holds {
    block: Block,
    operation: OperationId,
    netuid: Netuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<Hotkey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    balance_rao: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hotkey: Option<Hotkey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<Uid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stake_rao: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameter: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<u64>,
}

impl Holds {
    fn at(chain: &RemoteChain, receipt: &Receipt) -> Self {
        Self {
            block: receipt.included.number,
            operation: receipt.operation,
            netuid: chain.identity().netuid,
            account: None,
            balance_rao: None,
            hotkey: None,
            uid: None,
            stake_rao: None,
            parameter: None,
            value: None,
        }
    }

    fn tell(&self, sentence: &str, reach: &ReachArguments) -> Result<(), Failure> {
        match reach.json {
            true => print(&serde_json::to_string(self).environment()?),
            false => print(sentence),
        }
    }
}

/// `chain faucet`.
pub(super) async fn faucet(arguments: &FaucetArguments) -> Result<(), Failure> {
    let reach = &arguments.reach;
    let from = signer(&arguments.from, &reach.endpoint)?;
    let to = account(&arguments.to, &reach.endpoint)?;
    let rao = arguments.tao.0;
    let chain = connect(reach).await?;
    let receipt = chain.submit(&from, Op::Transfer { to, rao }).await;
    let receipt = receipt.map_err(blame)?;
    let balance = balance(&chain, to, &receipt).await?;
    let block = receipt.included.number;
    Holds {
        account: Some(to),
        balance_rao: Some(balance.0),
        ..Holds::at(&chain, &receipt)
    }
    .tell(&format!("{to} has {balance} at block {block}"), reach)
}

/// `chain register`.
pub(super) async fn register(arguments: &RegisterArguments) -> Result<(), Failure> {
    let reach = &arguments.reach;
    let coldkey = signer(&arguments.coldkey, &reach.endpoint)?;
    let hotkey = account(&arguments.hotkey, &reach.endpoint)?;
    let chain = connect(reach).await?;
    let operation = Op::Register {
        hotkey,
        max_burn_rao: arguments.max_burn.map(|burn| burn.0),
    };
    let receipt = chain.submit(&coldkey, operation).await.map_err(blame)?;
    let at = At::Hash(receipt.included.hash);
    let metagraph = chain.metagraph(at).await.map_err(blame)?.value;
    let uid = metagraph.neuron(hotkey).map(|neuron| neuron.uid);
    let uid = uid.ok_or_else(|| Failure::Check(anyhow!("{hotkey} has lost its slot again")))?;
    let owner = coldkey.hotkey();
    let balance = balance(&chain, owner, &receipt).await?;
    let (netuid, block) = (metagraph.netuid, receipt.included.number);
    let sentence = format!(
        "{hotkey} has uid {uid} in subnet {netuid} since block {block}; {owner} has {balance} left"
    );
    Holds {
        account: Some(owner),
        balance_rao: Some(balance.0),
        hotkey: Some(hotkey),
        uid: Some(uid),
        ..Holds::at(&chain, &receipt)
    }
    .tell(&sentence, reach)
}

/// `chain stake`.
pub(super) async fn stake(arguments: &StakeArguments) -> Result<(), Failure> {
    let reach = &arguments.reach;
    let coldkey = signer(&arguments.coldkey, &reach.endpoint)?;
    let hotkey = account(&arguments.hotkey, &reach.endpoint)?;
    let rao = arguments.tao.0;
    let chain = connect(reach).await?;
    let receipt = chain.submit(&coldkey, Op::AddStake { hotkey, rao }).await;
    let receipt = receipt.map_err(blame)?;
    let at = At::Hash(receipt.included.hash);
    let stake = Tao(chain.stake(hotkey, at).await.map_err(blame)?.value);
    let owner = coldkey.hotkey();
    let balance = balance(&chain, owner, &receipt).await?;
    let (netuid, block) = (chain.identity().netuid, receipt.included.number);
    let sentence = format!(
        "{hotkey} has a stake of {stake} in subnet {netuid} at block {block}; \
         {owner} has {balance} left"
    );
    Holds {
        account: Some(owner),
        balance_rao: Some(balance.0),
        hotkey: Some(hotkey),
        stake_rao: Some(stake.0),
        ..Holds::at(&chain, &receipt)
    }
    .tell(&sentence, reach)
}

/// `chain set-hyperparameter`.
pub(super) async fn set(arguments: &SetHyperparameterArguments) -> Result<(), Failure> {
    let reach = &arguments.reach;
    let (parameter, value) = setting(&arguments.name, &arguments.value)?;
    let owner = signer(&arguments.owner, &reach.endpoint)?;
    let chain = connect(reach).await?;
    let operation = Op::SetParameter { parameter, value };
    let receipt = match chain.submit(&owner, operation).await {
        Ok(receipt) => receipt,
        Err(error) => return Err(unset(&chain, &owner, (parameter, value), error).await),
    };
    let at = At::Hash(receipt.included.hash);
    let now = chain.parameter(parameter, at).await.map_err(blame)?.value;
    let (netuid, block) = (chain.identity().netuid, receipt.included.number);
    let shown = match parameter.kind {
        Kind::Number => now.to_string(),
        Kind::Switch => (now != 0).to_string(),
    };
    let sentence = format!(
        "{} of subnet {netuid} is {shown} at block {block}",
        parameter.name
    );
    Holds {
        parameter: Some(parameter.name),
        value: Some(now),
        ..Holds::at(&chain, &receipt)
    }
    .tell(&sentence, reach)
}

fn setting(name: &str, value: &str) -> Result<(&'static Parameter, u64), Failure> {
    let parameter = Parameter::named(name).ok_or_else(|| {
        let names: Vec<_> = PARAMETERS.iter().map(|known| known.name).collect();
        Failure::Input(anyhow!(
            "{name:.80} is no parameter: they are {}",
            names.join(", ")
        ))
    })?;
    let is_number = !value.is_empty() && value.bytes().all(|digit| digit.is_ascii_digit());
    let (expected, value_given) = match (parameter.kind, value) {
        (Kind::Switch, "true" | "1") => ("", Some(1)),
        (Kind::Switch, "false" | "0") => ("", Some(0)),
        (Kind::Switch, _) => ("true or false", None),
        (Kind::Number, _) if is_number => ("a number of 64 bits", value.parse().ok()),
        (Kind::Number, _) => ("a whole number", None),
    };
    let value = value_given
        .ok_or_else(|| anyhow!("{name} cannot be {value:.80}: expected {expected}"))
        .input()?;
    Ok((parameter, value))
}

/// Why a parameter could not be set, as a person would say it.
async fn unset(
    chain: &RemoteChain,
    owner: &impl Signer,
    (parameter, value): (&'static Parameter, u64),
    error: ChainError,
) -> Failure {
    let (name, who) = (parameter.name, owner.hotkey());
    match error {
        // Whether it is the value that does not fit shows where another one does.
        ChainError::Shape { .. } => {
            let operation = Op::SetParameter {
                parameter,
                value: 0,
            };
            match chain.prepare(owner, &operation).await {
                Ok(_) => Failure::Input(anyhow!("{name} cannot be {value}: it has fewer bits")),
                Err(error) => blame(error),
            }
        }
        ChainError::Rejected(Reject::Dispatch { name: refusal, .. }) if refusal == "BadOrigin" => {
            let by = match parameter.set_by {
                SetBy::Owner => "the subnet's owner",
                SetBy::Root => "those who govern the chain",
            };
            Failure::Check(anyhow!("{name} is set by {by}, which {who} is not"))
        }
        error => blame(error),
    }
}

async fn connect(reach: &ReachArguments) -> Result<RemoteChain, Failure> {
    let access = ChainAccess {
        netuid: reach.netuid.map(Netuid),
        ..ChainAccess::to(&reach.endpoint)
    };
    let pool = access.pool()?;
    access.connect(pool).await.map_err(blame)
}

async fn balance(chain: &RemoteChain, account: Hotkey, receipt: &Receipt) -> Result<Tao, Failure> {
    let balance = chain
        .balance(account, At::Hash(receipt.included.hash))
        .await;
    Ok(Tao(balance.map_err(blame)?.value))
}

/// What the chain says no to was checked and does not hold.
fn blame(error: ChainError) -> Failure {
    match error {
        ChainError::Rejected(_) | ChainError::Pool(_) => Failure::Check(error.into()),
        ChainError::NoSubnet(_) | ChainError::WhichSubnet { .. } => Failure::Input(error.into()),
        _ => Failure::Environment(error.into()),
    }
}
