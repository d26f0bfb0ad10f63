//! The grammar of the options.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use hardened_vfs::{
    CombineChoice, FsChoice, GuardChoice, KEYS, LocksChoice, OptionError, Options, PolicyChoice, RollbackJournal,
};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::time::Duration;

fn seeded() -> ProptestConfig {
    let seed = 0x0000_0be5_0f0b_7105;
    println!("seed {seed:#x}");
    ProptestConfig { rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..ProptestConfig::default() }
}

fn parse(text: &str) -> Options {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The error, after checking that its text names key, value and what is expected.
fn refused(text: &str, key: &str, value: &str, expected: &str) -> OptionError {
    let error = text.parse::<Options>().expect_err(text);
    assert_eq!((error.key.as_str(), error.value.as_str()), (key, value), "{text}");
    assert!(error.expected.contains(expected), "{text}: {error}");
    let said = error.to_string();
    assert!(said.contains(&format!("`{key}={value}`")) && said.contains(expected), "{said}");
    error
}

#[test]
fn each_key_sets_its_option_and_no_other() {
    let default = Options::default();
    assert_eq!(default, Options::new());
    assert_eq!((default.policy, default.fs, default.journal), Default::default());
    assert_eq!(default.busy_timeout, Duration::from_secs(2));
    assert_eq!(default.fs_timeout, Duration::from_secs(10));
    assert_eq!(default.base, None);

    let with = |change: fn(&mut Options)| {
        let mut options = Options::default();
        change(&mut options);
        options
    };
    for (text, expected) in [
        ("", with(|_| {})),
        ("&&", with(|_| {})),
        ("policy=auto", with(|_| {})),
        ("policy=wal", with(|o| o.policy = PolicyChoice::Wal)),
        ("policy=delete", with(|o| o.policy = PolicyChoice::Delete)),
        ("policy=OFF", with(|o| o.policy = PolicyChoice::Off)),
        ("fs=auto", with(|_| {})),
        ("fs=local", with(|o| o.fs = FsChoice::Local)),
        ("fs=Network", with(|o| o.fs = FsChoice::Network)),
        ("journal=delete", with(|_| {})),
        ("journal=truncate", with(|o| o.journal = RollbackJournal::Truncate)),
        ("journal=persist", with(|o| o.journal = RollbackJournal::Persist)),
        ("guard=auto", with(|_| {})),
        ("guard=off", with(|o| o.guard = GuardChoice::Off)),
        ("guard=on", with(|o| o.guard = GuardChoice::On)),
        ("guard=strict", with(|o| o.guard = GuardChoice::Strict)),
        ("busy_timeout=0", with(|o| o.busy_timeout = Duration::ZERO)),
        ("fs_timeout=1", with(|o| o.fs_timeout = Duration::from_millis(1))),
        ("locks=auto", with(|_| {})),
        ("locks=OFD", with(|o| o.locks = LocksChoice::Ofd)),
        ("locks=posix", with(|o| o.locks = LocksChoice::Posix)),
        ("combine=auto", with(|_| {})),
        ("combine=ON", with(|o| o.combine = CombineChoice::On)),
        ("combine=off", with(|o| o.combine = CombineChoice::Off)),
        ("base=unix-dotfile", with(|o| o.base = Some("unix-dotfile".into()))),
        ("&fs=local&&journal=persist&", with(|o| (o.fs, o.journal) = (FsChoice::Local, RollbackJournal::Persist))),
    ] {
        assert_eq!(parse(text), expected, "{text}");
    }
    let text = "policy=wal&fs=local&journal=truncate&guard=on&busy_timeout=1&fs_timeout=2&checksum=on&locks=ofd&combine=on&\
                base=x";
    let all = parse(text);
    assert_eq!(all.to_string(), text);
    for key in KEYS {
        assert!(all.to_string().contains(&format!("{key}=")), "{key}");
    }
}

#[test]
fn percent_signs_are_decoded_in_keys_and_values() {
    assert_eq!(parse("base=my%20v%66s%26more%3D%25").base.as_deref(), Some("my vfs&more=%"));
    assert_eq!(parse("%70olicy=w%61l").policy, PolicyChoice::Wal);
    assert_eq!(parse("base=a=b").base.as_deref(), Some("a=b"));
    assert_eq!(parse("base=a+b").base.as_deref(), Some("a+b"), "a plus sign is itself");
    assert_eq!(parse("base=%C3%A4").base.as_deref(), Some("ä"));
    // What is not an escape stays, as SQLite leaves it too.
    assert_eq!(parse("base=100%").base.as_deref(), Some("100%"));
    refused("base=%FF", "base", "%FF", "UTF-8");
    refused("policy%FF=wal", "policy%FF", "wal", "UTF-8");
    refused("policy=wal%26fs=x", "policy", "wal&fs=x", "auto, wal, delete, off");
}

#[test]
fn a_value_that_a_key_does_not_take_is_refused_with_what_it_takes() {
    for value in ["", "sometimes", "wal ", "wa", "persist", "1", "wäl"] {
        refused(&format!("policy={value}"), "policy", value, "auto, wal, delete, off");
    }
    for value in ["", "nfs", "remote", "locall"] {
        refused(&format!("fs={value}"), "fs", value, "auto, local, network");
    }
    for value in ["", "wal", "memory", "off"] {
        refused(&format!("journal={value}"), "journal", value, "delete, truncate, persist");
    }
    for value in ["", "yes", "1", "verify"] {
        refused(&format!("checksum={value}"), "checksum", value, "auto, on, off");
    }
    for value in ["", "flock", "off", "on"] {
        refused(&format!("locks={value}"), "locks", value, "auto, ofd, posix");
    }
    refused("base=", "base", "", "name of a registered VFS");
    refused("base=a%00b", "base", "a\0b", "name of a registered VFS");
    // The first thing wrong is named, wherever it stands.
    refused("policy=wal&fs=disk&journal=never", "fs", "disk", "auto, local, network");
}

#[test]
fn timeouts_are_milliseconds_within_what_sqlite_can_wait() {
    let most = "2147483647";
    assert_eq!(parse(&format!("busy_timeout={most}")).busy_timeout, Duration::from_millis(2_147_483_647));
    assert_eq!(parse(&format!("fs_timeout={most}")).fs_timeout, Duration::from_millis(2_147_483_647));
    for value in
        ["", "-1", "-0", "+5", " 5", "5 ", "5ms", "1e3", "0x10", "1.5", "2147483648", "18446744073709551616", "٣"]
    {
        refused(&format!("busy_timeout={value}"), "busy_timeout", value, "milliseconds from 0 to 2147483647");
        refused(&format!("fs_timeout={value}"), "fs_timeout", value, "milliseconds from 1 to 2147483647");
    }
    refused("fs_timeout=0", "fs_timeout", "0", "milliseconds from 1");
}

#[test]
fn a_key_that_is_not_known_is_refused_with_those_that_are() {
    for key in ["", "polciy", "Policy", "policy ", "journal_mode", "vfs", "timeout"] {
        let error = refused(&format!("{key}=wal"), key, "wal", "the options are");
        for known in KEYS {
            assert!(error.expected.contains(known), "{error}");
        }
    }
    refused("policy", "policy", "", "key=value");
    refused("fs=local&wal", "wal", "", "key=value");
}

#[test]
fn a_refused_value_leaves_the_options_as_they_were() {
    let mut options = parse("policy=wal&base=x");
    let before = options.clone();
    for (key, value) in
        [("policy", "x"), ("base", ""), ("busy_timeout", "-1"), ("guard", "sometimes"), ("nothing", "1")]
    {
        options.set(key, value).unwrap_err();
        assert_eq!(options, before, "{key}={value}");
    }
    options.set("base", "y").unwrap();
    assert_eq!(options.base.as_deref(), Some("y"));
}

fn any_options() -> impl Strategy<Value = Options> {
    let policy =
        prop::sample::select(vec![PolicyChoice::Auto, PolicyChoice::Wal, PolicyChoice::Delete, PolicyChoice::Off]);
    let fs = prop::sample::select(vec![FsChoice::Auto, FsChoice::Local, FsChoice::Network]);
    let journal =
        prop::sample::select(vec![RollbackJournal::Delete, RollbackJournal::Truncate, RollbackJournal::Persist]);
    let ms = i32::MAX as u64;
    let base = prop::option::of("[^\0]{1,20}");
    (policy, fs, journal, 0..=ms, 1..=ms, base).prop_map(|(policy, fs, journal, busy, answer, base)| {
        let mut options = Options::default();
        (options.policy, options.fs, options.journal) = (policy, fs, journal);
        options.busy_timeout = Duration::from_millis(busy);
        options.fs_timeout = Duration::from_millis(answer);
        options.base = base;
        options
    })
}

proptest! {
    #![proptest_config(seeded())]

    #[test]
    fn options_are_the_same_after_being_written_and_read(options in any_options()) {
        let text = options.to_string();
        prop_assert_eq!(text.parse::<Options>().unwrap(), options, "{}", text);
    }

    #[test]
    fn any_text_is_read_or_refused_and_what_is_read_can_be_written(
        text in "[a-z_%&=0-9\u{0}-\u{20}äé]{0,40}|\\PC{0,40}|(base|fs|%66s|busy_timeout)=[a-z0-9%=]{0,9}&?",
    ) {
        if let Ok(options) = text.parse::<Options>() {
            prop_assert_eq!(options.to_string().parse::<Options>().unwrap(), options);
        }
    }
}
