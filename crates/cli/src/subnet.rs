//! `connito subnet check`: does this subnet suit the network, and what would mend it?
//!
//! Connects, holds the chain's first block and its runtime's shapes against what this program was
//! written for, reads the subnet's parameters at one block and judges each against the network's rules
//! (`verdicts.rs`). Nothing is signed and nothing changed; each call that would mend something is
//! printed, for the owner or those who govern the chain to make.

mod verdicts;

use std::fmt::Write as _;

use anyhow::anyhow;
use connito_chain::parameters::{Parameter, SetBy, Setter};
use connito_chain::runtime::{Misfit, Runtime};
use connito_chain::subtensor::SubnetState;
use connito_chain::{At, Chain, ChainError};
use connito_protocol::ids::{BlockHash, Netuid};
use connito_protocol::rules::Rules;
use serde_json::json;

use crate::args::subnet::{CheckArguments, SubnetCommand};
use crate::chain_access::{Addresses, ChainAccess, RemoteChain};
use crate::exit::{Blame, Failure};
use crate::output::print;
use verdicts::{Demands, Problem, Verdict, judge};

/// Runs the command.
pub(crate) async fn run(command: SubnetCommand) -> Result<(), Failure> {
    match command {
        SubnetCommand::Check(arguments) => check(arguments).await,
    }
}

/// What was found at one block.
struct Findings {
    state: SubnetState,
    runtime: Runtime,
    finality_lag: u64,
    verdicts: Vec<Verdict>,
}

async fn check(arguments: CheckArguments) -> Result<(), Failure> {
    let genesis = arguments
        .genesis
        .as_deref()
        .map(parse_genesis)
        .transpose()?;
    let access = ChainAccess {
        addresses: Addresses::Several(arguments.endpoint.clone()),
        netuid: arguments.netuid.map(Netuid),
        genesis,
        metadata_folder: None,
    };
    let chain = access.connect(access.pool()?).await.map_err(blame)?;
    let findings = find(&chain, arguments.cycle).await.map_err(blame)?;
    print(&if arguments.json {
        json_line(&chain, &findings)
    } else {
        page(&chain, &findings)
    })?;
    let unsuited = findings.verdicts.iter().filter(|v| v.problem.is_some());
    match (unsuited.count(), findings.runtime.misfits().len()) {
        (0, 0) => Ok(()),
        (parameters, shapes) => Err(Failure::Check(anyhow!(
            "subnet {} does not suit the network: {parameters} parameters and {shapes} parts of the \
             runtime are not as needed",
            chain.identity().netuid
        ))),
    }
}

async fn find(chain: &RemoteChain, cycle: u64) -> Result<Findings, ChainError> {
    let runtime = chain.runtime().await?;
    let state = chain.subnet_state(At::Head).await?;
    let finalized = chain.block(At::Finalized).await?;
    let demands = Demands {
        cycle_blocks: cycle,
        weight_interval: Rules::default().rewards.weight_interval,
    };
    Ok(Findings {
        finality_lag: state.block.number.0.saturating_sub(finalized.number.0),
        verdicts: judge(&state, demands),
        state,
        runtime,
    })
}

fn parse_genesis(text: &str) -> Result<BlockHash, Failure> {
    let hash = text.parse();
    hash.map_err(|_| anyhow!("--genesis {text} is not 0x and 64 hexadecimal digits"))
        .input()
}

/// A subnet that is not there is the user's mistake, a chain that is not there is not.
fn blame(error: ChainError) -> Failure {
    match error {
        ChainError::NoSubnet(_)
        | ChainError::WhichSubnet { .. }
        | ChainError::OtherChain { .. } => Failure::Input(error.into()),
        other => Failure::Environment(other.into()),
    }
}

fn page(chain: &RemoteChain, findings: &Findings) -> String {
    let identity = chain.identity();
    let state = &findings.state;
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<32}{value}");
    };
    line("first block", identity.genesis.to_string());
    line(
        "newest block",
        format!(
            "{}, {} ahead of the final one",
            state.block.number, findings.finality_lag
        ),
    );
    line(
        "time between blocks",
        format!("{} ms", identity.block_time_ms),
    );
    line(
        "runtime",
        format!(
            "spec {}, {}",
            findings.runtime.version().spec,
            shapes(&findings.runtime)
        ),
    );
    line(
        "subnet",
        format!(
            "{}, {} of {} slots, {} with a permit",
            identity.netuid, state.neurons, state.params.max_uids, state.permits
        ),
    );
    line("registration", format!("{} rao now", state.params.burn_rao));
    text.push('\n');
    text + judgements(identity.netuid, findings).trim_end()
}

