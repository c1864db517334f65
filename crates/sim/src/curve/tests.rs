//! Points as bytes, and what a step towards the target or away from it is worth.

use super::*;

#[test]
fn points_read_back_and_nothing_else_reads_as_one() {
    let point = [0.5; WIDTH];
    let bytes = encode(GroupId(3), &point);
    assert_eq!(decode(&bytes), Some((GroupId(3), point)));
    assert_eq!(decode(&bytes[1..]), None);
    assert_eq!(decode(&[&bytes[..], &[0]].concat()), None);
}

/// Half of the way to the target gains, and as much backwards harms, both beyond their errors.
#[test]
fn a_step_towards_the_target_gains_and_one_away_from_it_harms() {
    let draw = Draw::new((GroupId(0), Cycle(1)), &Seed([1; 32]), 32);
    let base = [0.0; WIDTH];
    let mut half = [0.0; WIDTH];
    half.iter_mut()
        .zip(draw.target)
        .for_each(|(value, target)| *value = single(0.5 * target));
    let measuring = Measuring {
        before: draw.losses(&base),
        draw,
        base,
    };
    let gain = |update: &Point| match measuring.measure(update) {
        Some(Finding::Measured { measurement, .. }) => measurement.significant_gain(1.0),
        other => panic!("{other:?}"),
    };
    assert!(gain(&half) > 0.1, "{}", gain(&half));
    assert!(gain(&half.map(|value| -value)) < -0.1);
}
