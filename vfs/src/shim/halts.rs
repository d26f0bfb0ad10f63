//! Halts that other processes have put into the guard's record.
//!
//! They are looked for where something is about to be made durable: a process that only writes has promised nothing yet.

use super::link::Files;

/// Reads what others have added to the record, and stops if one of them has.
pub(crate) fn look(files: &Files<'_>) {
    let Some(shared) = &files.main.shared else { return };
    if !shared.health.is_halted() {
        shared.keeper().look();
        notice(files);
    }
}

/// Stops if what was read of the record tells of a halt.
pub(crate) fn notice(files: &Files<'_>) {
    let Some(shared) = &files.main.shared else { return };
    let Some(story) = shared.keeper().halt_of_another() else { return };
    let story = format!("another process has stopped writing: {story}");
    if shared.health.halt(story.clone()) {
        files.main.warn("halted", story);
    }
}
