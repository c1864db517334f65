//! Small Python functions, two to a document: a docstring, a body of a few lines, true assertions.
//!
//! Each family draws its constants and names, writes the function, and works out in Rust what the
//! function returns for the arguments it asserts. A reader of the document can predict the body
//! from the name and docstring, and the assertions from the body.

use std::fmt;

use crate::data::random::Random;

/// Plural nouns that name lists of numbers, with the singular for one element.
#[rustfmt::skip]
const NUMBERS: &[(&str, &str)] = &[
    ("prices", "price"), ("scores", "score"), ("heights", "height"), ("ages", "age"),
    ("weights", "weight"), ("depths", "depth"), ("speeds", "speed"), ("marks", "mark"),
    ("lengths", "length"), ("levels", "level"), ("costs", "cost"), ("times", "time"),
    ("sizes", "size"), ("widths", "width"), ("steps", "step"), ("points", "point"),
];

#[rustfmt::skip]
const WORDS: &[&str] = &[
    "river", "lamp", "orange", "window", "pencil", "forest", "silver", "garden", "button",
    "winter", "castle", "rocket", "yellow", "planet", "basket", "candle", "harbor", "violin",
    "meadow", "anchor", "copper", "island",
];

/// What a function calls a string it is given.
const TEXTS: &[&str] = &[
    "word", "name", "text", "label", "title", "phrase", "key", "tag",
];

const FAMILIES: [fn(&mut Random) -> Function; 10] = [
    scale,
    clamp,
    count,
    sum,
    spread,
    add_up_to,
    grade,
    repeat,
    shorten,
    count_letter,
];

/// Two functions of different families.
pub(super) fn document(random: &mut Random) -> String {
    let mut order: Vec<usize> = (0..FAMILIES.len()).collect();
    random.shuffle_front(&mut order, 2);
    let functions: Vec<String> = order
        .iter()
        .take(2)
        .map(|&family| FAMILIES[family](random).to_string())
        .collect();
    functions.join("\n")
}

struct Function {
    name: String,
    parameters: String,
    summary: String,
    /// Lines, without the indentation that every line of a body has.
    body: String,
    /// Arguments and what the function returns for them, as Python literals.
    checks: Vec<(String, String)>,
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            parameters,
            summary,
            body,
            checks,
        } = self;
        writeln!(f, "def {name}({parameters}):\n    \"\"\"{summary}\"\"\"")?;
        body.lines()
            .try_for_each(|line| writeln!(f, "    {line}"))?;
        checks
            .iter()
            .try_for_each(|(arguments, value)| writeln!(f, "assert {name}({arguments}) == {value}"))
    }
}

/// Two checks of a function of one number below `bound`, which is at least 2.
fn of_number<T: fmt::Display>(
    random: &mut Random,
    bound: u64,
    value: impl Fn(u64) -> T,
) -> Vec<(String, String)> {
    let numbers = [random.below(bound), random.below(bound)];
    numbers
        .map(|number| (number.to_string(), value(number).to_string()))
        .into()
}

/// Two checks of a function of one list of three to five numbers below 50.
fn of_list(random: &mut Random, value: impl Fn(&[u64]) -> u64) -> Vec<(String, String)> {
    let mut check = || {
        let list: Vec<u64> = (0..random.between(3, 5))
            .map(|_| random.below(50))
            .collect();
        (format!("{list:?}"), value(&list).to_string())
    };
    vec![check(), check()]
}

/// Two checks of a function of one word.
fn of_word(random: &mut Random, value: impl Fn(&str) -> String) -> Vec<(String, String)> {
    let words = [random.pick(WORDS), random.pick(WORDS)];
    words
        .map(|word| (format!("\"{word}\""), value(word)))
        .into()
}

fn scale(random: &mut Random) -> Function {
    let (_, one) = random.pick(NUMBERS);
    let (factor, offset) = (random.between(2, 9), random.between(1, 20));
    let verb = random.pick(&["scale", "convert", "adjust", "update"]);
    Function {
        name: format!("{verb}_{one}"),
        parameters: one.to_owned(),
        summary: format!("Return {factor} times the {one} plus {offset}."),
        body: format!("return {factor} * {one} + {offset}"),
        checks: of_number(random, 20, |number| factor * number + offset),
    }
}

fn clamp(random: &mut Random) -> Function {
    let (_, one) = random.pick(NUMBERS);
    let low = random.between(1, 15);
    let high = low + random.between(5, 20);
    let verb = random.pick(&["limit", "clamp", "bound"]);
    Function {
        name: format!("{verb}_{one}"),
        parameters: one.to_owned(),
        summary: format!("Keep the {one} between {low} and {high}."),
        body: format!(
            "if {one} < {low}:\n    return {low}\nif {one} > {high}:\n    return {high}\nreturn {one}"
        ),
        checks: of_number(random, 50, |number| number.clamp(low, high)),
    }
}

