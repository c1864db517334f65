//! Short paragraphs from a grammar: one person, one place, one subject, four to six sentences.
//!
//! Who and where stay the same through a paragraph, as do the pronouns; everything else is drawn
//! anew at each blank. A subject has more sentences than a paragraph uses, and each sentence has
//! blanks, so that paragraphs repeat their phrases but hardly ever themselves.

use super::template::{Blanks, Choices};
use crate::data::random::Random;

/// Names with the pronoun and the possessive that go with each.
#[rustfmt::skip]
const PEOPLE: &[(&str, &str, &str)] = &[
    ("Clara", "she", "her"), ("Jonas", "he", "his"), ("Edith", "she", "her"),
    ("Marek", "he", "his"), ("Salma", "she", "her"), ("Henrik", "he", "his"),
    ("Lucia", "she", "her"), ("Bashir", "he", "his"), ("Wanda", "she", "her"),
    ("Theo", "he", "his"), ("Noor", "she", "her"), ("Gaston", "he", "his"),
    ("Ingrid", "she", "her"), ("Emil", "he", "his"), ("Paula", "she", "her"),
    ("Ravi", "he", "his"),
];

#[rustfmt::skip]
const PLACES: &[&str] = &[
    "the village", "the harbour", "the valley", "the old town", "the city", "the mountains",
    "the suburbs", "the hills", "the next town", "the south", "the border town", "the port",
];

#[rustfmt::skip]
const CHOICES: &[Choices] = &[
    ("weather", &["rain", "snow", "fog", "hail", "a warm wind", "a cold wind", "thin sunlight"]),
    ("sky", &["grey", "pale", "clear", "dark", "heavy", "bright", "red"]),
    ("adjective", &["small", "narrow", "quiet", "crooked", "wide", "mossy", "plain", "painted",
        "dusty", "friendly"]),
    ("thing", &["a lamp", "a blue coat", "an umbrella", "a wooden box", "a newspaper", "a basket",
        "a pair of boots", "a clock", "a photograph", "a map"]),
    ("food", &["soup", "bread", "fish", "rice", "apple cake", "beans", "dumplings", "stew",
        "pancakes", "lentils"]),
    ("spice", &["salt", "pepper", "garlic", "thyme", "ginger", "mustard", "honey", "dill"]),
    ("relative", &["sister", "brother", "aunt", "grandfather", "neighbour", "cousin", "teacher",
        "mother"]),
    ("animal", &["dog", "cat", "goat", "crow", "horse", "hen", "fox", "sheep"]),
    ("plant", &["roses", "beans", "cherry trees", "cabbages", "tulips", "onions", "vines",
        "herbs"]),
    ("vehicle", &["train", "ferry", "bus", "cart", "boat", "tram"]),
    ("time", &["at dawn", "before noon", "after supper", "at dusk", "late at night",
        "in the early morning", "towards evening"]),
    ("length", &["an hour", "two days", "a week", "half the night", "a whole summer",
        "three years"]),
    ("feeling", &["tired", "glad", "worried", "calm", "hungry", "curious", "proud", "lonely"]),
    ("person", &["the baker", "the postman", "a stranger", "the captain", "the doctor",
        "the gardener", "a child", "the tailor"]),
];

