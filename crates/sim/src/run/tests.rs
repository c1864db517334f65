//! Whole runs that go wrong, and that are seen to: a network is broken by hand or by a scenario that no
//! protocol survives, and the run has to say what broke.

use std::collections::BTreeSet;

use connito_protocol::announcement::Announcement;
use connito_protocol::conduct::Misconduct;
use connito_protocol::event::Milestone;
use connito_protocol::reason::ReasonCode;
use connito_protocol::report::{Entry, ScoreReport};

use super::*;
use crate::adversary::HostileValidator;
use crate::monitor::invariant;
use crate::shrink::shrink;

const SMALL: &str = "cycles = 3\n[validators]\nhonest = 3\n[miners]\nhonest = 4\n";

fn simulation(more: &str, seed: u64) -> Simulation {
    let scenario = Scenario::from_toml(&format!("{SMALL}{more}")).unwrap();
    Simulation::new(&scenario, seed, Watch::default()).unwrap()
}

fn run_through(simulation: &mut Simulation) {
    simulation.keep_some_journals();
    while !simulation.is_over()
        && let Some(happening) = simulation.queue.next()
    {
        simulation.happen(happening);
    }
}

fn broken(simulation: &Simulation) -> Vec<&str> {
    simulation
        .violations()
        .iter()
        .map(|violation| violation.invariant.as_str())
        .collect()
}

#[test]
fn a_quiet_network_holds_everything_and_is_the_same_every_time() {
    let runs = [1, 1, 2].map(|seed| simulation("", seed).run().0);
    assert!(
        runs.iter().all(|run| run.violations.is_empty()),
        "{:?}",
        runs[0].violations
    );
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0].steps, 0);
    assert!(runs.iter().all(|run| run.honest_reward_share == Some(1.0)));
}

/// Every miner that has submitted is told what a validator says of it, and once.
#[test]
fn miners_are_given_their_receipts() {
    let mut simulation = simulation("", 1);
    simulation
        .nodes
        .iter_mut()
        .for_each(|node| node.journal = Some(Vec::new()));
    run_through(&mut simulation);
    let miners = simulation
        .nodes
        .iter()
        .filter(|node| node.kind == Kind::Miner(None));
    for miner in miners {
        let effects = miner
            .journal
            .iter()
            .flatten()
            .flat_map(|step| &step.effects);
        let cycles = effects.filter_map(|effect| match effect {
            Effect::Tell(Milestone::Receipt(receipt)) => Some(receipt.cycle.0),
            _ => None,
        });
        assert_eq!(
            cycles.collect::<Vec<_>>(),
            [0, 1, 2],
            "miner {}",
            miner.id.0
        );
    }
}

/// One effect of one journalled step is taken away; the step asks for it again when it is replayed.
#[test]
fn a_journal_that_does_not_replay_is_seen() {
    let mut simulation = simulation("", 1);
    run_through(&mut simulation);
    let journals = simulation
        .nodes
        .iter_mut()
        .filter_map(|node| node.journal.as_mut());
    let mut steps = journals.flat_map(|journal| journal.iter_mut());
    let step = steps.find(|step| !step.effects.is_empty()).unwrap();
    step.effects.pop();
    simulation.judge_the_end();
    assert_eq!(broken(&simulation), ["replay_gives_the_same_effects"]);
}

#[test]
fn two_groups_with_one_expert_are_seen() {
    let mut simulation = simulation("", 1);
    let groups = &mut simulation.setting.manifest.groups;
    groups[1] = groups[0].clone();
    let found = invariant::every_expert_in_exactly_one_group(&simulation.setting);
    assert_eq!(found.unwrap_err().0, "every_expert_in_exactly_one_group");
}

#[test]
fn a_node_that_waits_for_ever_more_is_seen() {
    let mut simulation = simulation("", 1);
    let node = &mut simulation.nodes[1];
    node.fetching.0 = 20;
    assert_eq!(invariant::bounds_hold(node, &[], (8, 2)), Ok(()));
    node.fetching.0 = 60;
    let found = invariant::bounds_hold(node, &[], (8, 2));
    assert_eq!(found.unwrap_err().0, "bounds_hold");
}

/// What a validator acknowledged in a cycle that is over must be in its store all the same.
#[test]
fn an_upload_that_is_lost_after_its_cycle_is_seen() {
    let mut simulation = simulation("", 1);
    run_through(&mut simulation);
    let receiver = simulation.nodes[1].id;
    let lost = BlobId([9; 32]);
    simulation
        .monitor
        .accepted(receiver, Cycle(1), (Hotkey([1; 32]), lost));
    simulation.monitor.accepted(
        receiver,
        Cycle(2),
        (Hotkey([1; 32]), simulation.setting.task),
    );
    simulation.nodes[1].holds.insert(simulation.setting.task);
    let node = &simulation.nodes[1];
    simulation.monitor.restarted(1, node);
    assert!(broken(&simulation).contains(&"no_accepted_upload_lost"));
    let details = simulation.violations().iter().map(|v| v.detail.as_str());
    assert!(details.into_iter().any(|detail| detail.contains("bytes")));
}

