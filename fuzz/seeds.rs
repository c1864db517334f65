//! Writes inputs to begin with to `corpus/TARGET`: one sound example of every kind, and what a small
//! network of real machines says, writes and hears in two cycles.
//!
//! A fuzzer finds its way from a sound file to a damaged one sooner than the other way round.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use connito_chain::keys::Signer as _;
use connito_chain::runtime::bundled;
use connito_fuzz::chain;
use connito_fuzz::history::networks;
use connito_fuzz::network::{NETUID, Network, OWNER, state, task};
use connito_fuzz::update;
use connito_learning::shard::Shard;
use connito_learning::wire::encode;
use connito_protocol::Identity;
use connito_protocol::announcement::{Announcement, Attestation, Mirrored, Vote};
use connito_protocol::event::Event;
use connito_protocol::ids::{BlobId, Block, BlockHash, Cycle, GroupId, Hotkey, Seal, StateId, Uid};
use connito_protocol::machine::{Character, Machine, Role, Step};
use connito_protocol::manifest::{BlockRef, CycleArchive, Document};
use connito_protocol::reason::ReasonCode;
use connito_protocol::received::ReceivedDocument;
use connito_protocol::report::{Entry, Measurement, ScoreReport};
use connito_protocol::rules::Codec;
use connito_protocol::snapshot::{Participant, Record, Snapshot, Voter};
use connito_protocol::submission::Network as NetworkId;
use serde_json::json;

fn main() -> std::io::Result<()> {
    updates()?;
    for (number, announcement) in announcements().into_iter().enumerate() {
        write("announcement", &number.to_string(), &announcement.encode())?;
    }
    let documents = [task().to_bytes(), state().to_bytes(), archive().to_bytes()];
    for (number, document) in documents.iter().enumerate() {
        write("documents", &number.to_string(), document)?;
    }
    let roles = [
        Role::Owner {
            task: BlobId::of(&task().to_bytes()),
        },
        Role::Validator,
        Role::Miner,
        Role::Copier { victim: OWNER },
    ];
    for (number, role) in roles.into_iter().enumerate() {
        let (character, steps) = alone(role);
        write("journal", &number.to_string(), &journal(&character, &steps))?;
    }
    chain_targets()?;
    let networks = networks();
    networks.iter().try_for_each(said)?;
    let journals = networks.iter().flat_map(Network::journals);
    journals
        .enumerate()
        .try_for_each(|(history, (_, steps))| disturbances(history, steps))
}

/// What stood on the chain of a network, and what its members wrote. Named by hash, for some of it is the
/// same in both.
fn said(network: &Network) -> std::io::Result<()> {
    for record in network.records() {
        write("announcement", &BlobId::of(record).short(), record)?;
    }
    for document in network.documents() {
        // A report's body is what would have stood on the chain.
        let target = match document.starts_with(b"{") {
            true => "documents",
            false => "announcement",
        };
        write(target, &BlobId::of(document).short(), document)?;
    }
    Ok(())
}

/// What the embedded chain and its client read: one value of every type, sound calls and the extrinsics that
/// carry them, a question for every method.
fn chain_targets() -> std::io::Result<()> {
    write("metadata", "bundled", bundled())?;
    // The longest run of zeros that is a value of every type that has one; the last type is not much further.
    const LONGEST: usize = 300;
    for id in 0_u16..1_000 {
        let zeros = [0; LONGEST];
        let fits = |length: &usize| {
            let value = zeros.get(..*length).unwrap_or_default();
            chain::runtime().decode_type(u32::from(id), value).is_ok()
        };
        if let Some(length) = (0..LONGEST).find(fits) {
            let value = [&id.to_le_bytes()[..], &vec![0; length]].concat();
            write("scale_value", &id.to_string(), &value)?;
        }
    }
    let fresh = chain::new();
    let mut all = Vec::new();
    for (number, (place, call)) in chain::calls().into_iter().enumerate() {
        let step = [&[0x80 | place as u8, call.len() as u8], call.as_slice()].concat();
        write("calls", &number.to_string(), &step)?;
        all.extend(step);
        let message = chain::signed(&fresh, place, 0, &call);
        write("extrinsic", &number.to_string(), &message)?;
    }
    write("calls", "all", &all)?;
    requests().try_for_each(|(name, body)| write("chain_requests", &name, body.as_bytes()))
}

