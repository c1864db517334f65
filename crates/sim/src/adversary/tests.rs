//! That every hostile kind does what it is named for, and what becomes of it: a kind whose attack never
//! arrives would hold every invariant, too.

use super::HostileMiner;
use crate::report::RunReport;
use crate::scenario::Scenario;

/// A run of a few cycles with so many hotkeys of a kind beside honest miners.
fn played(kind: HostileMiner, hotkeys: u32, more: &str) -> RunReport {
    let scenario = format!(
        "cycles = 6\n[validators]\nhonest = 3\n[miners]\nhonest = 8\nhostile = {{ {} = {hotkeys} }}\n{more}",
        kind.name()
    );
    let scenario = Scenario::from_toml(&scenario).unwrap();
    crate::run(&scenario, 1).unwrap()
}

/// Verdicts that a kind must be given, and what one of its hotkeys may earn at most, in multiples of an
/// honest one's.
struct Fate(&'static [&'static str], f64);

/// What is paid although nothing was done for it: a chance, or a gain in the last digit.
const NOTHING: f64 = 0.02;

/// What is paid for training. Miners of a group share its reward, so that some earn more than others for
/// the same; a process that dies costs a crew less than one alone.
const A_DAYS_WORK: f64 = 1.2;

fn fate(kind: HostileMiner) -> Fate {
    match kind {
        HostileMiner::Copier => Fate(&["duplicate", "reveal_mismatch", "wrong_group"], 0.0),
        HostileMiner::Echo
        | HostileMiner::Noiser
        | HostileMiner::Blender
        | HostileMiner::MomentumRider
        | HostileMiner::Scavenger => Fate(&["duplicate"], NOTHING),
        // Beyond what sketches see (P-24): what is left of the update's gain a cycle later is paid.
        HostileMiner::Fogger => Fate(&["accepted"], 0.6),
        HostileMiner::Flipper => Fate(&["accepted"], 0.3),
        HostileMiner::Twins | HostileMiner::Permuter | HostileMiner::Rescaler => {
            Fate(&["accepted", "duplicate"], A_DAYS_WORK / 3.0)
        }
        HostileMiner::Splitter => Fate(&["accepted"], A_DAYS_WORK / 2.0),
        HostileMiner::Lazy => Fate(&["harmful", "no_gain"], NOTHING),
        HostileMiner::OptionHolder => Fate(&["not_revealed", "harmful"], 2.0 * NOTHING),
        HostileMiner::Silent | HostileMiner::Latecomer => Fate(&["not_revealed"], 0.0),
        // It works in the first of six cycles.
        HostileMiner::Replayer => Fate(&["wrong_cycle", "reveal_mismatch"], A_DAYS_WORK / 6.0),
        HostileMiner::Trespasser => Fate(&["unexpected_tensor", "wrong_group"], 0.0),
        HostileMiner::Sleeper => Fate(&["accepted", "stale_base"], 0.7),
        HostileMiner::VanishingBlob => Fate(&["not_uploaded"], 0.0),
        HostileMiner::Amplifier => Fate(&["norm_exceeded", "harmful"], 0.0),
        HostileMiner::Shrinker => Fate(&["accepted"], NOTHING),
        HostileMiner::Drifter | HostileMiner::Vandal => Fate(&["harmful"], 0.0),
        HostileMiner::PartCopier
        | HostileMiner::Specialist
        | HostileMiner::PoolTrainer
        | HostileMiner::Grinder => Fate(&["accepted"], A_DAYS_WORK),
        HostileMiner::Sniper | HostileMiner::Rewriter => Fate(&["reveal_mismatch"], 0.0),
        HostileMiner::Garbler => Fate(&["bad_layout", "malformed", "too_large"], NOTHING),
    }
}

/// Every kind that there is, three hotkeys of it among eight honest miners: nothing breaks, its attack
/// arrives and is refused for what it is, and what is no work is not paid.
#[test]
fn every_kind_of_hostile_miner_gets_what_its_attack_deserves() {
    for kind in HostileMiner::ALL {
        let Fate(codes, most) = fate(kind);
        let report = played(kind, 3, "[chain]\ngrinding_authors_percent = 50");
        assert_eq!(report.violations, [], "{}", kind.name());
        let found = &report.kinds[kind.name()];
        for code in codes {
            assert!(
                found.codes.contains_key(*code),
                "{} was never {code}: {found:?}",
                kind.name()
            );
        }
        assert!(
            found.reward_per_hotkey <= most,
            "{}: {found:?}",
            kind.name()
        );
    }
}

/// What should happen: one trained update is paid once, whatever numbers it is written in. What should
/// not: that anything but its effect tells, for by numbers these are updates of their own.
#[test]
fn one_function_in_other_numbers_is_found_by_its_effect_alone() {
    for kind in [HostileMiner::Permuter, HostileMiner::Rescaler] {
        let accepted = |rules| {
            let report = played(kind, 3, rules);
            let codes = &report.kinds[kind.name()].codes;
            codes.get("accepted").copied().unwrap_or(0)
        };
        assert_eq!(accepted(""), 6, "{}: one a cycle", kind.name());
        let unseen = accepted("[rules.scoring]\nsame_function = 1.0");
        assert!(unseen > 9, "{}: {unseen} of 18", kind.name());
    }
}

/// What should happen: each of the eighteen ways in which a file can be no update has its reason, those of
/// sparse chunks also where the rules ask for another codec. What should not: that any is paid.
#[test]
fn every_file_that_is_no_update_is_refused_for_what_is_wrong_with_it() {
    let scenario =
        "cycles = 18\n[validators]\nhonest = 3\n[miners]\nhonest = 4\nhostile = { garbler = 1 }";
    let report = crate::run(&Scenario::from_toml(scenario).unwrap(), 1).unwrap();
    assert_eq!(report.violations, []);
    let garbler = &report.kinds["garbler"];
    let found: Vec<(&str, u64)> = garbler
        .codes
        .iter()
        .map(|(code, n)| (code.as_str(), *n))
        .collect();
    let reasons = [
        ("bad_layout", 5),
        ("duplicate_tensor", 1),
        ("malformed", 3),
        ("non_finite_update", 2),
        ("too_large", 4),
        ("unexpected_tensor", 2),
        ("wrong_shape", 1),
    ];
    assert_eq!(found, reasons);
    assert_eq!(garbler.reward, 0.0);
}

/// Validators that measure six updates in a cycle, and ten to be measured. What should happen: what nobody
/// had the time to score is remembered like what was accepted. What should not: that somebody else sends it
/// again and is paid for it, while whose work it was got nothing.
#[test]
fn what_nobody_could_score_is_nobody_elses_to_send_again() {
    let report = played(
        HostileMiner::Scavenger,
        2,
        "[work]\nscoring_seconds_per_update = 6.0",
    );
    assert_eq!(report.violations, []);
    let unscored = report.kinds["honest"].codes.get("unscored");
    let scavenger = &report.kinds["scavenger"];
    assert!(
        unscored.is_some_and(|unscored| *unscored > 10),
        "{unscored:?}"
    );
    assert!(scavenger.codes.contains_key("duplicate"), "{scavenger:?}");
    assert!(scavenger.reward_per_hotkey < NOTHING, "{scavenger:?}");
}
