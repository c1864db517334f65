//! What a role has of manifests and other blobs, and what it asks for: the states that it must read to
//! follow, and whatever else it is to have (P-7, P-33).
//!
//! Inputs are documents as they come in and the names that a role wants; outputs are requests, each to
//! the servers that the chain names. Which names those are, the rest of the follower and the roles know.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Follower, OLDER_STATES, Reads};
use crate::event::{Effect, Effects, Form};
use crate::ids::{BlobId, StateId};
use crate::library::Wanted;
use crate::manifest::StateManifest;
use crate::merged::Merged;
use crate::received::{ReadState, ReceivedDocument};
use crate::round::Written;

impl Follower {
    /// The manifest of a recent state, if it is here.
    pub(crate) fn manifest(&self, state: StateId) -> Option<&StateManifest> {
        self.manifests.get(&state).map(Arc::as_ref)
    }

    /// What a recent state lists of the updates in it, if its manifest is here.
    pub(crate) fn merged(&self, state: StateId) -> Option<&Merged> {
        self.merged.get(&state).map(Arc::as_ref)
    }

    fn know_state(&mut self, state: StateId, read: ReadState) {
        self.manifests.insert(state, read.manifest);
        self.merged.insert(state, read.merged);
    }

    /// A manifest that this role wrote itself.
    pub(crate) fn keep_manifest(
        &mut self,
        manifest: StateManifest,
        effects: &mut Effects,
    ) -> StateId {
        let judgement = self.round().and_then(|round| round.judgement.as_ref());
        let written = match judgement {
            Some(judgement) => judgement.successors.get(manifest, Written::new),
            None => Written::new(&manifest),
        };
        let Written { id, bytes, state } = written;
        self.library.add(id.manifest_blob());
        effects.push(Effect::Store { bytes });
        self.know_state(id, state);
        id
    }

    /// A document that this role wrote itself.
    pub(crate) fn keep_document(&mut self, bytes: Vec<u8>, effects: &mut Effects) -> BlobId {
        let blob = BlobId::of(&bytes);
        self.library.add(blob);
        let bytes = bytes.into();
        effects.push(Effect::Store { bytes });
        blob
    }

    /// Asks for blobs, from the validators and the owner.
    pub(crate) fn want(
        &mut self,
        blobs: impl IntoIterator<Item = BlobId>,
        form: Form,
        effects: &mut Effects,
    ) {
        let wanted = blobs.into_iter().map(|blob| Wanted::any(blob, form));
        self.want_all(wanted, effects);
    }

    pub(super) fn want_all(
        &mut self,
        wanted: impl IntoIterator<Item = Wanted>,
        effects: &mut Effects,
    ) {
        let Some(now) = &self.now else { return };
        let (now, own) = (Arc::clone(now), self.identity.hotkey);
        let mut servers = None;
        // Hundreds of updates, and as many orders as there are servers.
        let mut in_order = BTreeMap::new();
        for wanted in wanted {
            if !self.library.is_due(wanted, now.block) {
                continue;
            }
            let servers = match wanted.form {
                Form::Update => {
                    let first = now.first_receiver(wanted.blob);
                    let from = || now.servers_from(first, own);
                    in_order.entry(first).or_insert_with(from)
                }
                Form::Document | Form::Blob => servers.get_or_insert_with(|| now.servers(own)),
            };
            let sources = Arc::clone(servers);
            self.library.ask(wanted, (now.block, sources), effects);
        }
    }

    pub(super) fn want_document(&mut self, document: BlobId, effects: &mut Effects) {
        self.want([document], Form::Document, effects);
    }

    pub(super) fn on_document(
        &mut self,
        blob: BlobId,
        document: &ReceivedDocument,
        effects: &mut Effects,
    ) {
        if self.on_task(blob, document, effects) {
            return;
        }
        let state = StateId(blob.0);
        if self.missing_manifests().contains(&Some(state)) {
            match document.state() {
                Some(read) => self.know_state(state, read),
                None => {
                    self.unreadable.insert(state);
                }
            }
        } else {
            self.take_body(blob, document.bytes());
        }
    }

    /// Manifests of states that this role needs to read: the canonical one, those before it that updates
    /// may build on, and the one that the next task begins with.
    pub(super) fn missing_manifests(&self) -> [Option<StateId>; 3] {
        let before = match self.reads {
            Reads::Everything => self.lineage().err(),
            Reads::Votes => None,
        };
        let first = self.successor().and_then(|task| task.manifest.first_state);
        [self.reading.canonical, before, first].map(|state| {
            state.filter(|state| {
                !self.manifests.contains_key(state) && !self.unreadable.contains(state)
            })
        })
    }

    /// Everything that the tasks at hand, the base and the state before it consist of. With the latter a
    /// role can still finish what it began on it, and a fork costs no transfers.
    pub(crate) fn blobs_in_use(&self) -> BTreeSet<BlobId> {
        let tasks = self.task().into_iter().chain(self.successor());
        let parts = tasks.flat_map(|task| {
            let parts = task.fixed_parts().into_iter().chain(task.pools());
            std::iter::once(task.id).chain(parts)
        });
        let base = self.base().map(|(_, base)| base);
        let before = base.and_then(|base| self.manifest(base.parent?));
        let states = [base, before, self.successor_state()];
        let manifests = self.manifests.keys().map(|state| state.manifest_blob());
        let states = states.into_iter().flatten();
        let states = states.flat_map(StateManifest::blobs);
        parts.chain(manifests).chain(states).collect()
    }

    /// Keeps the manifests of the canonical state, of those before it, and of the one to come.
    pub(super) fn forget_manifests(&mut self) {
        let first = self.successor().and_then(|task| task.manifest.first_state);
        let mut keep: BTreeSet<StateId> = self.reading.older.iter().copied().chain(first).collect();
        let mut next = self.reading.canonical;
        while let Some(state) = next
            && keep.len() <= 2 * OLDER_STATES + 1
        {
            keep.insert(state);
            next = self.manifest(state).and_then(|m| m.parent);
        }
        self.manifests.retain(|id, _| keep.contains(id));
        self.merged.retain(|id, _| keep.contains(id));
    }
}
