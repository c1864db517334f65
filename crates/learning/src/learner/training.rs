//! A miner's job: choose the experts of its group that matter for its domains, train these, write the
//! update with what is owed of earlier ones (P-36, P-19, P-38).
//!
//! Experts are chosen anew in every cycle, from where the tokens of a sample of the group's own training
//! text go in the state that the cycle starts from. What is trained and sent are the chosen experts and
//! no others. The sample and the order of the text come from the job's seed, which differs between
//! hotkeys, so that neighbours in one group neither choose nor send quite the same.

use connito_engine::data::documents::TokenDocuments;
use connito_engine::routing::ExpertMap;
use connito_protocol::ids::{BlobId, Block, GroupId, Seed};
use connito_protocol::job::{Outcome, TrainJob, Trained};
use connito_protocol::manifest::Domain;
use connito_protocol::partition::ExpertMapping;
use connito_protocol::rules::{Codec, SelectionScore, SelectionTop, TrainingRouting};

use super::{Conduct, JobError, StateLearner};
use crate::backend::{Backend, BackendError, TrainingPlan, Visited};
use crate::feedback::{self, Sent};
use crate::selection::{Amount, Score, best_untrained, select_within};
use crate::shard::Shard;
use crate::store::BlobStore;
use crate::wire;

/// How much larger than the honest one, and in the opposite direction, a damaging update is.
const DAMAGE: f32 = -3.0;

/// What a group trains on.
struct TrainingText {
    /// Its own domains, whole.
    own: Vec<TokenDocuments>,
    /// Of each other domain, as much as the rules ask for.
    others: Vec<TokenDocuments>,
}

/// Which experts change, and which of the frozen ones stay routable.
struct Choice {
    trained: ExpertMap,
    kept: ExpertMap,
}

impl<S: BlobStore, B: Backend> StateLearner<S, B> {
    pub(super) fn train(
        &mut self,
        job: &TrainJob,
        head: &dyn Fn() -> Block,
    ) -> Result<Outcome, JobError> {
        self.load_task(job.task)?;
        let rules = self.manifest().rules.inner;
        let only = (!rules.routing.visits_other_groups()).then_some(job.group);
        self.load(job.task, job.state, only)?;
        let TrainingText { own, others } = self.training_text(job.group)?;
        let choice = self.choose(job, &own)?;
        let domains: Vec<TokenDocuments> = own.into_iter().chain(others).collect();
        let plan = TrainingPlan {
            experts: &choice.trained,
            kept: &choice.kept,
            domains: &domains,
            rules: &rules,
            seed: first_word(&job.seed),
        };
        let (owed, residual_dropped) = self.owed(job)?;
        self.displaced.insert(job.group);
        self.install_owed(job.group, &owed)?;
        let trained = self.backend.train(&plan, &|| head() < job.stop_at)?;
        if trained.steps == 0 {
            return Err(JobError::OutOfTime(job.stop_at));
        }
        let mut update = trained.shard.difference(self.base(job.group)?);
        if self.conduct == Conduct::Damaging {
            damage(&mut update);
        }
        let Sent { bytes, residual } = feedback::send(update, owed, &rules);
        let residual =
            residual.map(|residual| self.store.write(&wire::encode(&residual, Codec::F32)));
        let experts: usize = choice.trained.values().map(Vec::len).sum();
        Ok(Outcome::Trained(Trained {
            cycle: job.cycle,
            update: self.store.write(&bytes)?,
            bytes: bytes.len() as u64,
            experts: u32::try_from(experts).unwrap_or(u32::MAX),
            steps: trained.steps,
            tokens: trained.tokens,
            loss_first: trained.loss_first,
            loss_last: trained.loss_last,
            residual: residual.transpose()?,
            residual_dropped,
        }))
    }

    /// Puts a group where the miner would hold it had everything been sent.
    fn install_owed(&mut self, group: GroupId, owed: &Shard) -> Result<(), JobError> {
        if owed.0.is_empty() {
            return Ok(());
        }
        let state = self.state.as_ref();
        let base = state.and_then(|state| state.shards.get(&group));
        let base = base.ok_or(JobError::UnknownGroup(group))?;
        Ok(self.backend.install_sum(base, owed)?)
    }

