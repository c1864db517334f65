//! Blobs on their way: who is asked, who answers, how long it takes, and what becomes of it when one
//! end dies (P-7, P-8, P-16, P-52, P-56).
//!
//! A fetch asks the servers in their order. Which of them answers is decided when the request is made;
//! the bytes then share the links, and a server that dies on the way costs the attempt. An upload asks
//! for room first, as with the real server, and its receiver's machine has the last word.

use std::sync::Arc;

use connito_learning::store::BlobStore;
use connito_protocol::event::{Delivery, Event, Fetch, Form, UploadAnswer};
use connito_protocol::ids::{BlobId, Cycle, Hotkey};
use connito_protocol::received::ReceivedDocument;
use connito_protocol::schedule::Window;
use connito_protocol::snapshot::Endpoint;

use crate::adversary::Service;
use crate::network::{FlowId, NodeId, Passing, Way};
use crate::queue::{Micros, micros};
use crate::run::{Happening, Simulation};

/// An upload that asks to be let in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arriving {
    from: NodeId,
    from_life: u32,
    to: NodeId,
    cycle: Cycle,
    blob: BlobId,
}

/// A transfer under way.
#[derive(Debug, Clone)]
pub(crate) struct Flow {
    from: NodeId,
    to: NodeId,
    lives: (u32, u32),
    bytes: f64,
    on: Option<Way>,
    purpose: Purpose,
}

#[derive(Debug, Clone)]
enum Purpose {
    Fetch { blob: BlobId, form: Form },
    Upload(Arriving),
}

/// An uploader that waits for a machine's word.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiting {
    server: NodeId,
    arriving: Arriving,
}

/// Where fetched bytes come from.
#[derive(Debug, Clone, Copy)]
enum Bytes {
    /// The node's own store.
    Here,
    /// A server.
    Arrived,
}

/// What asking a list of servers came to.
enum Asked {
    /// This one will send it, after so long.
    Found(NodeId, Micros),
    /// Nobody will; whether all of them said that they lack it.
    Nobody { absent: bool, after: Micros },
}

impl Simulation {
    /// How long a client waits for a blob.
    fn timeout(&self) -> Micros {
        micros(self.scenario.links.timeout_seconds)
    }

    /// How long a client waits for a document, or for a connection.
    pub(crate) fn short_timeout(&self) -> Micros {
        let links = &self.scenario.links;
        micros(links.document_timeout_seconds.min(links.timeout_seconds))
    }

    fn patience(&self, form: Form) -> Micros {
        match form {
            Form::Document => self.short_timeout(),
            Form::Blob | Form::Update => self.timeout(),
        }
    }

    pub(crate) fn hear(&mut self, id: NodeId, after: Micros, event: Event) {
        let life = self.nodes[id.place()].life;
        self.queue
            .after(after, Happening::Hear(id, life, Box::new(event)));
    }

    pub(crate) fn fetch(&mut self, id: NodeId, fetch: &Fetch) {
        let node = &mut self.nodes[id.place()];
        if node.holds.contains(&fetch.blob) {
            let event = self.fetched(fetch.blob, fetch.form, Bytes::Here);
            return self.hear(id, 0, event);
        }
        node.fetching.0 += 1;
        node.fetching.1 = node.fetching.1.max(node.fetching.0);
        let blob = fetch.blob;
        match self.ask(id, fetch) {
            Asked::Nobody { absent, after } => {
                self.fetch_failed(id, blob, absent, after);
            }
            Asked::Found(server, after) => {
                let form = fetch.form;
                let bytes = self.size(blob, form);
                let purpose = Purpose::Fetch { blob, form };
                self.send((server, id), bytes, purpose, after);
            }
        }
    }

    /// Asks one server after the other. A server that sends wrong bytes is found out and dropped.
    fn ask(&mut self, id: NodeId, fetch: &Fetch) -> Asked {
        let (mut after, mut absent) = (0, true);
        let patience = self.patience(fetch.form);
        for endpoint in fetch.sources.iter() {
            let server = match self.reach(id, self.by_endpoint.get(endpoint).copied(), patience) {
                Ok(server) => server,
                Err(waited) => {
                    after += waited;
                    absent = false;
                    continue;
                }
            };
            after += 2 * self.network.latency();
            let policy = &self.nodes[server.place()].policy;
            let service = policy.as_ref().map(|policy| policy.serves(fetch.blob));
            match service.unwrap_or(Service::Right) {
                Service::Denied => {}
                Service::Wrong => {
                    absent = false;
                    self.traffic.wrong_bytes += 1;
                }
                Service::Silent => {
                    absent = false;
                    after += patience;
                }
                Service::Right if self.nodes[server.place()].holds.contains(&fetch.blob) => {
                    return Asked::Found(server, after);
                }
                Service::Right => {}
            }
        }
        Asked::Nobody { absent, after }
    }

