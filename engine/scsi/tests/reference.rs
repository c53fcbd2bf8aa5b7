//! `docs/reference/scsi-commands.md` lists the commands of the table, no more and no less.

use gespann_scsi::opcodes::COMMANDS;

#[test]
fn the_reference_lists_every_command() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/scsi-commands.md");
    let page = std::fs::read_to_string(path).expect("the reference is there");
    let mut commands: Vec<_> = COMMANDS.iter().collect();
    commands.sort_by_key(|command| (command.opcode, command.service_action));
    let row = |command: &&gespann_scsi::opcodes::Command| {
        let action = command.service_action.map_or_else(String::new, |action| format!("{action:02X}h"));
        format!("| {:02X}h | {action} | {} | {} |", command.opcode, command.name, command.usage.len())
    };
    let expected: Vec<_> = commands.iter().map(row).collect();
    let listed: Vec<_> = page.lines().filter(|line| line.starts_with("| ") && line.as_bytes()[4] == b'h').collect();
    assert!(listed == expected, "scsi-commands.md should list:\n{}", expected.join("\n"));
}
