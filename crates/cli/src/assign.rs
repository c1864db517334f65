//! `connito assign`: which group each hotkey trains (P-6), and a new hotkey for a group that is wanted.
//!
//! Without tickets of its own the command finds some with which the hotkeys spread evenly; a running
//! task has them in its manifest. Assignment is a function of hotkey and tickets alone, so whoever
//! prefers a group makes keys until one falls there.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::anyhow;
use connito_chain::keys::{self, Keypair, Signer};
use connito_protocol::assignment::assigned_group;
use connito_protocol::ids::{GroupId, Hotkey};
use serde::Serialize;

use crate::args::partition::AssignArguments;
use crate::exit::{Blame, Failure};
use crate::hotkeys::{self, Listed};
use crate::output::print;

/// Keys that are tried, in multiples of what it takes on average: the chance that none of them falls
/// where it should is e⁻⁶⁴.
const PATIENCE: usize = 64;

/// What the command prints as JSON.
#[derive(Serialize)]
struct Assignment {
    groups: Vec<Group>,
    /// In the order of the file.
    assignment: Vec<Assigned>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new_hotkey: Option<NewHotkey>,
}

#[derive(Serialize)]
struct Group {
    group: GroupId,
    tickets: u16,
    hotkeys: usize,
    /// Of all hotkeys of the file; 0 where there are none.
    share: f64,
}

#[derive(Serialize)]
struct Assigned {
    /// As the file spells it.
    hotkey: String,
    group: GroupId,
}

#[derive(Serialize)]
struct NewHotkey {
    hotkey: Hotkey,
    group: GroupId,
    file: String,
}

/// Runs the command.
pub(crate) fn run(arguments: &AssignArguments) -> Result<(), Failure> {
    let count = usize::from(arguments.groups);
    if let Some(group) = arguments
        .prefer
        .iter()
        .find(|group| usize::from(**group) >= count)
    {
        return Err(Failure::Input(anyhow!(
            "--prefer {group}: the groups are 0 to {}",
            count - 1
        )));
    }
    let listed = arguments.hotkeys.as_deref().map(hotkeys::read);
    let listed = listed.transpose()?.unwrap_or_default();
    let tickets = hotkeys::tickets(arguments.tickets.as_deref(), count, &listed)?;
    let mut assignment = assign(listed, &tickets);
    if let Some(file) = &arguments.new_hotkey {
        let wanted: Vec<GroupId> = arguments.prefer.iter().copied().map(GroupId).collect();
        assignment.new_hotkey = Some(new_hotkey(file, &wanted, &tickets)?);
    }
    if arguments.json {
        return print(&serde_json::to_string(&assignment).environment()?);
    }
    let mut text = table(&assignment);
    if arguments.tickets.is_none() && !assignment.assignment.is_empty() {
        let tickets: Vec<String> = tickets.iter().map(u16::to_string).collect();
        let _ = write!(
            text,
            "\ntickets were found for these hotkeys; with --tickets {} nobody moves when others come or go",
            tickets.join(",")
        );
    }
    print(text.trim_end())
}

fn assign(listed: Vec<Listed>, tickets: &[u16]) -> Assignment {
    let hotkeys = listed.len();
    let mut loads = vec![0; tickets.len()];
    let assigned = listed.into_iter().filter_map(|Listed { hotkey, spelled }| {
        let group = assigned_group(hotkey, tickets)?;
        *loads.get_mut(usize::from(group.0))? += 1;
        let hotkey = spelled;
        Some(Assigned { hotkey, group })
    });
    let assignment = assigned.collect();
    let groups = (0..=u16::MAX).map(GroupId).zip(tickets).zip(loads);
    let groups = groups.map(|((group, &tickets), load)| Group {
        group,
        tickets,
        hotkeys: load,
        share: load as f64 / hotkeys.max(1) as f64,
    });
    Assignment {
        groups: groups.collect(),
        assignment,
        new_hotkey: None,
    }
}

/// Makes keys until one is assigned to a wanted group, and writes that one.
fn new_hotkey(file: &Path, wanted: &[GroupId], tickets: &[u16]) -> Result<NewHotkey, Failure> {
    let shown = file.display().to_string();
    if file.symlink_metadata().is_ok() {
        return Err(Failure::Input(anyhow!(
            "--new-hotkey {shown} is there already, and a key is never overwritten"
        )));
    }
    // A bare file name lies in the working directory, its parent being empty.
    let folder = file.parent().filter(|parent| *parent != Path::new(""));
    if file.file_name().is_none() || folder.is_some_and(|folder| !folder.is_dir()) {
        return Err(Failure::Input(anyhow!(
            "--new-hotkey {shown} lies in no folder"
        )));
    }
    let held = |group: &GroupId| usize::from(tickets[usize::from(group.0)]);
    let all: usize = tickets.iter().copied().map(usize::from).sum();
    let average = all / wanted.iter().map(held).max().unwrap_or(1).max(1);
    for _ in 0..PATIENCE * (average + 1) {
        let pair = Keypair::generate().environment()?;
        let hotkey = pair.hotkey();
        if let Some(group) = assigned_group(hotkey, tickets).filter(|group| wanted.contains(group))
        {
            keys::write(file, &pair).environment()?;
            let file = shown;
            return Ok(NewHotkey {
                hotkey,
                group,
                file,
            });
        }
    }
    Err(anyhow!("no key fell into a group of --prefer")).environment()
}

fn table(assignment: &Assignment) -> String {
    let mut text = String::new();
    if assignment.new_hotkey.is_none() || !assignment.assignment.is_empty() {
        text.push_str("group  tickets  hotkeys   share\n");
        for group in &assignment.groups {
            let _ = writeln!(
                text,
                "{:>5}  {:>7}  {:>7}  {:>5.2}%",
                group.group,
                group.tickets,
                group.hotkeys,
                100.0 * group.share
            );
        }
        text.push('\n');
        for assigned in &assignment.assignment {
            let _ = writeln!(text, "{}  group {}", assigned.hotkey, assigned.group);
        }
    }
    if let Some(new) = &assignment.new_hotkey {
        let _ = writeln!(text, "{}  group {}  {}", new.hotkey, new.group, new.file);
    }
    text
}
