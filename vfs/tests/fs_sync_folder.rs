//! Sync folders, by what their programs leave in them and by their names.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use hardened_vfs::fs::{SyncFolder, recognise_sync_folder};
use std::path::Path;

const HOME: &str = "/home/u";

fn find(directory: &str, existing: &[&str]) -> Option<(&'static str, String)> {
    let exists = |path: &Path| existing.iter().any(|known| path == Path::new(known));
    recognise_sync_folder(Path::new(directory), Some(Path::new(HOME)), exists)
        .map(|SyncFolder { program, root }| (program, root.to_str().unwrap().to_owned()))
}

#[test]
fn a_marker_in_the_directory_or_above_it_tells_the_program() {
    for (marker, program) in [
        (".dropbox.cache", "Dropbox"),
        (".dropbox", "Dropbox"),
        (".stfolder", "Syncthing"),
        (".nextcloudsync.log", "Nextcloud"),
        (".owncloudsync.log", "ownCloud"),
        (".tmp.drivedownload", "Google Drive"),
        (".tmp.driveupload", "Google Drive"),
        (".sync/ID", "Resilio Sync"),
    ] {
        let at = format!("/data/shared/{marker}");
        let found = Some((program, "/data/shared".to_owned()));
        assert_eq!(find("/data/shared", &[&at]), found);
        assert_eq!(find("/data/shared/a/b", &[&at]), found);
        assert_eq!(find("/data", &[&at]), None);
        assert_eq!(find("/data/sharedx", &[&at]), None);
    }
    assert_eq!(find("/data/a", &["/.stfolder"]), Some(("Syncthing", "/".into())));
    assert_eq!(find("/data/a", &[]), None);
}

#[test]
fn the_settings_that_dropbox_keeps_in_a_home_do_not_make_it_a_folder() {
    assert_eq!(find("/home/u/app", &["/home/u/.dropbox"]), None);
    // A service may work in the home of somebody else.
    assert_eq!(find("/home/other/app", &["/home/other/.dropbox", "/home/other/.dropbox/info.json"]), None);
    let folder = Some(("Dropbox", "/home/u/Dropbox".to_owned()));
    assert_eq!(find("/home/u/Dropbox/app", &["/home/u/.dropbox", "/home/u/Dropbox/.dropbox"]), folder);
    assert_eq!(find("/home/u/app", &["/home/u/.dropbox.cache"]), Some(("Dropbox", "/home/u".into())));
}

#[test]
fn a_known_name_directly_in_the_home_tells_the_program() {
    for (name, program) in [
        ("Dropbox", "Dropbox"),
        ("Dropbox (Personal)", "Dropbox"),
        ("OneDrive", "OneDrive"),
        ("OneDrive - Company", "OneDrive"),
        ("Google Drive", "Google Drive"),
        ("GoogleDrive", "Google Drive"),
        ("iCloudDrive", "iCloud Drive"),
        ("Nextcloud", "Nextcloud"),
        ("ownCloud", "ownCloud"),
        ("MEGA", "MEGA"),
    ] {
        let root = format!("/home/u/{name}");
        let found = Some((program, root.clone()));
        assert_eq!(find(&root, &[]), found);
        assert_eq!(find(&format!("{root}/a/b"), &[]), found);
    }
    for directory in [
        "/home/u",
        "/home/u/Dropbox2",
        "/home/u/dropbox",
        "/home/u/src/Dropbox",
        "/home/other/Dropbox",
        "/Dropbox",
        "/home/u/OneDrive-old",
    ] {
        assert_eq!(find(directory, &[]), None, "{directory}");
    }
    // Without a home there is nothing to be directly in.
    assert_eq!(recognise_sync_folder(Path::new("/"), None, |_| false), None);
    assert_eq!(recognise_sync_folder(Path::new("/home/u/Dropbox"), None, |_| false), None);
}

#[test]
fn the_places_where_macos_keeps_its_providers_are_known_under_any_library() {
    let icloud = "/Users/u/Library/Mobile Documents";
    assert_eq!(find(&format!("{icloud}/com~apple~CloudDocs/db"), &[]), Some(("iCloud Drive", icloud.into())));
    let cloud = "/Users/u/Library/CloudStorage";
    assert_eq!(find(&format!("{cloud}/OneDrive-Personal"), &[]), Some(("cloud storage", cloud.into())));
    assert_eq!(find("/Users/u/CloudStorage/x", &[]), None);
    assert_eq!(find("/Users/u/Library/CloudStorages", &[]), None);
}

#[test]
fn the_innermost_folder_is_named_in_words() {
    let markers = ["/data/.stfolder", "/data/in/.dropbox.cache"];
    assert_eq!(find("/data/in/x", &markers), Some(("Dropbox", "/data/in".into())));
    let folder = SyncFolder { program: "Syncthing", root: "/data/s".into() };
    assert_eq!(folder.to_string(), "the Syncthing folder /data/s");
}
