//! What `partition` and `assign` read of who trains: hotkeys, and the tickets of groups.
//!
//! A file of hotkeys has one a line, blank lines aside, as an ss58 address or as 64 hexadecimal digits
//! (perhaps after `0x`). Tickets are numbers on the command line or in a file: separated by commas or
//! white space, or a JSON array.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, anyhow};
use connito_protocol::assignment::{EVEN_TICKETS, balanced_tickets, check_tickets};
use connito_protocol::ids::{BlobId, Hotkey};

use crate::exit::{Blame, Failure};
use crate::text_file;

/// A hotkey and how the file spells it.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) hotkey: Hotkey,
    pub(crate) spelled: String,
}

/// The hotkeys of a file, in its order.
pub(crate) fn read(path: &Path) -> Result<Vec<Listed>, Failure> {
    let text = text_file::read(path)?;
    let mut seen: BTreeMap<Hotkey, usize> = BTreeMap::new();
    let mut listed = Vec::new();
    for (line, spelled) in (1..).zip(text.lines().map(str::trim)) {
        if spelled.is_empty() {
            continue;
        }
        let refused = || format!("{}: line {line}", path.display());
        let hotkey = parse(spelled).with_context(refused).input()?;
        if let Some(first) = seen.insert(hotkey, line) {
            return Err(Failure::Input(anyhow!(
                "{}: line {line}: {spelled} stands in line {first} already",
                path.display()
            )));
        }
        let spelled = spelled.to_owned();
        listed.push(Listed { hotkey, spelled });
    }
    Ok(listed)
}

fn parse(spelled: &str) -> anyhow::Result<Hotkey> {
    let digits = spelled.strip_prefix("0x").unwrap_or(spelled);
    if digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        // Any 32 bytes in hexadecimal; as a hash they have a parser already.
        let bytes: BlobId = digits.to_ascii_lowercase().parse()?;
        return Ok(Hotkey(bytes.0));
    }
    Ok(spelled.parse()?)
}

/// The tickets that were asked for, or those with which the hotkeys spread evenly.
pub(crate) fn tickets(
    asked: Option<&str>,
    groups: usize,
    hotkeys: &[Listed],
) -> Result<Vec<u16>, Failure> {
    if let Some(asked) = asked {
        let tickets = parse_tickets(asked)?;
        let shown = || format!("--tickets {asked:.80}");
        check_tickets(&tickets, groups)
            .with_context(shown)
            .input()?;
        return Ok(tickets);
    }
    let keys: Vec<Hotkey> = hotkeys.iter().map(|listed| listed.hotkey).collect();
    let even = vec![EVEN_TICKETS; groups];
    let balance = balanced_tickets(&keys, &vec![1; groups], &even).input()?;
    if !balance.within_bounds {
        eprintln!(
            "connito: {} hotkeys were spread over {groups} groups as evenly as they could be, \
             not all within a tenth of their share",
            keys.len()
        );
    }
    Ok(balance.tickets)
}

fn parse_tickets(asked: &str) -> Result<Vec<u16>, Failure> {
    let numbers = asked
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b',');
    let text = match numbers {
        true => asked.to_owned(),
        false => text_file::read(Path::new(asked))?,
    };
    let trimmed = text.trim();
    let inside = trimmed
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(trimmed);
    let parts = inside.split([',', '\n']).map(str::trim);
    parts
        .flat_map(|part| match part.is_empty() {
            true => vec![part],
            false => part.split_whitespace().collect(),
        })
        .map(|part| {
            part.parse()
                .with_context(|| {
                    format!("--tickets {asked:.80}: {part:.80?} is no number of tickets")
                })
                .input()
        })
        .collect()
}