/// Reports of two kinds in one window are told of, whoever wrote them, and the cycle goes on without them.
#[test]
fn a_second_report_in_the_score_window_is_told_as_equivocation() {
    let hostile = "[validators.hostile]\ntwo-faced = 1";
    let scenario = SMALL.replacen("honest = 3\n", &format!("honest = 3\n{hostile}\n"), 1);
    let scenario = Scenario::from_toml(&scenario).unwrap();
    let mut simulation = Simulation::new(&scenario, 1, Watch::default()).unwrap();
    run_through(&mut simulation);
    let journals = simulation
        .nodes
        .iter()
        .filter(|node| node.kind == Kind::Validator(None));
    let steps = journals.flat_map(|node| node.journal.iter().flatten());
    let mut faults = steps
        .flat_map(|step| &step.effects)
        .filter_map(|effect| match effect {
            Effect::Tell(Milestone::Conduct { cycle, conduct }) => Some((cycle.0, conduct)),
            _ => None,
        });
    let equivocated = |(cycle, conduct): (u64, &BTreeMap<Hotkey, Misconduct>)| {
        cycle == 0
            && conduct
                .values()
                .any(|fault| *fault == Misconduct::Equivocation)
    };
    assert!(faults.any(equivocated));
    assert_eq!(simulation.violations(), []);
}

/// What one hostile validator among four honest ones wrote, and what these say of it.
struct Watched {
    said: Vec<Announcement>,
    conduct: BTreeSet<Misconduct>,
    simulation: Simulation,
}

fn watched(kind: HostileValidator) -> Watched {
    let scenario = format!(
        "cycles = 4\n[validators]\nhonest = 4\nhostile = {{ {} = 1 }}\n[miners]\nhonest = 6\n\
         [work]\ndevice_classes = 5",
        kind.name()
    );
    let scenario = Scenario::from_toml(&scenario).unwrap();
    let mut simulation = Simulation::new(&scenario, 1, Watch::default()).unwrap();
    run_through(&mut simulation);
    assert_eq!(simulation.violations(), [], "{}", kind.name());
    let nodes = simulation.nodes.iter();
    let hostile = nodes
        .clone()
        .find(|node| node.kind == Kind::Validator(Some(kind)));
    let hostile = hostile.unwrap().hotkey();
    let blocks = (1..=simulation.chain.head().block.0).map(Block);
    let said = blocks.filter_map(|block| {
        let snapshot = simulation.chain.block(block)?;
        let (record, said) = snapshot.announcement(hostile)?;
        (record.block == block).then_some(said)
    });
    let steps = nodes
        .filter(|node| node.kind.is_honest_validator())
        .flat_map(|node| node.journal.iter().flatten());
    let told = steps.flat_map(|step| &step.effects);
    let conduct = told.filter_map(|effect| match effect {
        Effect::Tell(Milestone::Conduct { conduct, .. }) => conduct.get(&hostile).copied(),
        _ => None,
    });
    Watched {
        said: said.collect(),
        conduct: conduct.collect(),
        simulation,
    }
}

