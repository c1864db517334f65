//! How alike updates are (P-24): of honest neighbours, of strangers, of a copy and its original.

use connito_learning::copies::{Compared, Originals, Resemblance, correlation};
use connito_learning::shard::Shard;
use connito_learning::sketch::Sampler;
use connito_learning::{update, wire};
use connito_protocol::ids::{GroupId, Seed};
use connito_protocol::job::Original;
use connito_protocol::rules::Codec;

use crate::disguise::{
    Rearrangement, flipped, mixture, noisy, partly, rearranged, sparse, unrelated,
};
use crate::network::Network;

const GROUP: GroupId = GroupId(0);

/// Draws of coordinates for every figure.
const DRAWS: u8 = 20;

/// Compares an update with originals, all as sampled by one seed.
fn compare(network: &Network, draw: u8, originals: &[&Shard], update: &Shard) -> Compared {
    let rules = network.manifest.rules.scoring;
    let sampler = Sampler::new(&network.base.layout(), &Seed([draw; 32]));
    let mut known = Originals::default();
    for original in originals {
        let compared = known.compare(GROUP, sampler.sketch(original), &rules);
        known.remember((GROUP, Original::Momentum), compared, None);
    }
    known.compare(GROUP, sampler.sketch(update), &rules)
}

struct Spread(Vec<f64>);

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut values = self.0.clone();
        values.sort_by(f64::total_cmp);
        let (first, last) = (values[0], values[values.len() - 1]);
        write!(
            f,
            "{first:.3} to {last:.3}, median {:.3}",
            values[values.len() / 2]
        )
    }
}

/// Every two of them, in every codec, and each with all the others together.
pub(crate) fn of_honest_miners(network: &mut Network, miners: &[Shard]) {
    let evaluation = network.evaluation(network.manifest.rules.scoring.sequences);
    let measured: Vec<_> = miners
        .iter()
        .map(|update| network.measure(&evaluation, update))
        .collect();
    let strength = measured
        .iter()
        .map(|m| f64::from(m.measurement.utility / m.measurement.standard_error));
    println!(
        "  utility in standard errors       {}",
        Spread(strength.collect())
    );
    let sparse: Vec<Shard> = miners.iter().map(sparse).collect();
    let (mut dense, mut thin, mut kept, mut blend, mut function) =
        (vec![], vec![], vec![], vec![], vec![]);
    for (index, update) in miners.iter().enumerate() {
        for other in (0..miners.len()).filter(|other| *other != index) {
            dense.push(
                compare(network, 1, &[&miners[other]], update)
                    .resemblance
                    .cosine,
            );
            thin.push(
                compare(network, 1, &[&sparse[other]], &sparse[index])
                    .resemblance
                    .cosine,
            );
            kept.push(
                compare(network, 1, &[&miners[other]], &sparse[index])
                    .resemblance
                    .kept,
            );
            function.push(correlation(
                &measured[index].changes,
                &measured[other].changes,
            ));
        }
        let others: Vec<&Shard> = miners.iter().filter(|other| *other != update).collect();
        blend.push(compare(network, 1, &others, update).resemblance.blend);
    }
    println!("  honest |cosine|, dense           {}", Spread(dense));
    println!("  honest |cosine|, sparse          {}", Spread(thin));
    println!("  honest sparse against dense      {}", Spread(kept));
    println!("  honest against all the others    {}", Spread(blend));
    println!("  correlation of honest functions  {}", Spread(function));
}

/// Independent random updates: how near a false alarm ever comes.
pub(crate) fn of_random_updates(network: &Network) {
    const UPDATES: u64 = 150;
    let rules = network.manifest.rules.scoring;
    let sampler = Sampler::new(&network.base.layout(), &Seed([3; 32]));
    let (mut known, mut pairs, mut alarms) = (Originals::default(), 0, 0);
    let (mut cosine, mut blend) = (0.0_f64, 0.0_f64);
    for seed in 0..UPDATES {
        let sketch = sampler.sketch(&unrelated(&network.base, seed));
        let compared = known.compare(GROUP, sketch, &rules);
        cosine = cosine.max(compared.resemblance.cosine);
        blend = blend.max(compared.resemblance.blend);
        alarms += u32::from(compared.resemblance.original.is_some());
        pairs += seed;
        known.remember((GROUP, Original::Momentum), compared, None);
    }
    println!(
        "  {pairs} pairs of random updates: {alarms} alarms, largest |cosine| {cosine:.4}, blend {blend:.3}"
    );
}

/// The table of what is found by its numbers, by its effect on the draw of the rules, and of what a disguise
/// costs: the part of the utility that is left, on many sequences.
pub(crate) fn of_disguised_copies(network: &mut Network, miners: &[Shard]) {
    let rules = network.manifest.rules.scoring;
    let (ruled, long) = (
        network.evaluation(rules.sequences),
        network.evaluation(1_000),
    );
    let whole = network.measure(&long, &miners[0]).measurement.utility;
    let changes = network.measure(&ruled, &miners[0]).changes;
    println!("| copy | cosine | copied | blend | kept | found | effect | utility left |");
    println!("|---|--:|--:|--:|--:|--:|--:|--:|");
    for (name, disguise) in disguises(miners) {
        let others: Vec<&Shard> = miners[..4].iter().collect();
        let draws = (0..DRAWS)
            .map(|draw| compare(network, draw, &others, &disguise(draw.into())).resemblance);
        let draws: Vec<_> = draws.collect();
        let found = draws.iter().filter(|draw| draw.original.is_some()).count();
        let copy = disguise(0);
        let effect = correlation(&network.measure(&ruled, &copy).changes, &changes);
        let left = network.measure(&long, &copy).measurement.utility / whole;
        let Resemblance {
            cosine,
            copied,
            blend,
            kept,
            ..
        } = draws[0];
        println!(
            "| {name} | {cosine:.3} | {copied:.2} | {blend:.3} | {kept:.3} | {found} of {DRAWS} | \
             {effect:.4} | {left:.2} |"
        );
    }
}