/// A request for each method, and a batch.
fn requests() -> impl Iterator<Item = (String, String)> {
    let used = chain::used();
    let head = used.head().hash;
    let key = "0x658faa385070e074c85bf6b568cf05557641384bb339f3758acddfd7053d33170300";
    let address = chain::account(1).hotkey().to_string();
    let message = chain::signed(&used, 5, 0, &chain::calls()[0].1);
    let message: String = message.iter().map(|byte| format!("{byte:02x}")).collect();
    let of = |method: &str, params: serde_json::Value| {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        (method.to_owned(), request.to_string())
    };
    let listed = used.handle(of("rpc_methods", json!([])).1.as_bytes());
    let listed: serde_json::Value = serde_json::from_slice(&listed).expect("an answer is JSON");
    let listed = listed["result"]["methods"].as_array().cloned();
    let methods = listed.unwrap_or_default().into_iter();
    let mut bodies: Vec<_> = methods
        .filter_map(|method| Some(of(method.as_str()?, json!([]))))
        .collect();
    let named = [
        ("account_nextIndex", json!([address])),
        ("author_submitExtrinsic", json!([message])),
        ("chain_getBlockHash", json!([[0, 1, "0x2"]])),
        ("chain_getHeader", json!([head.to_string()])),
        ("connito_waitBlock", json!([3, 5])),
        ("payment_queryInfo", json!([message])),
        ("state_getKeysPaged", json!([&key[..34], 100, key])),
        ("state_getStorage", json!([key, head.to_string()])),
        ("state_queryStorageAt", json!([[key], null])),
        ("state_call", json!(["AccountNonceApi_account_nonce", key])),
        (
            "state_call",
            json!(["Metadata_metadata_at_version", "0x0e000000"]),
        ),
        (
            "state_call",
            json!(["NeuronInfoRuntimeApi_get_neurons_lite", "0x0300"]),
        ),
        (
            "state_call",
            json!(["SubnetInfoRuntimeApi_get_metagraph", "0x0300"]),
        ),
        (
            "state_call",
            json!([
                "SubnetInfoRuntimeApi_get_selective_metagraph",
                "0x03000800000500"
            ]),
        ),
        (
            "state_call",
            json!(["SubnetInfoRuntimeApi_get_subnet_hyperparams_v3", "0x0300"]),
        ),
        ("state_subscribeStorage", json!([[key]])),
        ("chain_subscribeNewHeads", json!([])),
        ("author_submitAndWatchExtrinsic", json!([message])),
    ];
    let named = named.into_iter().enumerate();
    bodies
        .extend(named.map(|(number, (method, params))| {
            (format!("{number}-{method}"), of(method, params).1)
        }));
    let both: Vec<&str> = bodies
        .iter()
        .take(2)
        .map(|(_, body)| body.as_str())
        .collect();
    let batch = format!("[{}]", both.join(","));
    bodies.push(("batch".to_owned(), batch));
    bodies.into_iter()
}

/// Each event of a history that is no block, and some blocks, heard twice; then a few more.
fn disturbances(history: usize, steps: &[Step]) -> std::io::Result<()> {
    for (number, step) in steps.iter().enumerate() {
        if matches!(step.event, Event::Block(_)) && number % 5 > 0 {
            continue;
        }
        let event = serde_json::to_string(&step.event).expect("events are JSON");
        let text = format!("[{history},{number}]\n{event}\n5\n{event}\n3");
        write("journal", &format!("{history}-{number}"), text.as_bytes())?;
    }
    Ok(())
}

fn write(target: &str, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let folder = Path::new("corpus").join(target);
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join(format!("seed-{name}")), bytes)
}

fn updates() -> std::io::Result<()> {
    for (number, codec) in Codec::ALL.into_iter().enumerate() {
        let target = serde_json::to_value(codec).map_err(std::io::Error::other)?;
        let target = format!("update_{}", target.as_str().unwrap_or_default());
        for (choice, layout) in [(0, update::long_layout()), (1, update::short_layout())] {
            let mut shard = Shard::zeros(&layout);
            for (index, value) in shard.0.values_mut().flat_map(|t| &mut t.values).enumerate() {
                *value = ((index * 7919 % 1009) as f32 - 504.0) / 512.0;
            }
            let bytes = encode(&shard, codec);
            if choice == 1 {
                write("update_file", &number.to_string(), &bytes)?;
            }
            let (_, values) = bytes.split_at(bytes.len() - update::body_bytes(&layout, codec));
            let body = [&[choice], values].concat();
            write(&target, &choice.to_string(), &body)?;
        }
    }
    Ok(())
}

