//! What the command says about itself.

use super::connito;

fn printed(arguments: &[&str]) -> String {
    let output = connito(arguments).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

/// The commands that help lists, without the one that clap adds.
fn listed(help: &str) -> Vec<&str> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    // A line that is indented further goes on with what the one before says.
    let lines = listed.map_while(|line| line.strip_prefix("  "));
    let commands = lines.filter_map(|line| line.split(' ').next());
    let named = |command: &&str| !["", "help"].contains(command);
    commands.filter(named).collect()
}

/// The commands of the program.
fn commands() -> Vec<String> {
    let help = printed(&["--help"]);
    let commands: Vec<String> = listed(&help).into_iter().map(str::to_owned).collect();
    assert!(!commands.is_empty(), "{help}");
    commands
}

/// What should not happen: an option that changes its name, meaning or default without anybody
/// having read the new text.
#[test]
fn help_of_the_program_and_of_every_command_is_as_it_was_read() {
    insta::assert_snapshot!("connito", printed(&["--help"]));
    for command in commands() {
        let help = printed(&[command.as_str(), "--help"]);
        for part in listed(&help) {
            let help = printed(&[command.as_str(), part, "--help"]);
            insta::assert_snapshot!(format!("{command}_{part}"), help);
        }
        insta::assert_snapshot!(command, help);
    }
}

#[test]
fn bad_usage_ends_with_two_and_points_at_the_help() {
    let cases: [&[&str]; 14] = [
        &[],
        &["lokalnet"],
        &["localnet", "--cycle", "5"],
        &["localnet", "--cycles", "0"],
        &["localnet", "--miners", "many"],
        &["localnet", "--block-time", "250"],
        &["localnet", "--port", "70000"],
        &["miner"],
        &["replay"],
        &["inspect"],
        &["inspect", "logits", "--model", "m", "--ids", "i.json"],
        &["bench", "engine"],
        &["bench", "engine", "--config", "c.json", "--dtype", "int8"],
        &["bench", "shard", "--experts", "65"],
    ];
    for arguments in cases {
        let output = connito(arguments).output().unwrap();
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {complaint}");
        assert!(complaint.contains("--help"), "{arguments:?}: {complaint}");
        assert!(output.stdout.is_empty(), "{arguments:?} printed a result");
    }
}

#[test]
fn completions_of_every_shell_name_every_command() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = printed(&["completions", shell]);
        for command in commands() {
            assert!(script.contains(&command), "{shell} does not know {command}");
        }
    }
}

/// What should not happen: `connito completions bash | head -1` ending in a panic.
#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = connito(["completions", "bash"])
        .stdout(writer)
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{complaint}");
    assert_eq!(complaint, "");
}