/// Every kind that there is, alone among honest ones: what it does is there to be seen, by everyone where
/// P-45 has a word for it, and every cycle passes all the same.
#[test]
fn every_kind_of_hostile_validator_does_what_it_is_named_for_and_stops_nobody() {
    for kind in HostileValidator::ALL {
        let watched = watched(kind);
        let (said, conduct) = (&watched.said, &watched.conduct);
        let simulation = &watched.simulation;
        let reports = said.iter().filter_map(|said| match said {
            Announcement::Scored(report) => Some(report),
            _ => None,
        });
        let mut reports: Vec<&ScoreReport> = reports.collect();
        reports.retain(|report| !report.entries.is_empty());
        let did = match kind {
            HostileValidator::Liar | HostileValidator::SelfDealer => {
                conduct.contains(&Misconduct::ReportOutlier)
            }
            // Of five kinds of processors no two measure alike: an equal report was copied.
            HostileValidator::Parrot => !reports.is_empty() && reports.iter().all(|report| {
                let mut blocks = (1..=simulation.chain.head().block.0).map(Block);
                blocks.any(|block| {
                    let snapshot = simulation.chain.block(block).unwrap();
                    let same = |said: &Announcement| matches!(said, Announcement::Scored(other) if other == *report);
                    snapshot.announcements().filter(|(_, _, said)| same(said)).count() > 1
                })
            }),
            HostileValidator::TwoFaced => {
                let both = [Misconduct::Equivocation, Misconduct::ReportMissing];
                both.iter().all(|fault| conduct.contains(fault))
            }
            HostileValidator::Censor => !reports.is_empty() && reports.iter().all(|report| {
                let absent = Entry::Refused(ReasonCode::NotUploaded);
                report.entries.iter().all(|entry| *entry == absent)
            }),
            HostileValidator::BadMirror => simulation.traffic.wrong_bytes > 0,
            HostileValidator::Withholder => conduct.contains(&Misconduct::ReportMissing),
            HostileValidator::Vetoer => said
                .iter()
                .any(|said| matches!(said, Announcement::Voted(vote) if !vote.approves)),
            HostileValidator::Forker => conduct.contains(&Misconduct::StateMismatch),
        };
        assert!(did, "{}: {conduct:?}, {said:?}", kind.name());
        let mut outcomes = simulation.monitor.outcomes.values();
        assert!(
            outcomes.all(|outcome| outcome.passed == Some(true)),
            "{}",
            kind.name()
        );
    }
}

/// Committees of four seats among ten validators, four of whom lie: they hold one now and then, reviews
/// exclude them for it, and no invariant takes that for a fault of the protocol.
#[test]
fn liars_capture_committees_and_are_caught() {
    let scenario = "cycles = 5\n[validators]\nhonest = 6\nhostile = { liar = 4 }\n\
                    hostile_stake_percent = 40\n[miners]\nhonest = 8\n\
                    [rules.scoring]\nscorers_per_update = 4\nexclusion = 1";
    let scenario = Scenario::from_toml(scenario).unwrap();
    let runs = (1..4).map(|seed| crate::run(&scenario, seed).unwrap());
    let (mut captures, mut caught) = (0, 0);
    for run in runs {
        assert_eq!(run.violations, [], "seed {}", run.seed);
        captures += run.captures;
        caught += run.caught;
    }
    assert!(
        captures > 0 && caught > 0,
        "{captures} captures, {caught} caught"
    );
}

/// A chain that loses every write is one on which nothing is ever decided.
#[test]
fn a_network_that_stands_still_is_seen() {
    let (report, _) = simulation("[chain]\nlost_writes_percent = 100", 1).run();
    let found: Vec<&str> = report
        .violations
        .iter()
        .map(|v| v.invariant.as_str())
        .collect();
    assert_eq!(found, ["a_cycle_completes_after_faults_heal"]);
}

/// One undecided cycle is enough, where nothing went wrong or all of it was over; what a fault may have cost
/// is not asked for.
#[test]
fn a_single_cycle_that_is_not_decided_is_seen() {
    let found = |last_fault: Option<f64>, undecided: u64| {
        let mut simulation = simulation("", 1);
        run_through(&mut simulation);
        let begun = simulation.begun[&Cycle(0)] as f64;
        let length = simulation.begun[&Cycle(1)] as f64 - begun;
        simulation.last_fault = last_fault.map_or(0, |cycle| (begun + cycle * length) as Micros);
        let outcome = simulation.monitor.outcomes.get_mut(&Cycle(undecided));
        outcome.unwrap().passed = None;
        simulation.check_liveness();
        broken(&simulation).len()
    };
    assert_eq!([0, 1, 2].map(|cycle| found(None, cycle)), [1, 1, 1]);
    assert_eq!([0, 1, 2].map(|cycle| found(Some(0.0), cycle)), [0, 1, 1]);
    assert_eq!([0, 1, 2].map(|cycle| found(Some(0.5), cycle)), [0, 0, 1]);
    assert_eq!([0, 1, 2].map(|cycle| found(Some(1.5), cycle)), [0, 0, 0]);
}

/// A disk that loses what it called durable: a validator forgets an upload that it has acknowledged, or
/// measures a cycle again. Seen, cut to the step that shows it, and the same when it is run again.
#[test]
fn a_lying_disk_is_seen_and_the_run_is_cut_to_the_step_that_shows_it() {
    let lying = "[faults]\ncrashes_per_cycle = 20\nlost_records_percent = 100";
    let failing = (1..20).map(|seed| simulation(lying, seed).run().0);
    let report = failing
        .into_iter()
        .find(|run| !run.violations.is_empty())
        .unwrap();
    let scenario = simulation(lying, 1).scenario;
    let shrunk = shrink(&scenario, &report).unwrap().unwrap();
    let steps = shrunk.header.steps;
    assert_eq!(
        shrunk.header.violation.invariant,
        report.violations[0].invariant
    );
    let again = |steps| {
        crate::first_steps(&scenario, report.seed, steps)
            .unwrap()
            .violations
    };
    assert_eq!(again(steps).first(), Some(&shrunk.header.violation));
    assert_eq!(again(steps - 1), [], "one step less does not fail");
    assert_eq!(shrunk.lines.last().map(|line| line.step), Some(steps));
}

