//! Plays against what can be said without playing, and what should not happen in any play.

use connito_protocol::rules::Rules;
use proptest::prelude::{ProptestConfig, prop_assert, proptest};

use super::formulas::{
    bubble_share, data_parallel_events, expert_parallel_events, pipeline_availability,
    pipeline_messages, ring_bytes, synchronising_share, transfer_seconds,
};
use super::*;

/// 256 homes: 20 Mbit/s in both directions, nobody different from anybody.
fn homes() -> NetworkModel {
    NetworkModel {
        workers: 256,
        up_bits_per_second: 20e6,
        down_bits_per_second: 20e6,
        latency_seconds: 0.05,
        flop_per_second: 46.5e12,
        spread: 0.0,
        outage_seconds: 600.0,
    }
}

/// Homes that receive five times as fast as they send.
fn uneven_links() -> NetworkModel {
    NetworkModel {
        down_bits_per_second: 100e6,
        ..homes()
    }
}

/// Links that are no obstacle.
fn wide() -> NetworkModel {
    NetworkModel {
        up_bits_per_second: 1e15,
        down_bits_per_second: 1e15,
        latency_seconds: 0.0,
        ..homes()
    }
}

fn conditions(failing: f64, hours: f64) -> Conditions {
    Conditions {
        failing,
        hours,
        seed: 1,
    }
}

/// DeepSeek-V2-Lite, and eight groups of it, of which all experts are trained.
fn v2_lite() -> ModelSize {
    ModelSize {
        parameters: 15_706_484_224,
        active: 2_451_435_008,
        hidden: 2048,
        slice: Some(SliceSize {
            groups: 8,
            held: 3_110_989_312,
            shard: 1_799_356_416,
            trained: 1_799_356_416,
            active: 2_451_435_008,
            active_trained: 1_349_517_312,
        }),
    }
}

fn dense() -> ModelSize {
    ModelSize {
        parameters: 70_000_000_000,
        active: 70_000_000_000,
        hidden: 8192,
        slice: None,
    }
}

const BATCH: Batch = Batch {
    sequence_tokens: 2048,
    sequences: 16,
};

fn played(
    kind: Kind,
    model: &ModelSize,
    network: &NetworkModel,
    conditions: Conditions,
) -> Outcome {
    let plan = plan(kind, model, BATCH, 1, network.workers).unwrap();
    play(&plan.strategy, network, conditions).unwrap()
}

fn close(value: f64, expected: f64, within: f64) {
    let off = (value / expected - 1.0).abs();
    assert!(off < within, "{value} instead of {expected}");
}

/// Steps of 0.6 s, which are 100 a minute, on links that cost nothing: 256 workers have 1,536,000 exchanges an
/// hour, and a thirtieth of that with 30 steps between two.
#[test]
fn events_of_data_parallelism_are_those_of_the_formula() {
    let network = NetworkModel {
        flop_per_second: 1e12,
        ..wide()
    };
    for steps in [1, 30] {
        let strategy = Strategy::DataParallel(DataParallel {
            steps,
            step_tokens: 2048.0,
            step_flop: 0.6e12,
            exchange: Exchange::AllReduce {
                bytes: 1.0,
                state_bytes: 1.0,
            },
        });
        let outcome = play(&strategy, &network, conditions(0.0, 1.0)).unwrap();
        let expected = data_parallel_events(256, 6000.0, steps);
        close(outcome.events_per_hour, expected, 1e-6);
        close(
            outcome.processed_tokens_per_second,
            256.0 * 2048.0 / 0.6,
            1e-6,
        );
        assert!(outcome.idle_share < 1e-6);
    }
}

/// The 31 hours of one all-reduce of a 70B model between homes.
#[test]
fn a_step_of_data_parallelism_between_homes_is_computing_and_a_ring() {
    let outcome = played(Kind::DataParallel, &dense(), &homes(), conditions(0.0, 1.0));
    let bytes = ring_bytes(256, 140e9);
    let ring = transfer_seconds(bytes, 20e6) + 510.0 * 0.05;
    let computing = 6.0 * 70e9 * 32_768.0 / 46.5e12;
    close(ring, 31.0 * 3600.0, 0.01);
    close(
        outcome.idle_share,
        synchronising_share(computing, ring),
        1e-9,
    );
    let hours = (computing + ring) / 3600.0;
    close(outcome.sent_bytes_per_worker_hour, bytes / hours, 1e-9);
    close(outcome.events_per_hour, 256.0 / hours, 1e-9);
}