type Disguise<'a> = Box<dyn Fn(u64) -> Shard + 'a>;

/// Copies of the first miner's update, by what was done to it.
fn disguises<'a>(miners: &'a [Shard]) -> Vec<(String, Disguise<'a>)> {
    let [original, second, third, .., own] = miners else {
        panic!("four miners are needed");
    };
    let mut disguises: Vec<(String, Disguise<'a>)> = Vec::new();
    let mut add = |name: String, disguise: Disguise<'a>| disguises.push((name, disguise));
    for length in [1e-6, 1e-3, 0.1, 0.2, 0.3, 0.35, 0.5, 1.0, 2.0, 4.0] {
        let noise = move |seed| noisy(original, length, seed);
        add(format!("noise of {length} times its norm"), Box::new(noise));
    }
    for factor in [1e-3, -1e-3, -1.0, 1e3, -1e3] {
        let scale = move |_| mixture(&[(original, factor)]);
        add(format!("times {factor}"), Box::new(scale));
    }
    for share in [0.01, 0.02, 0.03, 0.05, 0.1, 0.2] {
        let flip = move |seed| flipped(original, share, seed);
        add(format!("{share} of the signs turned"), Box::new(flip));
    }
    for share in [0.2, 0.4, 0.6, 0.8] {
        let part = move |_| partly(original, own, share);
        add(
            format!("{share} of the experts, the rest honest"),
            Box::new(part),
        );
    }
    for (name, parts) in [
        ("mean of 2", vec![(original, 0.5), (second, 0.5)]),
        (
            "mean of 3",
            vec![(original, 0.33), (second, 0.33), (third, 0.33)],
        ),
        ("difference of 2", vec![(original, 1.0), (second, -1.0)]),
        (
            "mean of 2 and 0.2 of an own one",
            vec![(original, 0.5), (second, 0.5), (own, 0.2)],
        ),
        (
            "mean of 2 and 0.5 of an own one",
            vec![(original, 0.5), (second, 0.5), (own, 0.5)],
        ),
    ] {
        add(name.to_owned(), Box::new(move |_| mixture(&parts)));
    }
    add("sent sparsely".to_owned(), Box::new(|_| sparse(original)));
    let both = |seed| sparse(&noisy(original, 0.2, seed));
    add("noise of 0.2, sent sparsely".to_owned(), Box::new(both));
    add(
        "none: an honest neighbour's".to_owned(),
        Box::new(|_| own.clone()),
    );
    disguises
}

/// Neurons rearranged: other numbers, the same losses.
pub(crate) fn of_functions(network: &mut Network, original: &Shard) {
    let evaluation = network.evaluation(network.manifest.rules.scoring.sequences);
    let changes = network.measure(&evaluation, original).changes;
    println!("| copy | norm / original's | cosine | correlation |\n|---|--:|--:|--:|");
    let base = network.base.clone();
    let on_the_wire =
        |copy: &Shard, codec| update::read(&wire::encode(copy, codec), &base.layout()).unwrap();
    for (name, copy, codec) in [
        (
            "neurons permuted, f32",
            rearranged(&base, original, Rearrangement::Permuted),
            Codec::F32,
        ),
        (
            "neurons permuted, bf16",
            rearranged(&base, original, Rearrangement::Permuted),
            Codec::Bf16,
        ),
        (
            "rescaled by 1.1, f32",
            rearranged(&base, original, Rearrangement::Rescaled(1.1)),
            Codec::F32,
        ),
        (
            "rescaled by 1.1, bf16",
            rearranged(&base, original, Rearrangement::Rescaled(1.1)),
            Codec::Bf16,
        ),
        (
            "rescaled by 3, bf16",
            rearranged(&base, original, Rearrangement::Rescaled(3.0)),
            Codec::Bf16,
        ),
        (
            "times 0.99, permuted, bf16",
            rearranged(
                &base,
                &mixture(&[(original, 0.99)]),
                Rearrangement::Permuted,
            ),
            Codec::Bf16,
        ),
        (
            "noise of 0.1, permuted, bf16",
            rearranged(&base, &noisy(original, 0.1, 1), Rearrangement::Permuted),
            Codec::Bf16,
        ),
    ] {
        let copy = on_the_wire(&copy, codec);
        let cosine = compare(network, 1, &[original], &copy).resemblance.cosine;
        let alike = correlation(&network.measure(&evaluation, &copy).changes, &changes);
        println!(
            "| {name} | {:.1} | {cosine:.3} | {alike:.4} |",
            copy.norm() / original.norm()
        );
    }
}
