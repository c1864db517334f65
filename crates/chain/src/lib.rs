//! The chain: what keeps time, identities, commitments and rewards.
//!
//! Participants of the network do not trust each other's clocks, lists or scores. They agree on
//! four things only, and all four come from a chain:
//!
//! * **time**: the number of the newest block, and its hash as randomness nobody could know before;
//! * **identities**: a table of neurons, each a hotkey with a stake and perhaps a permit to judge;
//! * **commitments**: one small record per hotkey, overwritten as a whole, that says in which block
//!   and at which place in it something was promised;
//! * **weights**: how a validator wants the others to be rewarded.
//!
//! Everything large stays elsewhere; the chain holds hashes and pointers.
//!
//! # Reading and writing
//!
//! [`Chain`] is the port: seven methods, six that read and one that writes. A read is pinned to a
//! block and says which one, so a decision is never based on two different moments. A write returns
//! when its inclusion has been *seen*; that it was accepted for sending means nothing. If it was
//! not seen the answer is [`ChainError::Unknown`], and asking again takes up the same operation.
//!
//! ```text
//! role ── Chain ── SubtensorChain ── RpcTransport ─┬─ in this process ── EmbeddedChain::handle
//!                  (reads, waits,                  └─ HTTP POST ──┬───── the same, or
//!                   preflight, one                                └───── a node of Bittensor
//!                   writer per hotkey)
//! ```
//!
//! There is one adapter, [`subtensor::SubtensorChain`], and it speaks what a Substrate node speaks:
//! storage keys, SCALE, signed extrinsics, metadata fetched at run time ([`runtime`]).
//!
//! # The embedded chain
//!
//! [`embedded::EmbeddedChain`] needs no node, no account and no coins, and answers the same protocol:
//! the state under real storage keys, real sr25519 signatures, nonces and eras, the calls, limits and
//! errors of a Bittensor subnet, a log that survives being killed. Its blocks are a function of its
//! extrinsics. Everybody reaches it through JSON-RPC, also in the same process, so that the path that
//! is tested is the path that is used.
//!
//! ```
//! use connito_chain::embedded::{EmbeddedChain, GenesisNeuron, GenesisSpec};
//! use connito_chain::keys::{Keypair, Signer};
//! use connito_chain::subtensor::{Connection, SubtensorChain};
//! use connito_chain::{At, Chain, Field, Op};
//! use connito_protocol::ids::Netuid;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let miner = Keypair::generate()?;
//! let mut spec = GenesisSpec::new(Netuid(1), miner.hotkey());
//! spec.neurons.push(GenesisNeuron {
//!     hotkey: miner.hotkey(),
//!     coldkey: None,
//!     stake_rao: 0,
//!     validator_permit: false,
//! });
//! let chain = EmbeddedChain::in_memory(spec)?;
//! tokio::spawn(chain.clone().run(std::future::pending()));
//!
//! let client = SubtensorChain::connect(chain, Connection::default()).await?;
//! let promise = Op::Commit(vec![Field::Blake2_256([7; 32])]);
//! let receipt = client.submit(&miner, promise).await?;
//! let records = client.commitments(At::Hash(receipt.included.hash)).await?;
//! assert_eq!(records.value[0].block, receipt.included.number);
//! # Ok(())
//! # }
//! ```
//!
//! # Requests between participants
//!
//! [`btauth`] signs and judges HTTP requests with the same hotkeys; [`keys`] holds and stores them.

#![forbid(unsafe_code)]

pub mod btauth;
mod chain;
pub mod embedded;
mod error;
pub mod fields;
mod hash;
mod hex_text;
pub mod keys;
mod operation;
pub mod parameters;
pub mod rpc;
pub mod runtime;
pub mod subtensor;
pub mod timelock;
mod weights;

pub use chain::{
    Arrival, At, BlockRef, Chain, ChainId, ChainKind, CommitmentRecord, Confirmation, EpochState,
    Metagraph, Neuron, Pinned, Receipt, RevealPlan, SubnetParams, WeightRow,
};
pub use error::{ChainError, Limit, PoolError, Reject, TransportError};
pub use fields::Field;
pub use operation::{Endpoint, Op, OperationId};
pub use weights::{quantise, upscale};