/// A round of Templar's kind for 70B between homes of 20 Mbit/s up and 100 down, by hand:
///
/// * an update is 70e9 / 4,096 chunks of 64 values at 14 bit, 112 bytes each: 1,914,062,500 bytes;
/// * 30 steps of 32,768 tokens at 6 × 70e9 operations each are 4.1288e17, at 46.5e12 a second 8,879.07 s;
/// * the upload takes 765.625 s, twenty downloads 3,062.5 s, to the store and back 0.1 s: 12,707.30 s in all.
///
/// So 30.13 % of the time is idle, 256 workers have 72.525 events an hour, a worker sends 542.26 MB and receives
/// twenty times as many, and 256 × 30 × 32,768 tokens a round are 19,804 a second, of which 20 of 256 are merged.
#[test]
fn a_round_of_sparse_updates_is_what_a_hand_computes() {
    let network = uneven_links();
    let kind = Kind::DataParallelSparse;
    let outcome = played(kind, &dense(), &network, conditions(0.0, 1.0));
    close(outcome.idle_share, 0.301_262, 1e-5);
    close(outcome.events_per_hour, 72.5253, 1e-5);
    close(outcome.sent_bytes_per_worker_hour, 542_257_379.0, 1e-6);
    close(
        outcome.received_bytes_per_worker_hour,
        10_845_147_571.0,
        1e-6,
    );
    close(outcome.processed_tokens_per_second, 19_804.23, 1e-5);
    close(outcome.merged_tokens_per_second, 1547.206, 1e-5);
}

/// INTELLECT-1: 14 nodes, a 10B model in int8, 38 minutes of computing, and a utilisation of 83–96 %
/// (arXiv 2412.01152). Its synchronisations of 1–8.3 minutes are what a ring takes at 0.3–2.5 Gbit/s.
#[test]
fn the_published_utilisation_of_a_published_run_is_met() {
    for (rate, minutes, busy) in [(2.5e9, 1.0, 0.97), (0.3e9, 8.26, 0.82)] {
        let network = NetworkModel {
            workers: 14,
            up_bits_per_second: rate,
            down_bits_per_second: rate,
            flop_per_second: 1e15,
            ..homes()
        };
        let strategy = Strategy::DataParallel(DataParallel {
            steps: 100,
            step_tokens: 1.0,
            step_flop: 38.0 * 60.0 / 100.0 * 1e15,
            exchange: Exchange::AllReduce {
                bytes: 10e9,
                state_bytes: 20e9,
            },
        });
        let outcome = play(&strategy, &network, conditions(0.0, 1.0)).unwrap();
        let sync = outcome.idle_share * outcome.hours * 60.0 / outcome.rounds as f64;
        close(sync, minutes, 0.03);
        close(1.0 - outcome.idle_share, busy, 0.01);
    }
}

/// One step after the other, on links that cost nothing: what remains is the bubble.
#[test]
fn an_undisturbed_pipeline_idles_for_its_bubble() {
    for (stages, micro_batches) in [(4, 1), (4, 64), (8, 16), (1, 4)] {
        let strategy = Strategy::Pipeline(Pipeline {
            stages,
            replicas: 1,
            micro_batches,
            tokens: 2048.0,
            forward_flop: 46.5e12,
            message_bytes: 1.0,
            merge: None,
        });
        let outcome = play(&strategy, &wide(), conditions(0.0, 1.0)).unwrap();
        let expected = bubble_share(stages, micro_batches);
        assert!((outcome.idle_share - expected).abs() < 1e-6, "{outcome:?}");
        let steps = 3600.0 / (3.0 * f64::from(micro_batches + stages - 1));
        let chains = 256.0 / f64::from(stages);
        let messages = chains * steps * pipeline_messages(stages, micro_batches);
        assert!((outcome.events_per_hour - messages).abs() < 1e-3 * messages.max(1.0));
    }
}

