//! One fault in an honest history in WAL mode, where the log can prove it.

use crate::frames::Wal;
use crate::wal::World;
use crate::{Tally, has};
use hardened_vfs::guard::classify::AlarmKind;
use hardened_vfs::guard::log::Generation;

pub(crate) fn try_all(world: &World, tally: &mut Tally) {
    if let (Some(pending), Wal::Log { generation, .. }) = (&world.pending, &world.disk.beside) {
        // Nobody has written to the database since before the commits, and the log saw that it was so.
        let unwritten = pending.witness.settled && pending.witness.changed == Some(world.disk.time());
        if pending.generation == *generation && pending.witness.boot == world.disk.boot() {
            if unwritten {
                wal_gone(world, *generation, tally);
                wal_damaged(world, pending.frames as usize, tally);
            }
            database_replaced(world, tally);
        }
    }
    write_lost(world, tally);
}

fn wal_gone(world: &World, generation: Generation, tally: &mut Tally) {
    let mut faulty = world.clone();
    let [a, b] = generation.salts;
    let older = Generation { salts: [a.wrapping_sub(1), b ^ 5], sequence: generation.sequence.wrapping_sub(1) };
    let another = Generation { salts: [a ^ 0x5555_0000, b], sequence: generation.sequence.wrapping_add(7) };
    let log = |generation| Wal::Log { generation, frames: Vec::new(), synced: 0 };
    for (what, wal, kind) in [
        ("WAL deleted", Wal::Absent, AlarmKind::WalMissing),
        ("older WAL", log(older), AlarmKind::WalOlder),
        ("another WAL", log(another), AlarmKind::WalMispaired),
    ] {
        faulty.disk.set_beside(wal);
        let finding = faulty.look();
        assert!(has(&finding, &[kind]), "{what}: {finding:#?}\n{}", faulty.disk.story());
        assert!(finding.blocks_writes());
        tally.count(what);
    }
}

fn wal_damaged(world: &World, visible: usize, tally: &mut Tally) {
    let mut faulty = world.clone();
    let Wal::Log { frames, .. } = &mut faulty.disk.beside else { return };
    let Some(last) = frames.iter().rposition(|frame| frame.valid && frame.commit) else { return };
    if last + 1 < visible || visible < 2 {
        return;
    }
    frames.iter_mut().skip(visible - 2).for_each(|frame| frame.valid = false);
    let finding = faulty.look();
    assert!(has(&finding, &[AlarmKind::WalDamaged]), "{finding:#?}\n{}", faulty.disk.story());
    tally.count("WAL damaged");
}

fn database_replaced(world: &World, tally: &mut Tally) {
    let mut faulty = world.clone();
    let Wal::Log { frames, .. } = &faulty.disk.beside else { return };
    if !frames.iter().any(|frame| frame.page == 1 && frame.valid) {
        return;
    }
    faulty.disk.write(1, [3, 77]);
    let finding = faulty.look();
    assert!(has(&finding, &[AlarmKind::DatabaseReplaced]), "{finding:#?}\n{}", faulty.disk.story());
    assert!(finding.refuses_reads());
    tally.count("database replaced");
}

/// A checkpoint was complete, the next generation has begun, the power fails, and the disk has not kept one page.
fn write_lost(world: &World, tally: &mut Tally) {
    let Some((before, pages, witness)) = &world.checkpointed else { return };
    let (Some(pending), Wal::Log { generation, frames, .. }) = (&world.pending, &world.disk.beside) else { return };
    let next = generation.salts[0] == before.salts[0].wrapping_add(1);
    let unwritten = pending.witness.settled && pending.witness.changed == witness.changed;
    let began = pending.generation == *generation && pending.witness.boot == witness.boot;
    if !(next && unwritten && began && witness.changed == Some(world.disk.time())) {
        return;
    }
    for (number, (old, new)) in pages {
        let read_from_wal = frames.iter().any(|frame| frame.page == *number);
        if old == new || read_from_wal || world.disk.page(*number) != Some(*new) {
            continue;
        }
        let mut faulty = world.clone();
        faulty.disk.boot += 1;
        faulty.disk.cache[*number as usize - 1] = *old;
        let finding = faulty.look();
        assert!(has(&finding, &[AlarmKind::Lost]), "page {number}: {finding:#?}\n{}", faulty.disk.story());
        tally.count("write lost");
    }
}
