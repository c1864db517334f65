//! Divisions of every kind, and every invariant broken by name.

use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

use super::inventory::tests::inventory;
use super::*;

fn division(strategy: Strategy<'_>, sizes: Sizes, uneven: Uneven) -> Division<'_> {
    Division {
        strategy,
        sizes,
        uneven,
    }
}

fn divided(
    (layers, experts): (&[usize], usize),
    strategy: Strategy<'_>,
    sizes: Sizes,
    uneven: Uneven,
) -> Result<Partition, PartitionError> {
    let inventory = inventory(layers, experts);
    Partition::divide(&inventory, &division(strategy, sizes, uneven))
}

fn indices(partition: &Partition) -> Vec<Vec<usize>> {
    let groups = partition.groups().iter();
    groups
        .map(|mapping| mapping.expert_indices.clone())
        .collect()
}

/// 4 experts of layers 1 and 2, in two groups.
fn small() -> Partition {
    divided(
        (&[1, 2], 4),
        Strategy::Contiguous,
        Sizes::Groups(2),
        Uneven::Refused,
    )
    .unwrap()
}

fn lists(texts: &[&str]) -> Vec<ExpertAssignment> {
    let read = |text: &&str| ExpertAssignment::from_json(text).unwrap();
    texts.iter().map(read).collect()
}

proptest! {
    #[test]
    fn every_expert_is_owned_once_whatever_the_numbers(
        experts in 1..200_usize, groups in 0..210_u16, strided in any::<bool>(), allowed in any::<bool>(),
    ) {
        let strategy = if strided { Strategy::Strided } else { Strategy::Contiguous };
        let uneven = if allowed { Uneven::Allowed } else { Uneven::Refused };
        let result = divided((&[1, 3], experts), strategy, Sizes::Groups(groups), uneven);
        let count = usize::from(groups);
        if count == 0 || count > experts || (experts % count > 0 && !allowed) {
            prop_assert!(result.is_err());
        } else {
            let partition = result.unwrap();
            let sizes: Vec<_> = indices(&partition).iter().map(Vec::len).collect();
            prop_assert_eq!(sizes.len(), count);
            prop_assert!(sizes.is_sorted_by(|a, b| a >= b), "the first groups hold one more");
            prop_assert!(sizes[0] - sizes[count - 1] <= 1);
            let inventory = inventory(&[1, 3], experts);
            prop_assert_eq!(partition.verify(&inventory, uneven), Ok(()));
        }
    }

    /// What should not happen: another name for the same groups because somebody registered.
    #[test]
    fn a_partition_reads_back_from_json_under_the_same_name(
        experts in 1..40_usize, groups in 1..10_u16, keys in prop::collection::vec(any::<[u8; 32]>(), 0..9),
    ) {
        let groups = groups.min(u16::try_from(experts).unwrap());
        let sizes = Sizes::Groups(groups);
        let mut partition =
            divided((&[0], experts), Strategy::Strided, sizes, Uneven::Allowed).unwrap();
        let name = partition.hash();
        let hotkeys: Vec<_> = keys.into_iter().map(Hotkey).collect();
        partition.assign(&hotkeys, &vec![64; usize::from(groups)]);
        prop_assert_eq!(partition.hash(), name);
        let json = serde_json::to_string(&partition).unwrap();
        let read: Partition = serde_json::from_str(&json).unwrap();
        let listed: usize = read.groups().iter().map(|group| group.miner_hotkeys.len()).sum();
        prop_assert_eq!(listed, hotkeys.len());
        prop_assert_eq!(read, partition);
    }
}

/// The example of the design: 64 experts in 8 groups.
#[test]
fn experts_0_to_7_make_group_0_in_every_layer() {
    let sizes = Sizes::Groups(8);
    let partition = divided((&[1, 2], 64), Strategy::Contiguous, sizes, Uneven::Refused);
    let partition = partition.unwrap();
    assert_eq!(indices(&partition)[0], (0..8).collect::<Vec<_>>());
    assert_eq!(indices(&partition)[1], (8..16).collect::<Vec<_>>());
    assert_eq!(partition.groups()[0].layer_indices, [1, 2]);
    assert_eq!(partition.groups()[0].param_keys.len(), 8 * 2 * 2);
}

#[test]
fn strided_groups_hold_every_nth_expert() {
    let sizes = Sizes::Groups(3);
    let partition = divided((&[0], 8), Strategy::Strided, sizes, Uneven::Allowed).unwrap();
    assert_eq!(
        indices(&partition),
        [vec![0, 3, 6], vec![1, 4, 7], vec![2, 5]]
    );
    let sizes = Sizes::Given(vec![1, 4, 3]);
    let partition = divided((&[0], 8), Strategy::Strided, sizes, Uneven::Refused).unwrap();
    assert_eq!(
        indices(&partition),
        [vec![0], vec![1, 3, 5, 7], vec![2, 4, 6]]
    );
}

#[test]
fn a_remainder_is_refused_with_the_sizes_that_it_would_make() {
    let refused = divided(
        (&[0], 128),
        Strategy::Contiguous,
        Sizes::Groups(100),
        Uneven::Refused,
    );
    assert_eq!(
        refused.unwrap_err().to_string(),
        "128 experts do not divide by 100 groups: there would be 28 of 2 and 72 of 1"
    );
    let allowed = divided(
        (&[0], 128),
        Strategy::Contiguous,
        Sizes::Groups(100),
        Uneven::Allowed,
    );
    let sizes: Vec<_> = indices(&allowed.unwrap()).iter().map(Vec::len).collect();
    assert_eq!(sizes, [[2; 28].as_slice(), &[1; 72]].concat());
}

#[test]
fn sizes_that_are_spelled_out_are_kept_if_they_are_parts_of_all() {
    let with = |sizes: &[usize]| {
        divided(
            (&[4], 64),
            Strategy::Contiguous,
            Sizes::Given(sizes.to_vec()),
            Uneven::Refused,
        )
    };
    let sizes = [32, 16, 8, 8];
    let found: Vec<_> = indices(&with(&sizes).unwrap())
        .iter()
        .map(Vec::len)
        .collect();
    assert_eq!(found, sizes);
    for refused in [
        &[32, 32, 0][..],
        &[32, 31],
        &[],
        &[usize::MAX, 65],
        &[65],
        &vec![1; 70_000],
    ] {
        let error = with(refused).unwrap_err();
        assert!(matches!(error, PartitionError::Sizes { .. }), "{error}");
        assert!(error.to_string().len() < 200);
    }
}

#[test]
fn one_list_of_everything_is_cut_into_runs_of_slots() {
    let all = lists(&[
        r#"{"1": [[0, 3], [1, 0], [2, 1], [3, 2]], "2": [[3, 0], [2, 1], [1, 2], [0, 3]]}"#,
    ]);
    let partition = divided(
        (&[1, 2], 4),
        Strategy::Explicit(&all),
        Sizes::Groups(2),
        Uneven::Refused,
    );
    let partition = partition.unwrap();
    // Experts differ by layer: the indices are a union, the keys say which.
    assert_eq!(indices(&partition), [vec![0, 2, 3], vec![0, 1, 2]]);
    assert_eq!(
        partition.groups()[0].param_keys[0],
        "layers.1.experts.0.down"
    );
    assert_eq!(
        partition.groups()[0].param_keys[4],
        "layers.2.experts.2.down"
    );
    assert_eq!(check(partition.groups()), Ok(()));
}

#[test]
fn a_list_of_everything_lists_what_the_model_has_and_nothing_else() {
    for (text, told) in [
        (
            r#"{"1": [[0, 3], [1, 0], [2, 2]]}"#,
            "expert 1 of layer 1 belongs to no group",
        ),
        (
            r#"{"2": [[0, 3], [1, 0], [2, 2], [3, 1]]}"#,
            "expert 0 of layer 1 belongs to no group",
        ),
        (
            r#"{"1": [[0, 3], [1, 0], [2, 1], [3, 2], [4, 4]]}"#,
            "group 1 lists expert 4 of layer 1, which the model does not have",
        ),
        (
            r#"{"1": [[0, 3], [1, 0], [2, 1], [3, 2]], "5": [[0, 0]]}"#,
            "group 0 lists expert 0 of layer 5, which the model does not have",
        ),
    ] {
        let all = lists(&[text]);
        let strategy = Strategy::Explicit(&all);
        let error = divided((&[1], 4), strategy, Sizes::Groups(2), Uneven::Allowed);
        assert_eq!(error.unwrap_err().to_string(), told);
    }
}

#[test]
fn a_list_for_each_group_makes_groups_in_their_order() {
    let texts = [
        r#"{"1": [[0, 3], [1, 0]], "2": [[0, 0], [1, 1]]}"#,
        r#"{"1": [[0, 1], [1, 2]], "2": [[0, 2], [1, 3]]}"#,
    ];
    let of = |texts: &[&str], groups, uneven| {
        let lists = lists(texts);
        let strategy = Strategy::Explicit(&lists);
        divided((&[1, 2], 4), strategy, Sizes::Groups(groups), uneven)
    };
    let partition = of(&texts, 2, Uneven::Refused).unwrap();
    assert_eq!(indices(&partition), [vec![0, 1, 3], vec![1, 2, 3]]);
    let told = |texts: &[&str], groups, uneven| of(texts, groups, uneven).unwrap_err().to_string();
    assert_eq!(
        told(&texts, 3, Uneven::Refused),
        "2 lists of experts cannot make 3 groups"
    );
    let overlapping = [
        texts[0],
        r#"{"1": [[0, 1], [1, 2]], "2": [[0, 2], [1, 1]]}"#,
    ];
    assert_eq!(
        told(&overlapping, 2, Uneven::Allowed),
        "expert 1 of layer 2 belongs to group 1 and to an earlier one"
    );
    let foreign = [
        texts[0],
        r#"{"1": [[0, 1], [1, 4]], "2": [[0, 2], [1, 3]]}"#,
    ];
    assert_eq!(
        told(&foreign, 2, Uneven::Allowed),
        "group 1 lists expert 4 of layer 1, which the model does not have"
    );
    let gap = [texts[0], r#"{"1": [[0, 1]], "2": [[0, 2], [1, 3]]}"#];
    assert_eq!(
        told(&gap, 2, Uneven::Allowed),
        "expert 2 of layer 1 belongs to no group"
    );
}

/// What should not happen: groups that differ because nobody looked.
#[test]
fn lists_of_different_sizes_or_layers_need_leave() {
    let sized = [
        r#"{"1": [[0, 3], [1, 0], [2, 1]], "2": [[0, 0], [1, 1]]}"#,
        r#"{"1": [[0, 2]], "2": [[0, 2], [1, 3]]}"#,
    ];
    let layered = [
        r#"{"1": [[0, 0], [1, 1], [2, 2], [3, 3]]}"#,
        r#"{"2": [[0, 0], [1, 1], [2, 2], [3, 3]]}"#,
    ];
    for (texts, told) in [
        (sized, "group 0 has 2 experts in layer 2, group 0 has 3"),
        (layered, "group 0 has no experts in layer 2"),
    ] {
        let lists = lists(&texts);
        let of = |uneven| {
            let strategy = Strategy::Explicit(&lists);
            divided((&[1, 2], 4), strategy, Sizes::Groups(2), uneven)
        };
        assert_eq!(of(Uneven::Refused).unwrap_err().to_string(), told);
        assert_eq!(check(of(Uneven::Allowed).unwrap().groups()), Ok(()));
    }
}

#[test]
fn coactivation_puts_together_what_fires_together_in_every_layer() {
    let pairs = |a: usize, b: usize| u64::from(a % 2 == b % 2);
    let rows: Vec<Vec<u64>> = (0..4)
        .map(|a| (0..4).map(|b| pairs(a, b)).collect())
        .collect();
    let matrix = CoActivation::from_rows(&rows).unwrap();
    let with = |experts| {
        divided(
            (&[1, 2], experts),
            Strategy::Coactivation(&matrix),
            Sizes::Groups(2),
            Uneven::Refused,
        )
    };
    assert_eq!(indices(&with(4).unwrap()), [vec![0, 2], vec![1, 3]]);
    assert_eq!(
        with(6).unwrap_err().to_string(),
        "co-activation was counted for 4 experts, a layer has 6"
    );
}

/// Changes a sound partition, and gives what is said of it without and with the model.
fn broken(change: impl FnOnce(&mut Vec<ExpertMapping>)) -> (String, String) {
    let mut groups = small().into_groups();
    change(&mut groups);
    let alone = check(&groups).err();
    let partition = Partition { groups };
    let known = partition.verify(&inventory(&[1, 2], 4), Uneven::Refused);
    let told = |error: Option<PartitionError>| error.map_or(String::new(), |e| e.to_string());
    (told(alone), told(known.err()))
}

#[test]
fn what_entries_alone_tell_is_said_without_the_model() {
    let alone = |change: fn(&mut Vec<ExpertMapping>)| {
        let (alone, known) = broken(change);
        assert_ne!(known, "", "with the model it is broken as well");
        alone
    };
    assert_eq!(alone(Vec::clear), "there are no groups");
    assert_eq!(
        alone(|groups| groups.swap(0, 1)),
        "group 1 stands at position 0"
    );
    assert_eq!(
        alone(|groups| groups[1].param_keys.clear()),
        "group 1 has no parameters"
    );
    assert_eq!(
        alone(|groups| groups[0].layer_indices.reverse()),
        "the layer indices of group 0 are not in ascending order, each once"
    );
    assert_eq!(
        alone(|groups| groups[1].expert_indices = vec![1, 3]),
        "expert 2 belongs to no group"
    );
    assert_eq!(
        alone(|groups| groups[1].expert_indices = vec![1, 2, 3]),
        "expert 1 belongs to group 1 and to another one"
    );
    assert_eq!(
        alone(|groups| groups[1].layer_indices = vec![1]),
        "the 8 parameters of group 1 are not those of its experts and layers"
    );
    assert_eq!(
        alone(|groups| groups[1].param_keys[0] = groups[0].param_keys[0].clone()),
        "parameter layers.1.experts.0.down is listed twice, last in group 1"
    );
    assert_eq!(
        alone(|groups| drop(groups[1].param_keys.pop())),
        "the 8 parameters of group 0 are not those of its experts and layers",
        "one tensor too few leaves no number that every expert could have"
    );
}

#[test]
fn what_needs_the_model_is_said_with_it() {
    let known = |change: fn(&mut Vec<ExpertMapping>)| {
        let (alone, known) = broken(change);
        assert_eq!(alone, "", "the entries alone cannot tell");
        known
    };
    assert_eq!(
        known(|groups| groups[1].param_keys[7] = "layers.9".to_owned()),
        "group 1 lists parameter layers.9, which no expert of the model has"
    );
    let exchange = |groups: &mut Vec<ExpertMapping>| {
        let key = std::mem::take(&mut groups[0].param_keys[0]);
        groups[0].param_keys[0] = std::mem::replace(&mut groups[1].param_keys[0], key);
        groups.iter_mut().for_each(|group| group.param_keys.sort());
    };
    let (_, exchanged) = broken(exchange);
    assert_eq!(
        exchanged,
        "the expert indices of group 0 are not those of its parameters"
    );
    // As entries, these could be of groups that vary from layer to layer.
    let (alone, shared) = broken(|groups| {
        exchange(groups);
        groups[0].expert_indices = vec![0, 1, 2];
        groups[1].expert_indices = vec![0, 2, 3];
    });
    assert_eq!(alone, "");
    assert_eq!(
        shared,
        "expert 0 of layer 1 belongs to group 1 and to an earlier one"
    );
    let shifted = known(|groups| {
        groups[0].layer_indices = vec![1, 3];
        groups[1].layer_indices = vec![1, 3];
    });
    assert_eq!(
        shifted,
        "the layer indices of group 0 are not those of its parameters"
    );
}

#[test]
fn a_partition_under_another_name_is_refused() {
    let json = serde_json::to_string(&small()).unwrap();
    let other = json.replace("experts.3.up", "experts.3.zz");
    let error = serde_json::from_str::<Partition>(&other).unwrap_err();
    let name = small().hash().to_string();
    assert!(error.to_string().contains(&name), "{error}");
    assert!(error.to_string().contains("the groups have hash"));
}

/// The bytes that other programs read, and the name that they must find.
#[test]
fn the_json_of_a_partition_has_the_fields_of_the_design_in_their_order() {
    let partition = divided(
        (&[5], 1),
        Strategy::Contiguous,
        Sizes::Groups(1),
        Uneven::Refused,
    )
    .unwrap();
    let groups = concat!(
        r#"[{"group_id":0,"expert_indices":[0],"layer_indices":[5],"miner_hotkeys":[],"#,
        r#""param_keys":["layers.5.experts.0.down","layers.5.experts.0.up"]}]"#
    );
    let hash = blake3::derive_key("connito/1 partition", groups.as_bytes());
    assert_eq!(
        serde_json::to_string(&partition).unwrap(),
        format!(r#"{{"groups":{groups},"hash":"{}"}}"#, PartitionId(hash))
    );
}
