//! What a validator and a miner write in a whole epoch fits the chain's space, on the chain itself.
//!
//! Eight cycles of 45 blocks make an epoch of 360. A validator writes a report, perhaps an attestation,
//! and a vote in each; a miner a seal and its opening. The longest report that the protocol puts on the
//! chain itself is as long as the space of an epoch allows; what is longer is mirrored.

use std::sync::Arc;

use connito_chain::embedded::{EmbeddedChain, GenesisSpec};
use connito_chain::{At, Chain, Field, Op, Reject};
use connito_protocol::announcement::{Announcement, Attestation, Mirrored, Vote};
use connito_protocol::ids::{BlobId, Block, Cycle, GroupId, Seal, StateId};

use crate::network::*;

const EPOCH: u16 = 360;
const CYCLES: u64 = 8;

fn field(bytes: Vec<u8>) -> Op {
    Op::Commit(vec![if bytes.len() <= 128 {
        Field::Raw(bytes)
    } else {
        Field::BigRaw(bytes)
    }])
}

fn record(announcement: &Announcement) -> Op {
    field(announcement.encode())
}

fn vote(cycle: Cycle) -> Op {
    record(&Announcement::Voted(Vote {
        cycle,
        approves: true,
        candidate: StateId([1; 32]),
        fallback: StateId([2; 32]),
        task: [4; 8],
    }))
}

/// Every write of a participant, one a block, as the windows have them.
async fn write(chain: &Arc<EmbeddedChain>, client: &Client, seed: u8, op: Op) {
    let signed = client.prepare(&pair(seed), &op).await.unwrap();
    chain.submit(&signed.bytes).unwrap();
    chain.advance(1).unwrap();
    let records = client.commitments(At::Head).await.unwrap().value;
    let hotkey = connito_chain::keys::Signer::hotkey(&pair(seed));
    let mine = records.iter().find(|record| record.hotkey == hotkey);
    assert_eq!(mine.unwrap().block, chain.head().number, "{op:?}");
}

async fn at_an_epochs_begin() -> (Arc<EmbeddedChain>, Client) {
    let chain = EmbeddedChain::in_memory(GenesisSpec {
        tempo: EPOCH,
        ..spec()
    })
    .unwrap();
    chain.advance(EPOCH.into()).unwrap();
    let client = connect(Arc::clone(&chain)).await;
    (chain, client)
}

#[tokio::test]
async fn an_epoch_takes_every_write_of_its_eight_cycles() {
    let (chain, client) = at_an_epochs_begin().await;
    let begin = chain.head().number;
    for number in 0..CYCLES {
        let cycle = Cycle(number);
        let sealed = Announcement::Sealed {
            cycle,
            group: GroupId(1),
            seal: Seal([1; 32]),
        };
        let revealed = Announcement::Revealed {
            cycle,
            group: GroupId(1),
            seal: Seal([1; 32]),
            update: BlobId([2; 32]),
            salt: [3; 16],
        };
        write(&chain, &client, MINER, record(&sealed)).await;
        write(&chain, &client, MINER, record(&revealed)).await;
        // 287 bytes: the longest report beside a vote.
        write(&chain, &client, VALIDATOR, field(vec![7; 287])).await;
        write(&chain, &client, VALIDATOR, vote(cycle)).await;
        let mirrored = Announcement::Reported(Mirrored {
            cycle,
            submissions: [0; 8],
            body: BlobId([3; 32]),
        });
        let attested = Announcement::Attested(Attestation {
            cycle,
            bodies: [0; 8],
            held: vec![0xff; 8],
        });
        write(&chain, &client, SECOND_VALIDATOR, record(&mirrored)).await;
        write(&chain, &client, SECOND_VALIDATOR, record(&attested)).await;
        write(&chain, &client, SECOND_VALIDATOR, vote(cycle)).await;
    }
    let epoch = client.metagraph(At::Head).await.unwrap().value.epoch;
    assert_eq!(epoch.last_epoch_block, begin, "all in one epoch");
}

/// Eight longest reports with their votes leave four bytes; nothing more goes in before the next epoch.
#[tokio::test]
async fn one_write_more_is_refused_before_it_is_signed_and_taken_in_the_next_epoch() {
    let (chain, client) = at_an_epochs_begin().await;
    for number in 0..CYCLES {
        write(&chain, &client, VALIDATOR, field(vec![7; 287])).await;
        write(&chain, &client, VALIDATOR, vote(Cycle(number))).await;
    }
    let too_much = client.submit(&pair(VALIDATOR), vote(Cycle(9))).await;
    assert_eq!(
        rejection(too_much),
        Reject::CommitSpace {
            used: Some(3_096),
            max: 3_100,
            resets_at: Some(Block(u64::from(EPOCH) * 2)),
        }
    );
    // One block before the epoch ends there is no room yet, but the block that will have it opens the
    // next one: whether an operation is refused is decided for the block that takes it.
    let left = u64::from(EPOCH) * 2 - chain.head().number.0;
    chain.advance(left - 1).unwrap();
    let (seed, op) = (pair(VALIDATOR), vote(Cycle(9)));
    let client = Arc::new(client);
    let submitting = {
        let client = Arc::clone(&client);
        tokio::spawn(async move { client.submit(&seed, op).await })
    };
    while nonce(&chain, VALIDATOR) == CYCLES * 2 {
        tokio::task::yield_now().await;
    }
    chain.advance(1).unwrap();
    let receipt = submitting.await.unwrap().unwrap();
    assert_eq!(receipt.included.number, Block(u64::from(EPOCH) * 2));
}