    fn size(&self, blob: BlobId, form: Form) -> f64 {
        let known = self.sizes.get(&blob).copied();
        known.unwrap_or_else(|| match form {
            Form::Update => self.update_bytes(),
            Form::Document | Form::Blob => self
                .store
                .open(blob)
                .map_or(0.0, |bytes| bytes.len() as f64),
        })
    }

    fn fetched(&mut self, blob: BlobId, form: Form, from: Bytes) -> Event {
        let failed = Event::FetchFailed {
            blob,
            absent: false,
        };
        let Some(length) = self.length(blob) else {
            return failed;
        };
        // As long as manifests say that it is; the links carry the length of the scenario.
        let received = match from {
            Bytes::Here => 0,
            Bytes::Arrived => length,
        };
        match form {
            Form::Blob | Form::Update => Event::Fetched { blob, received },
            Form::Document => match self.document(blob) {
                Some(document) => Event::Document {
                    blob,
                    document,
                    received,
                },
                None => failed,
            },
        }
    }

    /// Bytes of a stored blob, by its own account. It is asked for thousands of times.
    fn length(&mut self, blob: BlobId) -> Option<u64> {
        if let Some(length) = self.lengths.get(&blob) {
            return Some(*length);
        }
        let length = self.store.open(blob).ok()?.len() as u64;
        self.lengths.insert(blob, length);
        Some(length)
    }

    /// A document, once for all who fetch it.
    fn document(&mut self, blob: BlobId) -> Option<Arc<ReceivedDocument>> {
        if let Some(document) = self.documents.get(&blob) {
            return Some(Arc::clone(document));
        }
        let bytes = self.store.read(blob).ok()?;
        let document = Arc::new(ReceivedDocument::new(bytes));
        self.documents.insert(blob, Arc::clone(&document));
        Some(document)
    }

    /// Asks one validator after the other for its receipt, until one has it (P-42).
    pub(crate) fn ask_receipt(&mut self, id: NodeId, cycle: Cycle, from: &[(Hotkey, Endpoint)]) {
        let hotkey = self.nodes[id.place()].hotkey();
        let (mut after, mut receipt) = (0, None);
        for (_, endpoint) in from {
            let patience = self.short_timeout();
            let server = match self.reach(id, self.by_endpoint.get(endpoint).copied(), patience) {
                Ok(server) => server,
                Err(waited) => {
                    after += waited;
                    continue;
                }
            };
            after += 2 * self.network.latency();
            receipt = self.nodes[server.place()].receipt(cycle, hotkey);
            if receipt.is_some() {
                break;
            }
        }
        let receipt = receipt.map(Box::new);
        self.hear(id, after, Event::Receipt { cycle, receipt });
    }

    /// The server, if it is up, connected, and the request is not lost; otherwise how long that took to
    /// find out. A connection is given up sooner than an answer.
    fn reach(
        &mut self,
        id: NodeId,
        server: Option<NodeId>,
        patience: Micros,
    ) -> Result<NodeId, Micros> {
        if self.network.strikes(self.scenario.links.loss_percent) {
            return Err(patience);
        }
        let server = server.filter(|server| {
            let up = self.nodes[server.place()].is_up();
            up && self.network.connected(id, *server)
        });
        server.ok_or(self.short_timeout())
    }

    fn fetch_failed(&mut self, id: NodeId, blob: BlobId, absent: bool, after: Micros) {
        let node = &mut self.nodes[id.place()];
        node.fetching.0 = node.fetching.0.saturating_sub(1);
        self.hear(id, after, Event::FetchFailed { blob, absent });
    }

    pub(crate) fn deliver(&mut self, id: NodeId, (cycle, blob): (Cycle, BlobId), to: Hotkey) {
        let patience = self.timeout();
        let server = match self.reach(id, self.by_hotkey.get(&to).copied(), patience) {
            Ok(server) => server,
            Err(waited) => {
                let answer = Delivery::Unreachable("no answer".to_owned());
                return self.hear(id, waited, Event::Delivered { blob, to, answer });
            }
        };
        let arriving = Arriving {
            from: id,
            from_life: self.nodes[id.place()].life,
            to: server,
            cycle,
            blob,
        };
        let latency = self.network.latency();
        self.queue
            .after(latency, Happening::UploadAsks(Box::new(arriving)));
    }

