//! Several calls in one extrinsic, each by its signer.
//!
//! | call | what a call inside that fails does |
//! |---|---|
//! | `batch` | ends it. What came before stays, an event says where and why, and the extrinsic succeeds |
//! | `batch_all` | takes everything back. The extrinsic fails with its reason |
//! | `force_batch` | is taken back alone. An event says why, and the next one follows |
//!
//! As in the runtime, the pool judges the outermost call alone; those inside are judged as their turn comes,
//! and no `batch_all` is carried out within another.

use super::super::call::{self, Call};
use super::super::event::{self, Event};
use super::super::failure;
use super::super::storage::{AccountId, Overlay};
use super::{Block, Outcome, dispatch};

/// Calls in one batch: `Utility.batched_calls_limit` of spec 461.
const MAX_CALLS: usize = 10_922;

/// What batches are around a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    /// None that has to succeed as a whole.
    Free,
    /// At least one that has.
    All,
}

/// Carries a batch out.
///
/// # Errors
/// It has too many calls, or a call fails of one that has to succeed as a whole.
pub(super) fn carry_out(
    state: &mut Overlay<'_>,
    signer: AccountId,
    call: call::Utility,
    block: &Block,
) -> Outcome {
    Batches { signer, block }.carry_out(state, call, Within::Free)
}

/// Whose batches they are, and when.
#[derive(Clone, Copy)]
struct Batches<'a> {
    signer: AccountId,
    block: &'a Block,
}

impl Batches<'_> {
    fn carry_out(self, state: &mut Overlay<'_>, call: call::Utility, within: Within) -> Outcome {
        let (call::Utility::Batch { calls }
        | call::Utility::BatchAll { calls }
        | call::Utility::ForceBatch { calls }) = &call;
        if calls.len() > MAX_CALLS {
            return Err(failure::Utility::TooManyCalls.into());
        }
        match call {
            call::Utility::Batch { calls } => Ok(self.until_one_fails(state, calls, within)),
            call::Utility::BatchAll { calls } => self.all(state, calls),
            call::Utility::ForceBatch { calls } => Ok(self.each(state, calls, within)),
        }
    }

    fn until_one_fails(
        self,
        state: &mut Overlay<'_>,
        calls: Vec<Call>,
        within: Within,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        for (index, call) in (0..).zip(calls) {
            match state.transact(|state| self.one(state, call, within)) {
                Ok(happened) => completed(&mut events, happened),
                Err(error) => {
                    events.push(Event::Utility(event::Utility::BatchInterrupted {
                        index,
                        error,
                    }));
                    return events;
                }
            }
        }
        events.push(Event::Utility(event::Utility::BatchCompleted));
        events
    }

    fn all(self, state: &mut Overlay<'_>, calls: Vec<Call>) -> Outcome {
        let mut events = Vec::new();
        for call in calls {
            completed(&mut events, self.one(state, call, Within::All)?);
        }
        events.push(Event::Utility(event::Utility::BatchCompleted));
        Ok(events)
    }

    fn each(self, state: &mut Overlay<'_>, calls: Vec<Call>, within: Within) -> Vec<Event> {
        let mut events = Vec::new();
        let mut end = event::Utility::BatchCompleted;
        for call in calls {
            match state.transact(|state| self.one(state, call, within)) {
                Ok(happened) => completed(&mut events, happened),
                Err(error) => {
                    events.push(Event::Utility(event::Utility::ItemFailed { error }));
                    end = event::Utility::BatchCompletedWithErrors;
                }
            }
        }
        events.push(Event::Utility(end));
        events
    }

    /// One call of a batch, which may be another batch.
    fn one(self, state: &mut Overlay<'_>, call: Call, within: Within) -> Outcome {
        match call {
            Call::Utility(call::Utility::BatchAll { .. }) if within == Within::All => {
                Err(failure::System::CallFiltered.into())
            }
            Call::Utility(call) => self.carry_out(state, call, within),
            call => dispatch(state, self.signer, call, self.block),
        }
    }
}

/// Adds what happened in a call that has succeeded, and that it has.
fn completed(events: &mut Vec<Event>, happened: Vec<Event>) {
    events.extend(happened);
    events.push(Event::Utility(event::Utility::ItemCompleted));
}