/// Many pipelines for many hours: the share of time in which one is whole is q^p, or more with replicas.
#[test]
fn a_pipeline_runs_as_often_as_the_formula_says() {
    for (failing, stages, replicas) in [(0.01, 4, 1), (0.05, 4, 1), (0.1, 8, 1), (0.1, 4, 2)] {
        let strategy = Strategy::Pipeline(Pipeline {
            stages,
            replicas,
            micro_batches: 1,
            tokens: 1.0,
            forward_flop: 46.5e9,
            message_bytes: 0.0,
            merge: None,
        });
        let outcome = play(&strategy, &wide(), conditions(failing, 60.0)).unwrap();
        let expected = pipeline_availability(1.0 - failing, stages, replicas);
        let running = outcome.running_share.unwrap();
        assert!(
            (running - expected).abs() < 0.01,
            "{running} instead of {expected}"
        );
    }
}

/// A cycle of this system with DeepSeek-V2-Lite in eight groups on the same links, by hand:
///
/// * an update is 439,296 chunks of 114 bytes: 50,079,744 bytes, 20.03 s of the 24 s that two blocks leave;
/// * 32 miners of a group make 1,602,551,808 bytes to fetch, 128.204 s, beyond the 60 s before the train window;
/// * that window ends after 35 blocks of 12 s: 420 − 128.204 = 291.796 s of training in a cycle of 540 s;
/// * a token takes 4 × 2,451,435,008 + 2 × 1,349,517,312 = 12.5048e9 operations: 3,718.58 a second.
///
/// So 45.96 % of the time is idle, each of 256 miners has 6.667 events an hour, and what is merged is
/// 256 × 3,718.58 × 291.796 / 540 = 514,402 tokens a second.
#[test]
fn a_cycle_of_expert_parallelism_is_what_a_hand_computes() {
    let network = uneven_links();
    let kind = Kind::ExpertParallel;
    let outcome = played(kind, &v2_lite(), &network, conditions(0.0, 3.0));
    close(outcome.idle_share, 0.459_637, 1e-5);
    close(outcome.events_per_hour, 1706.667, 1e-6);
    close(outcome.sent_bytes_per_worker_hour, 333_864_960.0, 1e-6);
    close(
        outcome.received_bytes_per_worker_hour,
        10_683_678_720.0,
        1e-6,
    );
    close(outcome.processed_tokens_per_second, 514_401.7, 1e-5);
    close(outcome.merged_tokens_per_second, 514_401.7, 1e-5);
}

/// What costs this system its throughput, and should not be hidden: accepted updates of 32 miners take longer than
/// the train window at 20 Mbit/s down, and an update is late below 16.7 Mbit/s up.
#[test]
fn narrow_links_cost_expert_parallelism_its_windows() {
    let starved = played(
        Kind::ExpertParallel,
        &v2_lite(),
        &homes(),
        conditions(0.0, 3.0),
    );
    assert!(starved.idle_share > 0.6, "{starved:?}");
    let network = NetworkModel {
        up_bits_per_second: 16e6,
        down_bits_per_second: 100e6,
        ..homes()
    };
    let late = played(
        Kind::ExpertParallel,
        &v2_lite(),
        &network,
        conditions(0.0, 3.0),
    );
    assert_eq!(
        (late.events_per_hour, late.merged_tokens_per_second),
        (0.0, 0.0)
    );
    assert!(late.processed_tokens_per_second > 0.0);
}

/// What should happen: a strategy loses about the share that fails, or more, and never gains tokens that nobody
/// processed.
#[test]
fn failures_cost_every_strategy_tokens() {
    let network = NetworkModel {
        down_bits_per_second: 100e6,
        ..homes()
    };
    for kind in Kind::ALL {
        let of = |failing| played(kind, &v2_lite(), &network, conditions(failing, 6.0));
        let outcomes = [0.0, 0.1, 0.3].map(of);
        for outcome in outcomes {
            assert!(
                outcome.merged_tokens_per_second <= outcome.processed_tokens_per_second * 1.000_001,
                "{kind}: {outcome:?}"
            );
            assert!(
                (0.0..=1.0).contains(&outcome.idle_share),
                "{kind}: {outcome:?}"
            );
        }
        let [calm, _, rough] = outcomes.map(|outcome| outcome.processed_tokens_per_second);
        assert!(rough < 0.8 * calm, "{kind}: {rough} of {calm}");
    }
}

