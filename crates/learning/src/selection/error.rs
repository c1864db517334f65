//! Why nothing is selected. Every message names the layer, the expert or the number at fault; parsers'
//! own accounts are causes.

/// Why scores, a rule or a group cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SelectionError {
    /// A threshold that is no share of a whole.
    #[error("a threshold is above 0 and at most 1, found {p}")]
    Threshold {
        /// What was given.
        p: f64,
    },
    /// No experts are wanted.
    #[error("at least 1 expert must be wanted")]
    Nothing,
    /// More experts are wanted than there are.
    #[error("{wanted} experts are wanted of the {experts} experts to choose from in layer {layer}")]
    TooMany {
        /// How many are wanted.
        wanted: usize,
        /// The first layer with too few.
        layer: usize,
        /// How many it has.
        experts: usize,
    },
    /// There is not one layer with scores.
    #[error("there are no scores")]
    NoScores,
    /// A layer is listed that has no scores.
    #[error("layer {layer} has no scores")]
    UnknownLayer {
        /// The layer.
        layer: usize,
    },
    /// An expert is listed that has no score.
    #[error("layer {layer} has no score for expert {expert}")]
    UnknownExpert {
        /// The layer.
        layer: usize,
        /// The expert.
        expert: usize,
    },
    /// A score is negative or no number.
    #[error("the score of expert {expert} in layer {layer} is {score}")]
    NotAScore {
        /// The layer.
        layer: usize,
        /// The expert.
        expert: usize,
        /// What stands for its score.
        score: f64,
    },
    /// A layer's scores are too large to be added.
    #[error("the scores of layer {layer} do not add up to a number")]
    TooLarge {
        /// The layer.
        layer: usize,
    },
    /// A layer has one of the two kinds of score only.
    #[error("layer {layer} is missing from {lacking}")]
    OneKind {
        /// The layer.
        layer: usize,
        /// The kind that it lacks, as the file calls it.
        lacking: &'static str,
    },
    /// Scores of a layer that the model does not route in.
    #[error("layer {layer} has scores, but no routed experts in the model")]
    ForeignLayer {
        /// The layer.
        layer: usize,
    },
    /// Scores of more experts than the model has.
    #[error("layer {layer} has scores of {scored} experts, the model has {experts}")]
    ForeignExperts {
        /// The first layer.
        layer: usize,
        /// Experts with scores.
        scored: usize,
        /// Experts of the model.
        experts: usize,
    },
    /// Text that is not a score summary.
    #[error("not a score summary")]
    Summary(#[source] serde_json::Error),
    /// Text that is not an expert configuration.
    #[error("not an expert configuration")]
    Config(#[source] serde_json::Error),
}