/// A line for each parameter, and two more for each that should be mended; then what the runtime lacks.
fn judgements(netuid: Netuid, findings: &Findings) -> String {
    let mut text = String::new();
    for verdict in &findings.verdicts {
        let mark = if verdict.problem.is_some() {
            "mend"
        } else {
            "ok"
        };
        let _ = writeln!(
            text,
            "{mark:<6}{:<32}{}",
            verdict.parameter.name, verdict.value
        );
        if let Some(problem) = &verdict.problem {
            let _ = writeln!(text, "      {}", problem.why);
            let (setter, call) = call(netuid, (verdict.parameter, problem), &findings.runtime);
            let _ = writeln!(text, "      {}: {call}", caller(setter));
        }
    }
    for misfit in findings.runtime.misfits() {
        let _ = writeln!(
            text,
            "{:<6}{}.{}: {}",
            "shape",
            misfit.used.pallet,
            misfit.used.name,
            found(misfit)
        );
    }
    text
}

fn shapes(runtime: &Runtime) -> String {
    match runtime.misfits().len() {
        0 => "every call and item as this program knows them".to_owned(),
        1 => "one call or item not as this program knows it".to_owned(),
        count => format!("{count} calls and items not as this program knows them"),
    }
}

fn found(misfit: &Misfit) -> String {
    match &misfit.found {
        None => "absent".to_owned(),
        Some(found) => format!("{} expected, {found} found", misfit.used.layout),
    }
}

fn caller(setter: Setter) -> &'static str {
    match setter.by {
        SetBy::Owner => "the owner calls",
        SetBy::Root => "only the chain's root can call",
    }
}

/// The call that mends it, as the owner's tools show calls.
fn call(
    netuid: Netuid,
    (parameter, problem): (&Parameter, &Problem),
    runtime: &Runtime,
) -> (Setter, String) {
    let setter = parameter.setter(runtime, problem.better);
    let shown = format!(
        "{}.{}(netuid={netuid}, {}={})",
        setter.pallet,
        setter.call,
        parameter.argument,
        parameter.shown(problem.better)
    );
    (setter, shown)
}

fn json_line(chain: &RemoteChain, findings: &Findings) -> String {
    let identity = chain.identity();
    let state = &findings.state;
    let verdicts = findings.verdicts.iter().map(|verdict| {
        let problem = verdict.problem.as_ref();
        let mended = problem.map(|problem| {
            let meant = (verdict.parameter, problem);
            call(identity.netuid, meant, &findings.runtime)
        });
        let set_by = mended
            .as_ref()
            .map_or(verdict.parameter.set_by, |(setter, _)| setter.by);
        json!({
            "parameter": verdict.parameter.name,
            "value": verdict.value,
            "suits": problem.is_none(),
            "why": problem.map(|problem| &problem.why),
            "better": problem.map(|problem| problem.better),
            "call": mended.map(|(_, call)| call),
            "root_only": set_by == SetBy::Root,
        })
    });
    let misfits = findings.runtime.misfits().iter().map(|misfit| {
        json!({
            "item": format!("{}.{}", misfit.used.pallet, misfit.used.name),
            "expected": misfit.used.layout,
            "found": misfit.found,
        })
    });
    json!({
        "genesis": identity.genesis.to_string(),
        "netuid": identity.netuid,
        "spec": findings.runtime.version().spec,
        "block": state.block.number,
        "finality_lag_blocks": findings.finality_lag,
        "block_time_ms": identity.block_time_ms,
        "neurons": state.neurons,
        "permits": state.permits,
        "burn_rao": state.params.burn_rao,
        "parameters": verdicts.collect::<Vec<_>>(),
        "misfits": misfits.collect::<Vec<_>>(),
    })
    .to_string()
}
