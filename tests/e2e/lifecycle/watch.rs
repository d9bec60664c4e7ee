//! Tests of files that are reloaded when they change.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use pillion::internals::SourceFile;

use super::tools::{DENY, applied, refused, rename_over, server, upstream};
use crate::harness::{Folder, Pillion, Script, complete, eventually, now};

#[test]
fn a_file_renamed_over_the_old_one_is_loaded_without_being_asked() {
    let app = Script::echo();
    let pillion = Pillion::with(&upstream(&app));
    assert_eq!(pillion.get("/denied").status, 200);
    rename_over(&pillion.folder, &format!("{}{DENY}", upstream(&app)));
    eventually("it is applied", || (pillion.get("/denied").status == 404).then_some(()));
    rename_over(&pillion.folder, "[upstream\n");
    eventually("a bad one is refused", || (refused(&pillion) == 1.0).then_some(()));
    assert_eq!(pillion.get("/denied").status, 404);
    rename_over(&pillion.folder, &upstream(&app));
    eventually("the next is applied", || (pillion.get("/denied").status == 200).then_some(()));
}

#[test]
fn a_file_made_later_is_another_whatever_its_inode() {
    // After a rejected file in between, the next one may have the inode of the current one.
    let folder = Folder::new();
    let first = SourceFile::now(&folder.write("a", ""));
    eventually("another is told from it", || {
        std::fs::remove_file(folder.path("a")).unwrap();
        (!SourceFile::now(&folder.write("a", "")).is_same_file(&first)).then_some(())
    });
}

#[test]
fn a_file_replaced_right_after_a_reload_is_not_overlooked() {
    // Two replacements in quick succession, the second just when the first was applied.
    let app = Script::echo();
    let pillion = Pillion::with(&upstream(&app));
    rename_over(&pillion.folder, &format!("{}{DENY}", upstream(&app)));
    eventually("the first is applied", || (applied(&pillion) >= 1.0).then_some(()));
    rename_over(
        &pillion.folder,
        &format!("{}[[routes]]\nmatch = \"* /second\"\ndeny = 410\n", upstream(&app)),
    );
    eventually("the second is applied too", || (pillion.get("/second").status == 410).then_some(()));
}

#[test]
fn a_config_map_whose_link_is_swapped_is_loaded() {
    // As the kubelet does: pillion.toml -> ..data/pillion.toml, ..data -> ..generation.
    let app = Script::echo();
    let folder = Arc::new(Folder::new());
    let generation = |name: &str, config: &str| {
        std::fs::create_dir(folder.path(name)).unwrap();
        folder.write(&format!("{name}/pillion.toml"), complete(config));
        std::os::unix::fs::symlink(name, folder.path("..data_tmp")).unwrap();
        std::fs::rename(folder.path("..data_tmp"), folder.path("..data")).unwrap();
    };
    generation("..1", &upstream(&app));
    std::os::unix::fs::symlink("..data/pillion.toml", folder.path("pillion.toml")).unwrap();
    let pillion = Pillion::from_file(folder.clone(), &folder.path("pillion.toml"));
    assert_eq!(pillion.get("/denied").status, 200);
    generation("..2", &format!("{}{DENY}", upstream(&app)));
    std::fs::remove_dir_all(folder.path("..1")).unwrap();
    eventually("it is applied", || (pillion.get("/denied").status == 404).then_some(()));
    assert_eq!(refused(&pillion), 0.0);
}

#[test]
fn a_save_in_place_is_not_loaded_half_written_nor_with_watch_off() {
    // tests/first_hour/saves.rs has saves that are loaded.
    let app = Script::echo();
    for (watch, half) in [("", true), ("watch = false", false)] {
        let config = format!("{}{}", server(watch), upstream(&app));
        let pillion = Pillion::with(&config);
        let mut open = None;
        if half {
            // Its writer has it open.
            let mut file = std::fs::File::create(pillion.folder.path("pillion.toml")).unwrap();
            file.write_all(b"[upst").unwrap();
            open = Some(file);
        } else {
            rename_over(&pillion.folder, &format!("{config}{DENY}"));
        }
        // Longer than two intervals of the watch.
        let until = now() + Duration::from_millis(3500);
        while now() < until {
            assert_eq!((applied(&pillion), refused(&pillion)), (0.0, 0.0), "{watch:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
        drop(open);
        pillion.reload(&format!("{config}{DENY}"));
        assert_eq!(pillion.get("/denied").status, 404, "SIGHUP does it");
    }
}
