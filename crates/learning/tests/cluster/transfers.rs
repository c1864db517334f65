//! What passes between the nodes of the harness: blobs, receipts and uploads, each at once, and what
//! keeps them from it.

use std::sync::Arc;

use connito_learning::store::BlobStore;
use connito_protocol::event::{Delivery, Effect, Event, Form, UploadAnswer};
use connito_protocol::ids::{BlobId, Cycle, Hotkey};
use connito_protocol::machine::Step;
use connito_protocol::received::ReceivedDocument;
use connito_protocol::snapshot::Endpoint;

use super::Network;
use crate::cast::{Node, Who};

impl Network {
    pub(super) fn fetch(&self, who: Who, blob: BlobId, form: Form, sources: &[Endpoint]) -> Event {
        let own = &self.nodes[&who].store;
        let asked = self.nodes.values().filter(|node| {
            let endpoint = node.character.identity.endpoint;
            endpoint.is_some_and(|endpoint| sources.contains(&endpoint))
        });
        let (up, down): (Vec<&Node>, Vec<&Node>) = asked.partition(|node| node.machine.is_some());
        let here = own.read(blob).ok();
        let hidden_from = self.hidden_from.as_ref();
        let refused = self.hidden.contains(&blob)
            || hidden_from.is_some_and(|(hidden, from)| *hidden == blob && from.contains(&who))
            || self.updates_hidden && self.uploaded.contains(&blob) && !is_validator(who)
            || self.hostile.withholds(blob, who);
        let there = up.iter().filter(|_| !refused && here.is_none());
        let there = there.clone().find_map(|node| node.store.read(blob).ok());
        let received = there.as_ref().map_or(0, |bytes| bytes.len() as u64);
        let Some(bytes) = here.or(there) else {
            if self.hostile.withholds(blob, who) {
                let absent = false;
                return Event::FetchFailed { blob, absent };
            }
            let absent = down.is_empty();
            return Event::FetchFailed { blob, absent };
        };
        own.write(&bytes).unwrap();
        match form {
            Form::Document => Event::Document {
                blob,
                document: Arc::new(ReceivedDocument::new(bytes)),
                received,
            },
            Form::Blob | Form::Update => Event::Fetched { blob, received },
        }
    }

    /// The first of those asked that is up and has issued it.
    pub(super) fn ask_receipt(
        &self,
        asking: Hotkey,
        cycle: Cycle,
        from: &[(Hotkey, Endpoint)],
    ) -> Event {
        let up = |hotkey: Hotkey| {
            let mut nodes = self.nodes.values();
            nodes.any(|node| node.machine.is_some() && node.character.identity.hotkey == hotkey)
        };
        let issued = |hotkey: Hotkey| self.issued.get(&(hotkey, cycle, asking)).cloned();
        let mut asked = from.iter().filter(|(hotkey, _)| up(*hotkey));
        let receipt = asked.find_map(|(hotkey, _)| issued(*hotkey)).map(Box::new);
        Event::Receipt { cycle, receipt }
    }

    /// The receiver's machine decides; its answer goes straight back.
    pub(super) fn deliver(&mut self, from: Who, cycle: Cycle, blob: BlobId, to: Hotkey) {
        if self.mute.contains(&from) {
            let answer = Delivery::Unreachable("lost".to_owned());
            let event = Event::Delivered { blob, to, answer };
            self.nodes.get_mut(&from).unwrap().inbox.push_back(event);
            return;
        }
        let bytes = self.nodes[&from].store.read(blob).unwrap();
        self.uploaded.insert(blob);
        let hotkey = self.nodes[&from].character.identity.hotkey;
        let receiver = *self
            .nodes
            .iter()
            .find(|(_, node)| node.character.identity.hotkey == to)
            .unwrap()
            .0;
        let node = self.nodes.get_mut(&receiver).unwrap();
        let answer = match &mut node.machine {
            None => Delivery::Unreachable("down".to_owned()),
            Some(machine) => {
                node.store.write(&bytes).unwrap();
                let event = Event::Uploaded {
                    ticket: 0,
                    hotkey,
                    cycle,
                    blob,
                };
                let effects = machine.handle(&event);
                node.journal.push(Step {
                    event,
                    effects: effects.clone(),
                });
                let said = effects.iter().find_map(|effect| match effect {
                    Effect::Answer { answer, .. } => Some(*answer),
                    _ => None,
                });
                for effect in effects {
                    self.carry_out(receiver, effect);
                }
                match said.unwrap() {
                    UploadAnswer::Accepted | UploadAnswer::Repeated => Delivery::Accepted,
                    UploadAnswer::TooEarly | UploadAnswer::NotSealed => {
                        Delivery::Unreachable("later".to_owned())
                    }
                    refused => Delivery::Refused(format!("{refused:?}")),
                }
            }
        };
        let delivered = Event::Delivered { blob, to, answer };
        self.nodes
            .get_mut(&from)
            .unwrap()
            .inbox
            .push_back(delivered);
    }
}

fn is_validator(who: Who) -> bool {
    matches!(who, Who::Validator(_))
}
