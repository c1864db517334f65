//! Word problems: somebody has a number of things, two or three events change it, how many are left?
//!
//! ```text
//! Question: Nora has 14 pears. She buys 3 bags with 6 pears in each. Then ...
//! Answer: Nora starts with 14 pears.
//! 3 bags of 6 are 3 * 6 = 18, and 14 + 18 = 32.
//! ...
//! #### 24
//! ```
//!
//! Amounts stay between 1 and 999. Each event states what happens and, separately, how to work it
//! out, so that the answer can be learnt from the question.

use super::template::{Blanks, Choices};
use crate::data::random::Random;

/// Names with the pronoun that goes with each.
#[rustfmt::skip]
const PEOPLE: &[(&str, &str)] = &[
    ("Nora", "she"), ("Ivan", "he"), ("Amara", "she"), ("Tomas", "he"), ("Leila", "she"),
    ("Oscar", "he"), ("Mina", "she"), ("Pavel", "he"), ("Ruth", "she"), ("Diego", "he"),
    ("Hana", "she"), ("Kofi", "he"), ("Greta", "she"), ("Samir", "he"), ("Ines", "she"),
    ("Bruno", "he"), ("Yuki", "she"), ("Felix", "he"), ("Zara", "she"), ("Anton", "he"),
];

#[rustfmt::skip]
const THINGS: &[&str] = &[
    "pears", "stamps", "marbles", "pencils", "shells", "buttons", "coins", "cards", "plums",
    "candles", "tickets", "beads", "walnuts", "postcards", "seeds", "stickers", "bricks", "eggs",
    "ribbons", "keys", "lemons", "bottles", "badges", "spoons",
];

#[rustfmt::skip]
const CHOICES: &[Choices] = &[
    ("friend", &["a friend", "a cousin", "a neighbour", "the teacher", "an uncle", "a sister"]),
    ("place", &["at the market", "in the attic", "on the beach", "behind the school",
        "at a fair", "in the garden"]),
    ("day", &["on Monday", "on Tuesday", "on Friday", "in the morning", "after lunch",
        "in the evening", "a day later", "last week"]),
];

/// What an event does to the amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gain,
    Lose,
    Packs,
    Sets,
    Double,
    Share,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::Gain,
        Self::Lose,
        Self::Packs,
        Self::Sets,
        Self::Double,
        Self::Share,
    ];

    /// What happens, in words; `{n}` and `{m}` are the event's numbers.
    fn stories(self) -> &'static [&'static str] {
        match self {
            Self::Gain => &[
                "{friend} gives {them} {n} more",
                "{day} {they} finds {n} {things} {place}",
                "{they} buys another {n} {things} {day}",
                "{they} wins {n} {things} {place}",
            ],
            Self::Lose => &[
                "{day} {they} loses {n} of them {place}",
                "{they} gives {n} {things} to {friend}",
                "{they} sells {n} of the {things} {place}",
                "{friend} borrows {n} {things}",
            ],
            Self::Packs => &[
                "{they} buys {m} bags with {n} {things} in each",
                "{friend} brings {m} boxes of {n} {things}",
                "{day} {they} opens {m} packs of {n} {things}",
            ],
            Self::Sets => &[
                "{they} gives {n} {things} to each of {m} friends",
                "{they} fills {m} jars with {n} {things} each and sells them {place}",
                "{m} visitors take {n} {things} each",
            ],
            Self::Double => &[
                "{day} {they} doubles what {they} has",
                "{friend} gives {them} as many {things} as {they} already has",
            ],
            Self::Share => &[
                "{they} shares the {things} equally among {m} people and keeps one part",
                "{they} puts the {things} into {m} equal piles and keeps only one pile",
            ],
        }
    }

    /// How to work it out; `{a}` is the amount before, `{b}` the amount after, `{p}` the product.
    fn working(self) -> &'static str {
        match self {
            Self::Gain => "{a} + {n} = {b}.",
            Self::Lose => "{a} - {n} = {b}.",
            Self::Packs => "{m} * {n} = {p}, and {a} + {p} = {b}.",
            Self::Sets => "{m} * {n} = {p}, and {a} - {p} = {b}.",
            Self::Double => "{a} * 2 = {b}.",
            Self::Share => "{a} / {m} = {b}.",
        }
    }
}

/// An event with its numbers.
struct Event {
    kind: Kind,
    /// How many things, or how many in each group.
    each: u64,
    /// How many groups.
    groups: u64,
    after: u64,
}

/// One word problem with its solution.
pub(super) fn document(random: &mut Random) -> String {
    let mut blanks = Blanks::default();
    let (name, they) = random.pick(PEOPLE);
    let things = random.pick(THINGS);
    let start = random.between(5, 60);
    blanks.bind("name", name);
    blanks.bind("they", they);
    blanks.bind("them", if they == "she" { "her" } else { "him" });
    blanks.bind("things", things);
    blanks.bind("start", start);

    let mut amount = start;
    let mut question = blanks.fill("Question: {name} has {start} {things}.", CHOICES, random);
    let mut answer = blanks.fill(
        "Answer: {name} starts with {start} {things}.\n",
        CHOICES,
        random,
    );
    for _ in 0..random.between(2, 4) {
        let event = draw_event(amount, random);
        blanks.bind("a", amount);
        blanks.bind("b", event.after);
        blanks.bind("n", event.each);
        blanks.bind("m", event.groups);
        blanks.bind("p", event.each * event.groups);
        let story = random.pick(event.kind.stories());
        question += &format!(" {}.", blanks.sentence(story, CHOICES, random));
        answer += &blanks.fill(event.kind.working(), CHOICES, random);
        answer.push('\n');
        amount = event.after;
    }
    question += &blanks.fill(
        " How many {things} does {name} have now?\n",
        CHOICES,
        random,
    );
    format!("{question}{answer}#### {amount}\n")
}

/// An event that leaves between 1 and 999 things: draws until one does.
///
/// It ends, because gaining a few is possible below 990 and losing a few above.
fn draw_event(amount: u64, random: &mut Random) -> Event {
    loop {
        let kind = Kind::ALL[random.index(Kind::ALL.len())];
        let groups = random.between(2, 6);
        let each = match kind {
            Kind::Packs | Kind::Sets => random.between(2, 12),
            _ => random.between(2, 40),
        };
        let after = match kind {
            Kind::Gain => amount.checked_add(each),
            Kind::Lose => amount.checked_sub(each),
            Kind::Packs => amount.checked_add(each * groups),
            Kind::Sets => amount.checked_sub(each * groups),
            Kind::Double => amount.checked_mul(2),
            Kind::Share => amount.is_multiple_of(groups).then_some(amount / groups),
        };
        if let Some(after @ 1..1_000) = after {
            return Event {
                kind,
                each,
                groups,
                after,
            };
        }
    }
}
