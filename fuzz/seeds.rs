//! Writes inputs to begin with to `corpus/TARGET`: one sound example of every kind.
//!
//! A fuzzer finds its way from a sound file to a damaged one sooner than the other way round.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use connito_learning::shard::Shard;
use connito_learning::wire::encode;
use connito_protocol::Identity;
use connito_protocol::announcement::{Announcement, Vote};
use connito_protocol::event::Event;
use connito_protocol::ids::{
    BlobId, Block, BlockHash, Cycle, GroupId, Hotkey, Netuid, Seal, StateId, Uid,
};
use connito_protocol::machine::{Character, Machine, Role, Step};
use connito_protocol::manifest::{
    BlockRef, CycleArchive, Document, Domain, GroupState, ModelParts, StateManifest, TaskManifest,
};
use connito_protocol::partition::ExpertMapping;
use connito_protocol::report::ScoreReport;
use connito_protocol::rules::{Codec, Rules};
use connito_protocol::snapshot::{Participant, Record, Snapshot, Voter};
use connito_protocol::submission::Network;

const OWNER: Hotkey = Hotkey([1; 32]);

fn main() -> std::io::Result<()> {
    updates()?;
    for (number, announcement) in announcements().into_iter().enumerate() {
        write("announcement", number, &announcement.encode())?;
    }
    write("documents", 0, &task().to_bytes())?;
    write("documents", 1, &state().to_bytes())?;
    write("documents", 2, &archive().to_bytes())?;
    let roles = [
        Role::Owner {
            task: BlobId::of(&task().to_bytes()),
        },
        Role::Validator,
        Role::Miner,
        Role::Copier { victim: OWNER },
    ];
    for (number, role) in roles.into_iter().enumerate() {
        write("journal", number, &journal(role))?;
    }
    Ok(())
}

fn write(target: &str, number: usize, bytes: &[u8]) -> std::io::Result<()> {
    let folder = Path::new("corpus").join(target);
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join(format!("seed-{number}")), bytes)
}

fn updates() -> std::io::Result<()> {
    for (number, codec) in Codec::ALL.into_iter().enumerate() {
        let target = serde_json::to_value(codec).map_err(std::io::Error::other)?;
        let target = format!("update_{}", target.as_str().unwrap_or_default());
        for (choice, layout) in [
            (0, connito_fuzz::long_layout()),
            (1, connito_fuzz::short_layout()),
        ] {
            let mut shard = Shard::zeros(&layout);
            for (index, value) in shard.0.values_mut().flat_map(|t| &mut t.values).enumerate() {
                *value = ((index * 7919 % 1009) as f32 - 504.0) / 512.0;
            }
            let bytes = encode(&shard, codec);
            if choice == 1 {
                write("update_file", number, &bytes)?;
            }
            let (_, values) =
                bytes.split_at(bytes.len() - connito_fuzz::body_bytes(&layout, codec));
            let body = [&[choice], values].concat();
            write(&target, usize::from(choice), &body)?;
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
            entries: Vec::new(),
        }),
        Announcement::Voted(Vote {
            cycle,
            approves: true,
            candidate: StateId([9; 32]),
            fallback: StateId([10; 32]),
            task: [11; 8],
        }),
    ]
}

fn task() -> TaskManifest {
    let blob = |number| BlobId([number; 32]);
    TaskManifest {
        format: 1,
        name: "seed".to_owned(),
        netuid: Netuid(1),
        follows: None,
        starts: Block(2),
        first_cycle: Cycle(0),
        rules: Rules::default(),
        model: ModelParts {
            config: blob(1),
            tokenizer: blob(2),
            backbone: blob(3),
        },
        groups: vec![ExpertMapping {
            group_id: GroupId(0),
            expert_indices: vec![0],
            layer_indices: vec![0],
            miner_hotkeys: Vec::new(),
            param_keys: vec!["layers.0.experts.0.all.weight".to_owned()],
        }],
        tickets: vec![64],
        domains: vec![Domain {
            name: "text".to_owned(),
            group: GroupId(0),
            training: blob(4),
            scoring: blob(5),
            gate: blob(6),
        }],
        first_state: Some(StateId(BlobId::of(&state().to_bytes()).0)),
    }
}

fn state() -> StateManifest {
    StateManifest {
        format: 1,
        cycle: Cycle(0),
        parent: None,
        archive: None,
        groups: vec![GroupState {
            group: GroupId(0),
            shard: BlobId([7; 32]),
            bytes: 64,
            momentum: None,
            reference_norm: Some(0.5),
        }],
        merged: Vec::new(),
    }
}

fn archive() -> CycleArchive {
    let at = |number| BlockRef {
        number: Block(number),
        hash: BlockHash([3; 32]),
    };
    let records = |announcement: &Announcement| {
        let record = Record {
            block: Block(36),
            index: 0,
            bytes: announcement.encode(),
        };
        BTreeMap::from([(OWNER, record)])
    };
    let announcements = announcements();
    CycleArchive {
        format: 1,
        cycle: Cycle(0),
        base: StateId([1; 32]),
        sealed: at(37),
        revealed: at(39),
        seeded: at(40),
        scored: at(42),
        voters: vec![Voter {
            hotkey: OWNER,
            stake: 9,
        }],
        seals: records(&announcements[1]),
        reveals: records(&announcements[2]),
        reports: records(&announcements[3]),
    }
}

/// A few blocks of a network of one, with the documents that its role asks for.
fn journal(role: Role) -> Vec<u8> {
    let identity = Identity {
        hotkey: OWNER,
        network: Network {
            genesis: BlockHash([9; 32]),
            netuid: Netuid(1),
        },
        endpoint: None,
    };
    let character = Character { identity, role };
    let documents = [task().to_bytes(), state().to_bytes()];
    let document = |bytes: &Vec<u8>| Event::Document {
        blob: BlobId::of(bytes),
        bytes: bytes.clone(),
        received: 0,
    };
    let blocks = (0..50).map(|block| Event::Block(Arc::new(snapshot(block, &documents[0]))));
    let events = std::iter::once(Event::Started)
        .chain(blocks.clone().take(2))
        .chain(documents.iter().map(document))
        .chain(blocks.skip(2));
    let mut machine = Machine::new(&character);
    let steps = events.map(|event| Step {
        effects: machine.handle(&event),
        event,
    });
    let mut text = serde_json::to_vec(&character).expect("characters are JSON");
    for step in steps {
        text.push(b'\n');
        text.append(&mut serde_json::to_vec(&step).expect("steps are JSON"));
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
        bytes: announcement.encode(),
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
        records: BTreeMap::from([(OWNER, record)]),
    }
}