    /// What the server looks at before it reads a body: whether it is up and willing, the window, and
    /// whether there is room (P-52).
    pub(crate) fn upload_asks(&mut self, arriving: Arriving) {
        let server = &self.nodes[arriving.to.place()];
        let hotkey = self.nodes[arriving.from.place()].hotkey();
        let moment = server
            .seen
            .and_then(|block| self.setting.schedule.at(block));
        let window = moment.map(|moment| (moment.cycle.cmp(&arriving.cycle), moment.window));
        let takes = server
            .policy
            .as_ref()
            .is_none_or(|policy| policy.takes(hotkey));
        let room = server.uploading.len() < self.scenario.links.uploads_at_a_time as usize;
        use std::cmp::Ordering::{Equal, Greater, Less};
        let answer = match window {
            _ if !server.is_up() => Some(Delivery::Unreachable("no answer".to_owned())),
            _ if !takes => Some(Delivery::Refused("censored".to_owned())),
            None | Some((Less, _)) => Some(Delivery::Unreachable("too_early".to_owned())),
            Some((Equal, Window::Distribute | Window::Train | Window::Seal)) => {
                Some(Delivery::Unreachable("too_early".to_owned()))
            }
            Some((Greater, _)) | Some((Equal, Window::Score | Window::Vote)) => {
                Some(Delivery::Refused("too_late".to_owned()))
            }
            Some((Equal, Window::Reveal)) if !room || server.uploading.contains(&hotkey) => {
                self.traffic.busy += 1;
                Some(Delivery::Unreachable("busy".to_owned()))
            }
            Some((Equal, Window::Reveal)) => None,
        };
        match answer {
            Some(answer) => self.delivered(arriving, answer),
            None => {
                self.nodes[arriving.to.place()].uploading.insert(hotkey);
                let bytes = self.update_bytes();
                let ends = (arriving.from, arriving.to);
                self.send(ends, bytes, Purpose::Upload(arriving), 0);
            }
        }
    }

    fn delivered(&mut self, arriving: Arriving, answer: Delivery) {
        let to = self.nodes[arriving.to.place()].hotkey();
        let latency = self.network.latency();
        let event = Event::Delivered {
            blob: arriving.blob,
            to,
            answer,
        };
        let hear = Happening::Hear(arriving.from, arriving.from_life, Box::new(event));
        self.queue.after(latency, hear);
    }

    /// The uploader hears what the machine decided.
    pub(crate) fn answer(&mut self, ticket: u64, answer: UploadAnswer) {
        let Some(Waiting { arriving, .. }) = self.waiting.remove(&ticket) else {
            return;
        };
        let delivery = match answer {
            UploadAnswer::Accepted | UploadAnswer::Repeated => {
                let hotkey = self.nodes[arriving.from.place()].hotkey();
                let cycle = arriving.cycle;
                self.monitor
                    .accepted(arriving.to, cycle, (hotkey, arriving.blob));
                Delivery::Accepted
            }
            UploadAnswer::TooEarly | UploadAnswer::NotSealed => {
                Delivery::Unreachable("later".to_owned())
            }
            UploadAnswer::TooLate | UploadAnswer::AlreadySubmitted => {
                Delivery::Refused("refused".to_owned())
            }
        };
        self.delivered(arriving, delivery);
    }

    fn send(&mut self, (from, to): (NodeId, NodeId), bytes: f64, purpose: Purpose, after: Micros) {
        let id = FlowId(self.next_flow);
        self.next_flow += 1;
        let life = |node: NodeId| self.nodes[node.place()].life;
        let flow = Flow {
            from,
            to,
            lives: (life(from), life(to)),
            bytes,
            on: None,
            purpose,
        };
        self.flows.insert(id, flow);
        self.queue.after(after, Happening::FlowStarts(id));
    }

    pub(crate) fn flow_starts(&mut self, id: FlowId) {
        let Some(flow) = self.flows.get(&id) else {
            return;
        };
        let way = Way::Up(flow.from);
        self.enter(id, way);
    }

