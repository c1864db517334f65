//! The geometry of the figures, as read from the files: what is drawn lies within, and no two texts touch.

use clap::Parser;

use super::super::models;
use super::*;
use crate::args::{Arguments, Command};

/// What an options line plays.
fn played(options: &str) -> Comparison {
    let line = format!("connito compare --hours 1 {options}");
    let arguments = match Arguments::try_parse_from(line.split_whitespace()) {
        Ok(Arguments {
            command: Command::Compare(arguments),
        }) => arguments,
        other => panic!("{other:?} is no comparison"),
    };
    let models = models::read(&arguments).unwrap();
    Comparison::play(&arguments, models).unwrap()
}

fn attribute<'a>(element: &'a str, name: &str) -> &'a str {
    let start = element.find(&format!(" {name}=\"")).unwrap() + name.len() + 3;
    element[start..].split('"').next().unwrap()
}

fn number(element: &str, name: &str) -> f64 {
    attribute(element, name).parse().unwrap()
}

/// Left, top, right and bottom of every text. A letter is at most 0.62 of its height wide on the average, which
/// is that of the widest fonts in use.
fn boxes(svg: &str) -> Vec<([f64; 4], String)> {
    let texts = svg.lines().filter(|line| line.starts_with("<text"));
    texts
        .map(|element| {
            let content = element
                .split('>')
                .nth(1)
                .unwrap()
                .split("</")
                .next()
                .unwrap();
            let size = number(element, "font-size");
            let width = content.chars().count() as f64 * size * 0.62;
            let x = number(element, "x");
            let left = match attribute(element, "text-anchor") {
                "start" => x,
                "middle" => x - width / 2.0,
                _ => x - width,
            };
            let y = number(element, "y");
            let edges = [left, y - size * 0.75, left + width, y + size * 0.2];
            (edges, content.to_owned())
        })
        .collect()
}

#[test]
fn every_text_lies_within_its_figure_and_none_upon_another() {
    for options in [
        "",
        "--fail 0",
        "--fail 0,0.5,1,90 --bandwidth 1mbit --down 1mbit --workers 8",
        "--bandwidth 1000gbit --down 1000gbit --tflops 0.01 --models qwen3-30b-a3b",
        "--models dense-70b --fail 30,20,10",
    ] {
        for (name, svg) in all(&played(options)) {
            let first = svg.lines().next().unwrap();
            let (width, height) = (number(first, "width"), number(first, "height"));
            let boxes = boxes(&svg);
            for (index, (edges, text)) in boxes.iter().enumerate() {
                let [left, top, right, bottom] = *edges;
                let within = left >= 0.0 && top >= 0.0 && right <= width && bottom <= height;
                assert!(
                    within,
                    "{options} {name}: {text} {edges:?} in {width} × {height}"
                );
                for (other, other_text) in &boxes[..index] {
                    let touches =
                        left < other[2] && other[0] < right && top < other[3] && other[1] < bottom;
                    assert!(!touches, "{options} {name}: {text} upon {other_text}");
                }
            }
            assert!(
                !svg.contains("NaN") && !svg.contains("inf\""),
                "{options} {name}"
            );
        }
    }
}

#[test]
fn every_strategy_of_every_model_is_named_in_every_figure() {
    let comparison = played("--models qwen3-30b-a3b,dense-70b");
    for (name, svg) in all(&comparison) {
        for kind in Kind::ALL {
            let times = if kind == Kind::ExpertParallel { 1 } else { 2 };
            let found = svg.matches(super::super::words::label(kind)).count();
            assert_eq!(found, times, "{kind} in {name}");
        }
        assert!(svg.contains("qwen3-30b-a3b") && svg.contains("dense-70b"));
    }
}