fn announcements() -> Vec<Announcement> {
    let (cycle, group, seal) = (Cycle(3), GroupId(1), Seal([5; 32]));
    vec![
        Announcement::Task {
            task: BlobId([2; 32]),
        },
        Announcement::Sealed { cycle, group, seal },
        Announcement::Revealed {
            cycle,
            group,
            seal,
            update: BlobId([6; 32]),
            salt: [7; 16],
        },
        Announcement::Scored(ScoreReport {
            cycle,
            submissions: [8; 8],
            entries: vec![
                Entry::Measured(Measurement {
                    utility: 0.25,
                    standard_error: 0.125,
                }),
                Entry::Refused(ReasonCode::NotUploaded),
            ],
        }),
        Announcement::Voted(Vote {
            cycle,
            approves: true,
            candidate: StateId([9; 32]),
            fallback: StateId([10; 32]),
            task: [11; 8],
        }),
        Announcement::Reported(Mirrored {
            cycle,
            submissions: [8; 8],
            body: BlobId([12; 32]),
        }),
        Announcement::Attested(Attestation {
            cycle,
            bodies: [13; 8],
            held: vec![5],
        }),
    ]
}

fn archive() -> CycleArchive {
    let at = |number| BlockRef {
        number: Block(number),
        hash: BlockHash([3; 32]),
    };
    let record = |announcement: &Announcement| Record {
        block: Block(36),
        index: 0,
        bytes: announcement.encode().into(),
    };
    let records = |announcement| BTreeMap::from([(OWNER, record(announcement))]);
    let announcements = announcements();
    CycleArchive {
        format: 1,
        cycle: Cycle(0),
        base: StateId([1; 32]),
        sealed: at(37),
        revealed: at(39),
        seeded: at(40),
        begun: Some(at(2)),
        scored: at(42),
        attested: Some(at(44)),
        voters: vec![Voter {
            hotkey: OWNER,
            stake: 9,
        }],
        seals: Arc::new(records(&announcements[1])),
        reveals: Arc::new(records(&announcements[2])),
        unregistered: BTreeSet::from([Hotkey([2; 32])]),
        reports: records(&announcements[3]),
        attestations: records(&announcements[6]),
        equivocations: BTreeMap::from([(OWNER, [3, 5].map(|kind| record(&announcements[kind])))]),
    }
}

/// A few blocks of a network of one, with the documents that its role asks for.
fn alone(role: Role) -> (Character, Vec<Step>) {
    let identity = Identity {
        hotkey: OWNER,
        network: NetworkId {
            genesis: BlockHash([9; 32]),
            netuid: NETUID,
        },
        endpoint: None,
    };
    let character = Character { identity, role };
    let documents = [task().to_bytes(), state().to_bytes()];
    let document = |bytes: &Vec<u8>| Event::Document {
        blob: BlobId::of(bytes),
        document: Arc::new(ReceivedDocument::new(bytes.clone())),
        received: 0,
    };
    let blocks = (0..20).map(|block| Event::Block(Arc::new(snapshot(block, &documents[0]))));
    let events = std::iter::once(Event::Started)
        .chain(blocks.clone().take(2))
        .chain(documents.iter().map(document))
        .chain(blocks.skip(2));
    let mut machine = Machine::new(&character);
    let steps = events.map(|event| Step {
        effects: machine.handle(&event),
        event,
    });
    (character, steps.collect())
}

/// A journal as the target reads it.
fn journal(character: &Character, steps: &[Step]) -> Vec<u8> {
    let mut text = serde_json::to_vec(character).expect("characters are JSON");
    for step in steps {
        text.push(b'\n');
        text.append(&mut serde_json::to_vec(step).expect("steps are JSON"));
    }
    text
}

fn snapshot(block: u64, task: &[u8]) -> Snapshot {
    let announcement = Announcement::Task {
        task: BlobId::of(task),
    };
    let record = Record {
        block: Block(0),
        index: 0,
        bytes: announcement.encode().into(),
    };
    let participant = Participant {
        uid: Uid(0),
        hotkey: OWNER,
        stake: 100,
        validator_permit: true,
        endpoint: None,
        weights_set: Block(0),
    };
    Snapshot {
        block: Block(block),
        hash: BlockHash([block as u8; 32]),
        head: Block(block),
        owner: Some(OWNER),
        participants: std::iter::once(participant).collect(),
        records: BTreeMap::from([(OWNER, record)]).into(),
        readings: Default::default(),
    }
}