    /// Puts a transfer on a link, or through it where bandwidth has no limit.
    fn enter(&mut self, id: FlowId, way: Way) {
        let Some(flow) = self.flows.get_mut(&id) else {
            return;
        };
        flow.on = Some(way);
        let now = self.queue.now();
        match self.network.enter(way, (id, flow.bytes), now) {
            Some(passing) => self.queue.at(passing.at, Happening::LinkPasses(passing)),
            None => self.passed(id, way),
        }
    }

    pub(crate) fn link_passes(&mut self, passing: Passing) {
        let (done, next) = self.network.pass(passing);
        if let Some(next) = next {
            self.queue.at(next.at, Happening::LinkPasses(next));
        }
        for flow in done {
            self.passed(flow, passing.way);
        }
    }

    fn passed(&mut self, id: FlowId, way: Way) {
        match way {
            Way::Up(_) => {
                if let Some(to) = self.flows.get(&id).map(|flow| flow.to) {
                    self.enter(id, Way::Down(to));
                }
            }
            Way::Down(_) => self.arrived(id),
        }
    }

    fn arrived(&mut self, id: FlowId) {
        let Some(flow) = self.flows.remove(&id) else {
            return;
        };
        let sender = self.nodes[flow.from.place()].kind;
        self.traffic
            .count(sender, self.nodes[flow.to.place()].kind, flow.bytes);
        let receiver = &mut self.nodes[flow.to.place()];
        if receiver.life != flow.lives.1 || !receiver.is_up() {
            return;
        }
        match flow.purpose {
            Purpose::Fetch { blob, form } => {
                receiver.holds.insert(blob);
                receiver.fetching.0 = receiver.fetching.0.saturating_sub(1);
                let event = self.fetched(blob, form, Bytes::Arrived);
                self.step(flow.to, event);
            }
            Purpose::Upload(arriving) => {
                receiver.holds.insert(arriving.blob);
                let hotkey = self.nodes[arriving.from.place()].hotkey();
                self.nodes[flow.to.place()].uploading.remove(&hotkey);
                let ticket = self.next_ticket;
                self.next_ticket += 1;
                let server = flow.to;
                self.waiting.insert(ticket, Waiting { server, arriving });
                let event = Event::Uploaded {
                    ticket,
                    hotkey,
                    cycle: arriving.cycle,
                    blob: arriving.blob,
                };
                self.step(server, event);
            }
        }
    }

    /// Breaks off everything that a node is part of; the other ends notice after their timeout.
    pub(crate) fn break_transfers(&mut self, id: NodeId, concerns: impl Fn(NodeId) -> bool) {
        let mut broken: Vec<FlowId> = self
            .flows
            .iter()
            .filter(|(_, flow)| {
                (flow.from == id && concerns(flow.to)) || (flow.to == id && concerns(flow.from))
            })
            .map(|(flow, _)| *flow)
            .collect();
        broken.sort_unstable();
        for flow in broken {
            self.break_off(flow);
        }
        let unanswered = self
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.server == id && concerns(waiting.arriving.from));
        let unanswered: Vec<u64> = unanswered.map(|(ticket, _)| *ticket).collect();
        for ticket in unanswered {
            if let Some(Waiting { arriving, .. }) = self.waiting.remove(&ticket) {
                self.unreachable(arriving);
            }
        }
    }

    fn break_off(&mut self, id: FlowId) {
        let Some(flow) = self.flows.remove(&id) else {
            return;
        };
        let now = self.queue.now();
        if let Some(next) = flow.on.and_then(|way| self.network.leave(way, id, now)) {
            self.queue.at(next.at, Happening::LinkPasses(next));
        }
        self.traffic.broken += 1;
        let timeout = self.timeout();
        match flow.purpose {
            Purpose::Fetch { blob, .. } => {
                if self.nodes[flow.to.place()].life == flow.lives.1 {
                    self.fetch_failed(flow.to, blob, false, timeout);
                }
            }
            Purpose::Upload(arriving) => {
                let hotkey = self.nodes[arriving.from.place()].hotkey();
                self.nodes[flow.to.place()].uploading.remove(&hotkey);
                self.unreachable(arriving);
            }
        }
    }

    fn unreachable(&mut self, arriving: Arriving) {
        let to = self.nodes[arriving.to.place()].hotkey();
        let answer = Delivery::Unreachable("no answer".to_owned());
        let event = Event::Delivered {
            blob: arriving.blob,
            to,
            answer,
        };
        let hear = Happening::Hear(arriving.from, arriving.from_life, Box::new(event));
        let timeout = self.timeout();
        self.queue.after(timeout, hear);
    }
}