/// The same crashes with disks that tell the truth lose nothing.
#[test]
fn honest_disks_lose_nothing_however_often_processes_die() {
    let honest = "[faults]\ncrashing_percent = 100\ncrashes_per_cycle = 20\ntorn_percent = 40\n\
                  disk_full_percent = 20\nrestart_seconds = 1\nuntil_cycle = 2";
    for seed in 1..4 {
        let (report, _) = simulation(honest, seed).run();
        assert_eq!(report.violations, [], "seed {seed}");
        assert!(report.traffic.crashes > 50, "{}", report.traffic.crashes);
    }
}

/// One fork in a network in which nothing else goes wrong, that many cycles after the first block.
fn with_fork(at_cycle: f64, blocks: u32) -> RunReport {
    let fork = format!("[chain]\nforks = [{{ at_cycle = {at_cycle}, blocks = {blocks} }}]");
    let scenario = format!("{}{fork}", SMALL.replacen("cycles = 3", "cycles = 5", 1));
    let scenario = Scenario::from_toml(&scenario).unwrap();
    crate::run(&scenario, 1).unwrap()
}

/// A run with forks is a function of its seed like any other.
#[test]
fn equal_seeds_fork_alike() {
    for blocks in [1, 8] {
        assert_eq!(with_fork(1.5, blocks), with_fork(1.5, blocks));
    }
}

/// One block, two, and as many as a fork may take, in every window and across its ends: the cycle in which
/// the blocks that were taken back lie may be lost, for its windows were shorter; all others are decided,
/// and no invariant breaks.
#[test]
fn a_fork_in_any_window_costs_at_most_the_cycle_that_it_reaches() {
    let ticks = (0..35).step_by(5).chain(35..46);
    for (tick, blocks) in ticks.flat_map(|tick| [1, 2, 8].map(|blocks| (tick, blocks))) {
        let last = 45 + tick;
        let report = with_fork((f64::from(last) + 0.5) / 45.0, blocks);
        assert_eq!(report.violations, [], "{blocks} blocks at {tick}");
        let reached = [last + 1 - blocks, last].map(|block| u64::from(block / 45));
        let cycles = report.cycles.iter();
        let lost = cycles.filter(|cycle| cycle.passed.is_none());
        let lost: Vec<u64> = lost.map(|cycle| cycle.cycle).collect();
        let reaches = |cycle: &u64| (reached[0]..=reached[1]).contains(cycle);
        assert!(
            lost.len() <= 1 && lost.iter().all(reaches),
            "{blocks} blocks at {tick} cost cycles {lost:?}"
        );
    }
}

/// Blocks are kept back from those that rest, unless the run is written down. What should not happen: that
/// this changes anything, be it under forks, cuts, crashes or churn.
#[test]
fn a_run_in_which_nobody_rests_is_the_same_run() {
    const TROUBLES: &str = "\
        [faults]\ncrashing_percent = 30\ncrashes_per_cycle = 0.5\nrestart_seconds = 60\n\
        [churn]\njoins_per_cycle = 0.5\nleaves_per_cycle = 0.5\n\
        [[partitions]]\nat_cycle = 1.2\ncycles = 0.5\npercent = 40\n\
        [chain]\nlost_writes_percent = 1\n\
        forks = [{ at_cycle = 0.5, blocks = 8 }, { at_cycle = 2.4, blocks = 2 }]\n";
    for seed in 0..8 {
        let mut rested = simulation(TROUBLES, seed);
        rested.keep_some_journals();
        let mut kept_back = 0;
        while !rested.is_over()
            && let Some(happening) = rested.queue.next()
        {
            rested.happen(happening);
            let at_rest = rested.rests.iter().zip(&rested.nodes);
            kept_back += at_rest
                .filter(|(rest, node)| rest.keeps_back(node.seen))
                .count();
        }
        assert!(kept_back > 0, "seed {seed}: nobody rests");
        rested.judge_the_end();
        let scenario = rested.scenario.clone();
        let watch = Watch {
            trace: true,
            ..Watch::default()
        };
        let watched = Simulation::new(&scenario, seed, watch).unwrap().run().0;
        assert_eq!(RunReport::new(&rested), watched, "seed {seed}");
    }
}