/// Expert parallelism loses the updates of those that fail and of nobody else.
#[test]
fn a_miner_that_fails_costs_the_others_nothing() {
    let network = NetworkModel {
        down_bits_per_second: 1e15,
        ..homes()
    };
    let of = |failing| {
        let outcome = played(
            Kind::ExpertParallel,
            &v2_lite(),
            &network,
            conditions(failing, 12.0),
        );
        outcome.events_per_hour / expert_parallel_events(256, 540.0)
    };
    // A miner has to be up at the end of the train window and for the upload's 20 s, some 56 s later.
    let share = of(0.1);
    assert!(share < 0.9 && share > 0.9 * 0.93, "{share}");
}

#[test]
fn the_same_seed_gives_the_same_outcome_and_another_one_another() {
    let network = NetworkModel {
        spread: 0.1,
        ..homes()
    };
    let of = |seed| {
        let conditions = Conditions {
            seed,
            ..conditions(0.2, 2.0)
        };
        Kind::ALL.map(|kind| played(kind, &v2_lite(), &network, conditions))
    };
    assert_eq!(of(5), of(5));
    assert_ne!(of(5), of(6));
}

#[test]
fn what_cannot_be_played_is_refused_by_name() {
    let plan = plan(Kind::DataParallel, &dense(), BATCH, 1, 256).unwrap();
    type Change = fn(&mut NetworkModel, &mut Conditions);
    let changes: [(&str, Change); 6] = [
        ("workers", |network, _| network.workers = 1),
        ("up_bits_per_second", |network, _| {
            network.up_bits_per_second = 0.0
        }),
        ("spread", |network, _| network.spread = 1.0),
        ("outage_seconds", |network, _| {
            network.outage_seconds = f64::NAN
        }),
        ("failing", |_, conditions| conditions.failing = 1.0),
        ("hours", |_, conditions| conditions.hours = f64::INFINITY),
    ];
    for (quantity, change) in changes {
        let (mut network, mut conditions) = (homes(), conditions(0.0, 1.0));
        change(&mut network, &mut conditions);
        let refused = play(&plan.strategy, &network, conditions).unwrap_err();
        assert_eq!(refused.quantity, quantity);
    }
}

#[test]
fn a_dense_model_has_no_experts_to_divide() {
    assert!(plan(Kind::ExpertParallel, &dense(), BATCH, 1, 256).is_none());
    let memory = plan(Kind::DataParallel, &dense(), BATCH, 1, 256)
        .unwrap()
        .memory;
    assert_eq!(
        (memory.weights_bytes, memory.training_bytes),
        (140e9, 1120e9)
    );
    let stage = plan(Kind::Pipeline, &dense(), BATCH, 1, 256)
        .unwrap()
        .memory;
    assert_eq!(stage.weights_bytes, 35e9);
    assert_eq!(Rules::default().windows.cycle(), 45);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// What should not happen: a play that does not end, a rate that is no number, more sent than links carry.
    #[test]
    fn any_network_can_be_played(
        workers in 2..40_usize, up in 1e6..1e9_f64, down in 1e6..1e9_f64, spread in 0.0..0.9_f64,
        failing in 0.0..0.9_f64, seed: u64, kind in 0..Kind::ALL.len(), replicas in 1..5_u32,
    ) {
        let network = NetworkModel {
            workers, up_bits_per_second: up, down_bits_per_second: down, spread, ..homes()
        };
        let plan = plan(Kind::ALL[kind], &v2_lite(), BATCH, replicas, workers).unwrap();
        let conditions = Conditions { failing, hours: 0.5, seed };
        let outcome = play(&plan.strategy, &network, conditions).unwrap();
        let rates = [
            outcome.processed_tokens_per_second, outcome.merged_tokens_per_second, outcome.events_per_hour,
            outcome.sent_bytes_per_worker_hour, outcome.received_bytes_per_worker_hour, outcome.idle_share,
        ];
        prop_assert!(rates.iter().all(|rate| rate.is_finite() && *rate >= 0.0), "{:?}", outcome);
        let most = |rate: f64| rate * (1.0 + spread) / 8.0 * 3600.0 * 1.01;
        prop_assert!(outcome.sent_bytes_per_worker_hour <= most(up), "{:?}", outcome);
        if kind == Kind::ALL.len() - 1 {
            prop_assert!(outcome.received_bytes_per_worker_hour <= most(down), "{:?}", outcome);
        }
    }
}