    /// What earlier updates left unsent and is owed still, or nothing and the reason why it cannot be
    /// used: a miner that lost it goes on without.
    fn owed(&self, job: &TrainJob) -> Result<(Shard, Option<String>), JobError> {
        let rules = self.manifest().rules.inner;
        let layout = self.layout(job.group)?;
        let Some(blob) = job.residual else {
            return Ok((Shard::default(), None));
        };
        let read = match self.store.read(blob) {
            Ok(bytes) => wire::decode(&bytes, layout).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        Ok(match read {
            Ok((_, residual)) => (feedback::still_owed(residual, &rules), None),
            Err(cause) => (Shard::default(), Some(format!("residual {blob}: {cause}"))),
        })
    }

    /// The experts of the job's group that matter most for its own text, and, where the rules' routing
    /// keeps some, the most important of all others.
    fn choose(&mut self, job: &TrainJob, own: &[TokenDocuments]) -> Result<Choice, JobError> {
        let rules = &self.manifest().rules;
        let (selection, inner) = (rules.selection, rules.inner);
        let group = self.backend.experts(self.mapping(job.group)?)?;
        let mut text = TokenDocuments::default();
        own.iter().for_each(|domain| text.append(domain));
        let sample = text.sample(&job.seed.0, selection.sequences as usize);
        // With only the group's own experts in memory, that is where all tokens go.
        let visited = match inner.routing.visits_other_groups() {
            true => Visited::AllExperts,
            false => Visited::Only(&group),
        };
        let score = match selection.score {
            SelectionScore::Gate => Score::Gate,
            SelectionScore::Token => Score::Token,
        };
        let amount = match selection.top {
            SelectionTop::P(share) => Amount::top_p(share)?,
            SelectionTop::K(experts) => Amount::top_k(experts as usize)?,
        };
        let sample = text.select(&sample);
        let scores = self.backend.scores(&sample, visited, score)?;
        let trained = select_within(&scores, amount, &group)?.experts;
        if trained.values().all(Vec::is_empty) {
            return Err(JobError::NothingSelected(job.group));
        }
        let kept = match inner.routing {
            TrainingRouting::Classic | TrainingRouting::Masked => ExpertMap::new(),
            TrainingRouting::FrozenKept | TrainingRouting::Fallback => {
                best_untrained(&scores, &trained, inner.kept as usize)?
            }
        };
        Ok(Choice { trained, kept })
    }

    fn mapping(&self, group: GroupId) -> Result<&ExpertMapping, JobError> {
        let mut mappings = self.manifest().groups.iter();
        mappings
            .find(|mapping| mapping.group_id == group)
            .ok_or(JobError::UnknownGroup(group))
    }

    /// A group's text: all of its own domains, and as much of the others as the rules ask for, evenly.
    fn training_text(&mut self, group: GroupId) -> Result<TrainingText, JobError> {
        let manifest = self.manifest();
        let share = manifest.rules.own_share;
        let (own, others): (Vec<&Domain>, Vec<&Domain>) = manifest
            .domains
            .iter()
            .partition(|domain| domain.group == group);
        let own: Vec<BlobId> = own.into_iter().map(|domain| domain.training).collect();
        let others: Vec<BlobId> = others.into_iter().map(|domain| domain.training).collect();
        let mut text = TrainingText {
            own: Vec::new(),
            others: Vec::new(),
        };
        for blob in own {
            text.own.push(self.documents(blob)?.clone());
        }
        let sequences: usize = text.own.iter().map(TokenDocuments::len).sum();
        let wanted = sequences as f64 * (1.0 - share) / share;
        let each = (wanted / others.len().max(1) as f64).round() as usize;
        for blob in others {
            let documents = self.documents(blob)?;
            let some: Vec<usize> = (0..each.min(documents.len())).collect();
            let some = TokenDocuments::from_sequences(documents.select(&some));
            let some = some.map_err(|fault| BackendError(fault.to_string()))?;
            text.others.push(some);
        }
        Ok(text)
    }
}

fn damage(update: &mut Shard) {
    let values = update.0.values_mut().flat_map(|tensor| &mut tensor.values);
    values.for_each(|value| *value *= DAMAGE);
}

fn first_word(seed: &Seed) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&seed.0[..8]);
    u64::from_le_bytes(word)
}
