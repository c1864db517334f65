//! A plan as a page for people: sections of aligned numbers, at most 100 columns wide.

use connito_engine::formula::grouped;

use super::Plan;
use super::figure::{Figure, Row, Section, bytes_short};
use super::gpus::{GPUS, RESERVE_BYTES};
use crate::wrap::{COLUMNS, wrapped};

/// Width of labels.
const LABEL: usize = 40;

/// Width of a number in full; a million GB fit.
const EXACT: usize = 18;

/// Width of a number in short.
const SHORT: usize = 14;

/// Cards on one line.
const CARDS: usize = 4;

/// The whole plan.
pub(super) fn page(plan: &Plan<'_>, explain: bool) -> String {
    let mut lines = headline(plan);
    for section in &plan.sections {
        lines.push(String::new());
        lines.extend(told(section, explain));
    }
    lines.push(String::new());
    lines.extend(cards(plan.total));
    let trimmed: Vec<&str> = lines.iter().map(|line| line.trim_end()).collect();
    trimmed.join("\n")
}

/// What is planned, and whether it fits.
fn headline(plan: &Plan<'_>) -> Vec<String> {
    let (setup, choice) = (plan.setup, plan.choice);
    let experts = setup.config.mixture.experts;
    let kept = match setup.kept {
        0 => String::new(),
        kept => format!(" beside {kept} kept ones"),
    };
    let mut lines = vec![
        format!("{} ({})", plan.source, setup.config.family.model_type()),
        format!(
            "{} of {experts} experts of a layer are trained{kept}, {} are held; routing {}",
            choice.experts,
            setup.resident(choice.experts),
            setup.routing.name(),
        ),
    ];
    lines.extend(choice.settings.words().lines().map(str::to_owned));
    lines.push(format!(
        "a step reads {} × {} tokens",
        grouped(setup.step.batch.into()),
        grouped(setup.sequence_length as i128)
    ));
    if let Some(budget) = &plan.budget {
        let left = i128::from(budget.size.bytes) - i128::from(plan.total);
        lines.push(String::new());
        lines.push(match left {
            0.. => format!("fits {}, {} are left", budget.size.text, bytes_short(left)),
            _ => format!(
                "does not fit {}, {} are missing",
                budget.size.text,
                bytes_short(-left)
            ),
        });
        if !budget.proposed.is_empty() {
            let options = budget.proposed.iter();
            let options = options.map(|(name, value)| format!("--{name} {value}"));
            lines.push("proposed:".to_owned());
            lines.extend(wrapped("  ", "  ", &options.collect::<Vec<_>>().join(" ")));
        }
    }
    lines
}

fn told(section: &Section, explain: bool) -> Vec<String> {
    let columns = section.columns.iter();
    let columns: String = columns.map(|column| format!("{column:>SHORT$}")).collect();
    let mut lines = vec![format!(
        "{:<width$}{columns}",
        section.title,
        width = LABEL + EXACT
    )];
    for row in &section.rows {
        lines.push(line(row));
        if explain {
            lines.extend(row.figures.iter().flat_map(explained));
        }
    }
    let notes = section.notes.iter();
    lines.extend(notes.map(|note| format!("  {note}")));
    lines
}

fn line(row: &Row) -> String {
    let exact = row.figures.first().map(|figure| grouped(figure.value()));
    let shorts = row.figures.iter().map(Figure::short);
    let shorts: String = shorts.map(|short| format!("{short:>SHORT$}")).collect();
    let label = format!("  {}", row.label);
    let numbers = format!(
        "{label:<LABEL$}{:>EXACT$}{shorts}",
        exact.unwrap_or_default()
    );
    match row.note.as_str() {
        "" => numbers,
        // Beside the numbers where there is room, which is where a row has one figure.
        note if numbers.chars().count() + 2 + note.chars().count() <= COLUMNS => {
            format!("{numbers}  {note}")
        }
        note => format!("{numbers}\n      {note}"),
    }
}

/// A figure's formula, in names and then in numbers.
fn explained(figure: &Figure) -> Vec<String> {
    let (symbols, numbers) = (figure.formula.symbols(), figure.formula.numbers());
    let name = figure.key.rsplit('.').next().unwrap_or_default();
    let mut lines = wrapped("      ", "      ", &format!("{name} = {symbols}"));
    lines.extend(wrapped("        ", "        ", &format!("= {numbers}")));
    lines
}

/// Which cards suffice, and which do not.
fn cards(total: u64) -> Vec<String> {
    let reserve = RESERVE_BYTES >> 30;
    let mut lines = vec![format!(
        "cards, with {reserve} GiB left to driver and context"
    )];
    for (label, fits) in [("fits", true), ("too small", false)] {
        let cards = GPUS.iter().filter(|gpu| gpu.fits(total) == fits);
        let names: Vec<&str> = cards.map(|gpu| gpu.name).collect();
        for (index, names) in names.chunks(CARDS).enumerate() {
            let label = if index == 0 { label } else { "" };
            lines.push(format!("  {label:<11}{}", names.join(", ")));
        }
    }
    lines
}