fn count(random: &mut Random) -> Function {
    let (many, one) = random.pick(NUMBERS);
    let limit = random.between(5, 40);
    let (word, sign) = random.pick(&[("above", ">"), ("below", "<")]);
    let counts = |number: u64| {
        if sign == ">" {
            number > limit
        } else {
            number < limit
        }
    };
    Function {
        name: format!("count_{many}_{word}"),
        parameters: many.to_owned(),
        summary: format!("Count the {many} {word} {limit}."),
        body: format!(
            "found = 0\nfor {one} in {many}:\n    if {one} {sign} {limit}:\n        found += 1\n\
             return found"
        ),
        checks: of_list(random, |list| {
            list.iter().filter(|&&x| counts(x)).count() as u64
        }),
    }
}

fn sum(random: &mut Random) -> Function {
    let (many, one) = random.pick(NUMBERS);
    let divisor = random.between(2, 5);
    Function {
        name: format!("sum_{many}_by_{divisor}"),
        parameters: many.to_owned(),
        summary: format!("Add up the {many} that {divisor} divides."),
        body: format!("return sum({one} for {one} in {many} if {one} % {divisor} == 0)"),
        checks: of_list(random, |list| {
            list.iter()
                .filter(|number| number.is_multiple_of(divisor))
                .sum()
        }),
    }
}

fn spread(random: &mut Random) -> Function {
    let (many, _) = random.pick(NUMBERS);
    let extra = random.between(1, 9);
    let noun = random.pick(&["spread", "range", "gap"]);
    Function {
        name: format!("{noun}_of_{many}"),
        parameters: many.to_owned(),
        summary: format!("Return the largest minus the smallest of the {many}, plus {extra}."),
        body: format!("low = min({many})\nhigh = max({many})\nreturn high - low + {extra}"),
        checks: of_list(random, |list| {
            let (low, high) = list.iter().fold((u64::MAX, 0), |(low, high), &number| {
                (low.min(number), high.max(number))
            });
            high.saturating_sub(low) + extra
        }),
    }
}

fn add_up_to(random: &mut Random) -> Function {
    let (first, step) = (random.between(1, 5), random.between(2, 4));
    let (_, one) = random.pick(NUMBERS);
    Function {
        name: format!("total_{one}"),
        parameters: "last".to_owned(),
        summary: format!("Add every {one} from {first} to last in steps of {step}."),
        body: format!(
            "total = 0\nfor {one} in range({first}, last + 1, {step}):\n    total += {one}\n\
             return total"
        ),
        checks: of_number(random, 16, |last| {
            (first..=last).step_by(step as usize).sum::<u64>()
        }),
    }
}

fn grade(random: &mut Random) -> Function {
    let (_, one) = random.pick(NUMBERS);
    let limit = random.between(10, 40);
    let (low, high) = random.pick(&[("small", "large"), ("low", "high"), ("weak", "strong")]);
    let verb = random.pick(&["grade", "classify", "describe"]);
    Function {
        name: format!("{verb}_{one}"),
        parameters: one.to_owned(),
        summary: format!("Call the {one} {high} from {limit} on, else {low}."),
        body: format!("if {one} >= {limit}:\n    return \"{high}\"\nreturn \"{low}\""),
        checks: of_number(random, 50, |number| {
            format!("\"{}\"", if number >= limit { high } else { low })
        }),
    }
}

fn repeat(random: &mut Random) -> Function {
    let text = random.pick(TEXTS);
    let times = random.between(2, 4) as usize;
    let (name, mark) = random.pick(&[("dash", "-"), ("dot", "."), ("plus", "+"), ("star", "*")]);
    Function {
        name: format!("repeat_{text}"),
        parameters: text.to_owned(),
        summary: format!("Write the {text} {times} times with a {name} between."),
        body: format!("return \"{mark}\".join([{text}] * {times})"),
        checks: of_word(random, |word| {
            format!("\"{}\"", vec![word; times].join(mark))
        }),
    }
}

fn shorten(random: &mut Random) -> Function {
    let text = random.pick(TEXTS);
    let letters = random.between(2, 4) as usize;
    let end = random.pick(&["first", "last"]);
    let cut = if end == "first" {
        format!(":{letters}")
    } else {
        format!("-{letters}:")
    };
    Function {
        name: format!("{end}_of_{text}"),
        parameters: text.to_owned(),
        summary: format!("Return the {end} {letters} letters of the {text}."),
        body: format!("return {text}[{cut}]"),
        checks: of_word(random, |word| {
            let (head, tail) = (&word[..letters], &word[word.len() - letters..]);
            format!("\"{}\"", if end == "first" { head } else { tail })
        }),
    }
}

fn count_letter(random: &mut Random) -> Function {
    let text = random.pick(TEXTS);
    let letter = random.pick(&['a', 'e', 'i', 'l', 'n', 'o', 'r', 't']);
    let bonus = random.between(0, 5);
    Function {
        name: format!("count_{letter}_in_{text}"),
        parameters: text.to_owned(),
        summary: format!("Count the letter {letter} in the {text}, starting from {bonus}."),
        body: format!(
            "found = {bonus}\nfor letter in {text}:\n    if letter == \"{letter}\":\n        \
             found += 1\nreturn found"
        ),
        checks: of_word(random, |word| {
            (bonus + word.matches(letter).count() as u64).to_string()
        }),
    }
}
