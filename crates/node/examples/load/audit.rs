//! After `kill -9`: whether the validator still knows, and still has, what it accepted.

use connito_node::blobs::DiskBlobs;
use connito_node::refusal::{Refusal, RefusalCode};

use crate::miners::Miner;
use crate::process::Validator;
use crate::{Options, Outcome};

/// How many of these accepted uploads are lost: a validator that is started again does not answer with
/// them, or its store does not hold their bytes.
pub(crate) async fn lost(options: &Options, accepted: &[Miner]) -> Outcome<usize> {
    let validator = Validator::start(options, options.listen).await?;
    let mut forgotten = Vec::new();
    for miner in accepted {
        let (_, answer) = miner.ask(validator.address).await?;
        let refusal: Option<Refusal> = serde_json::from_slice(&answer.body).ok();
        let first = refusal
            .filter(|refusal| refusal.code == RefusalCode::AlreadySubmitted)
            .and_then(|refusal| refusal.first);
        forgotten.push(first.is_none_or(|first| first.blob != miner.blob));
    }
    validator.kill().await?;
    let blobs = DiskBlobs::open(options.folder.join("validator/blobs"))?;
    // Reading hashes: what comes back is what was named.
    let lost = accepted
        .iter()
        .zip(forgotten)
        .filter(|(miner, forgotten)| *forgotten || blobs.get(&miner.blob).is_err());
    Ok(lost.count())
}
