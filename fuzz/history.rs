//! What the journal target expects of a machine: that it lives, and asks for nothing that a journal
//! could not hold (P-60, P-62).
//!
//! Reading a history takes longer than living through it, so a disturbance may begin in the middle of one
//! that is known: machines are kept as they were before each of its events.

use connito_protocol::event::{Effect, Event};
use connito_protocol::machine::{Character, Machine, Step};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::network::Network;

/// Blocks of the known histories: two cycles, and the beginning of one whose base excludes a validator.
const BLOCKS: u64 = 31;

/// Reviews with which reports stand on the chain, and with which they are bodies.
const REVIEWS: [u32; 2] = [1, 16];

/// Most recorded events that one line of a disturbance stands for.
const MOST_AT_ONCE: usize = 16;

/// Both networks, as they have become.
#[must_use]
pub fn networks() -> [Network; 2] {
    REVIEWS.map(|reviews| {
        let mut network = Network::new(reviews);
        network.run(BLOCKS);
        network
    })
}

/// What one machine of a network heard, and what it was before each event.
pub struct History {
    events: Vec<Event>,
    machines: Vec<Machine>,
}

impl History {
    /// The histories of everybody in both networks.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let networks = networks();
        let journals = networks.iter().flat_map(Network::journals);
        journals
            .map(|(character, steps)| Self::of(character, steps))
            .collect()
    }

    fn of(character: &Character, steps: &[Step]) -> Self {
        let mut machine = Machine::new(character);
        let before = |step: &Step| {
            let before = machine.clone();
            machine.handle(&step.event);
            before
        };
        Self {
            machines: steps.iter().map(before).collect(),
            events: steps.iter().map(|step| step.event.clone()).collect(),
        }
    }

    /// Lives on from before an event, counted from 0 and over again: a line that is an event is heard, one
    /// that is a number stands for so many of the recorded ones. Anything else ends it.
    pub fn disturb<'a>(&self, from: usize, lines: impl Iterator<Item = &'a [u8]>) {
        let from = from % self.machines.len();
        let mut machine = self.machines[from].clone();
        let mut recorded = self.events[from..].iter();
        for line in lines {
            if let Ok(number) = serde_json::from_slice::<usize>(line) {
                for event in recorded.by_ref().take(number.min(MOST_AT_ONCE)) {
                    let effects = machine.handle(event);
                    if !effects.is_empty() {
                        check_written::<Vec<Effect>>(&effects, &[]);
                    }
                }
            } else if let Ok(event) = serde_json::from_slice::<Event>(line) {
                let effects = machine.handle(&event);
                check_written(&Step { event, effects }, &[]);
            } else {
                return;
            }
        }
    }
}

/// Replays a journal: steps, one a line. What cannot be read ends it.
pub fn replay<'a>(character: &Character, lines: impl Iterator<Item = &'a [u8]>) {
    let mut machine = Machine::new(character);
    for line in lines {
        let Ok(Step { event, .. }) = serde_json::from_slice(line) else {
            return;
        };
        let effects = machine.handle(&event);
        check_written(&Step { event, effects }, line);
    }
}

/// What is written can be read; `known` was.
fn check_written<T: Serialize + DeserializeOwned>(what: &T, known: &[u8]) {
    let text = serde_json::to_vec(what).expect("it can be written");
    assert!(text == known || serde_json::from_slice::<T>(&text).is_ok());
}