/// Sentences by subject: the first list opens a paragraph, the second continues it.
const SUBJECTS: &[(&[&str], &[&str])] = &[
    (
        &[
            "{time} {weather} came over {place}, and {name} closed the shutters.",
            "there had been {weather} in {place} for {length}.",
            "the sky over {place} was {sky} when {name} went out {time}.",
        ],
        &[
            "{they} took {thing} and walked down the {adjective} lane.",
            "the {adjective} roofs looked {sky} under {weather}.",
            "{person} said that {weather} would last for {length}.",
            "nobody was outside except {person} and a {adjective} {animal}.",
            "{time} the clouds broke, and the light was {sky}.",
            "{they} was {feeling}, because the road to {place} was under water.",
            "then {weather} turned to {weather}, and the {animal} hid in the barn.",
        ],
    ),
    (
        &[
            "{name} left {place} {time} with {thing} and {thing}.",
            "the {vehicle} to {place} was late, and {name} waited for {length}.",
            "after {length} on the {vehicle}, {name} reached {place} {time}.",
        ],
        &[
            "{person} sat across from {them} and ate {food} with {spice}.",
            "the {vehicle} stopped by a {adjective} bridge, where {weather} began.",
            "{they} had not seen {their} {relative} for {length}.",
            "through the window {they} saw {plant}, a {animal} and {adjective} houses.",
            "{they} was {feeling} and asked {person} for the way.",
            "in {their} bag {they} found {thing} that belonged to {person}.",
            "{time} the {vehicle} went on, slower than before.",
        ],
    ),
    (
        &[
            "{name} cooked {food} for {their} {relative} {time}.",
            "in the kitchen in {place}, {name} was making {food}.",
            "the {adjective} kitchen smelled of {food} and {spice}.",
        ],
        &[
            "first {they} cut the onions, then {they} added {spice} and {spice}.",
            "{their} {relative} wanted more {spice}, but there was only {spice} left.",
            "the pot stood on the {adjective} stove for {length}.",
            "{person} came in {time} and asked for {food}.",
            "they ate {food} with {food} and talked about {place}.",
            "under the table the {animal} waited, {feeling} as always.",
            "when it was done, {name} was {feeling} and opened the window.",
        ],
    ),
    (
        &[
            "dear {relative}, {name} wrote {time}, I am in {place} at last.",
            "a letter from {place} came for {name} {time}.",
            "{name} had not answered the letter from {their} {relative} for {length}.",
        ],
        &[
            "it said that the {animal} was well and that {plant} grew by the wall.",
            "{they} read it to {person}, who was {feeling}.",
            "there was a drawing of {thing} on the last {adjective} page.",
            "please send me {thing}, it ended, before {weather} comes.",
            "{they} was {feeling}, and {they} kept the letter under {thing}.",
            "{their} {relative} had learnt to cook {food} with {spice}.",
            "{time} {they} took a {adjective} sheet of paper and began to answer.",
        ],
    ),
    (
        &[
            "behind the house in {place}, {name} grew {plant} and {plant}.",
            "{time} {name} went to the {adjective} garden with {thing}.",
            "for {length} {name} had looked after the {plant} of {their} {relative}.",
        ],
        &[
            "the {animal} had dug a {adjective} hole beside the {plant}.",
            "{person} gave {them} seeds in exchange for {food}.",
            "{weather} was good for the {plant} but bad for the {plant}.",
            "{they} was {feeling} when the first {plant} came up {time}.",
            "{their} {relative} leaned on the {adjective} gate and watched.",
            "under the {plant} {they} found {thing}, lost for {length}.",
            "{time} {they} carried water from {place}.",
        ],
    ),
    (
        &[
            "the market in {place} opened {time}, and {name} was early.",
            "{name} sold {food} and {plant} at the market in {place}.",
            "for {length} there had been no market in {place}, and {name} was {feeling}.",
        ],
        &[
            "{person} wanted to trade {thing} for {food}.",
            "next to {them} stood {person} with a {adjective} {animal}.",
            "{they} bought {spice}, {spice} and {thing} for {their} {relative}.",
            "when {weather} came, everybody hid under the {adjective} roof.",
            "a {animal} stole the {food} of {person} and ran off.",
            "{time} the {adjective} square was empty again.",
            "{their} {relative} counted the coins and was {feeling}.",
        ],
    ),
];

/// One paragraph.
pub(super) fn document(random: &mut Random) -> String {
    let (name, they, their) = random.pick(PEOPLE);
    let mut blanks = Blanks::default();
    blanks.bind("name", name);
    blanks.bind("they", they);
    blanks.bind("their", their);
    blanks.bind("them", if they == "she" { "her" } else { "him" });
    blanks.bind("place", random.pick(PLACES));

    let (openings, others) = random.pick(SUBJECTS);
    let mut others = others.to_vec();
    random.shuffle_front(&mut others, usize::MAX);
    let count = random.between(4, 5) as usize;
    let templates = std::iter::once(random.pick(openings)).chain(others.into_iter().take(count));
    let sentences: Vec<String> = templates
        .map(|template| blanks.sentence(template, CHOICES, random))
        .collect();
    sentences.join(" ") + "\n"
}
