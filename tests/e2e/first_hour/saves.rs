//! Files that are saved in place: when they are taken, and when they wait for `pillion reload`.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::time::Duration;

use crate::harness::{Pillion, Script, complete, eventually, now};

const DENY: &str = "[[routes]]\nmatch = \"* /denied\"\ndeny = 404\n";
const OTHER: &str = "[[routes]]\nmatch = \"* /gone\"\ndeny = 410\n";

/// Writes over a file without replacing it; the file stays open.
fn begin(pillion: &Pillion, config: &str) -> File {
    let path = pillion.folder.path("pillion.toml");
    let mut file = OpenOptions::new().write(true).truncate(true).open(path).unwrap();
    file.write_all(complete(config).as_bytes()).unwrap();
    file
}

fn reloads(pillion: &Pillion) -> (f64, f64) {
    let count = |result| pillion.metric(&format!("pillion_config_reloads_total{{result=\"{result}\"}}"));
    (count("applied"), count("refused"))
}

/// Asserts that nothing is reloaded for longer than the quiet time and two looks.
fn nothing_happens(pillion: &Pillion, before: (f64, f64), what: &str) {
    let until = now() + Duration::from_millis(3500);
    while now() < until {
        assert_eq!(reloads(pillion), before, "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn save_in_place_is_taken_once_its_writer_has_closed_it() {
    let app = Script::echo();
    let upstream = format!("[upstream]\nurl = \"http://{}\"\n", app.address);
    let pillion = Pillion::with(&upstream);
    assert_eq!(pillion.get("/denied").status, 200);
    // Half of it, which is right by itself: nobody can tell that more is to come but by its open file.
    let mut file = begin(&pillion, &format!("{upstream}{OTHER}"));
    nothing_happens(&pillion, (0.0, 0.0), "it is open");
    file.write_all(DENY.as_bytes()).unwrap();
    drop(file);
    eventually("it is applied", || (pillion.get("/denied").status == 404).then_some(()));
    assert_eq!(reloads(&pillion), (1.0, 0.0));
    // The same again is no change.
    drop(begin(&pillion, &format!("{upstream}{OTHER}{DENY}")));
    nothing_happens(&pillion, (1.0, 0.0), "the content is the same");
}

#[test]
fn save_in_place_with_a_mistake_is_rejected_once_and_the_next_is_taken() {
    let app = Script::echo();
    let upstream = format!("[upstream]\nurl = \"http://{}\"\n", app.address);
    let pillion = Pillion::with(&upstream);
    drop(begin(&pillion, &format!("{upstream}retires = 3\n")));
    eventually("it is rejected", || (reloads(&pillion) == (0.0, 1.0)).then_some(()));
    nothing_happens(&pillion, (0.0, 1.0), "once");
    drop(begin(&pillion, &format!("{upstream}{DENY}")));
    eventually("the next is applied", || (pillion.get("/denied").status == 404).then_some(()));
}

#[test]
fn save_in_place_that_drops_a_guard_waits_for_a_reload() {
    let app = Script::echo();
    let upstream = format!("[upstream]\nurl = \"http://{}\"\n", app.address);
    let tier = "[rate_limit.tiers.free.limits]\nrequests = { rate = \"1000/s\", burst = 1000 }\n";
    let pillion = Pillion::with(&format!("{upstream}{DENY}{OTHER}{tier}"));
    for (rest, said) in [
        (format!("{OTHER}{tier}"), "the deny of /denied is gone"),
        (format!("{DENY}{OTHER}"), "no limit is applied any more"),
        (tier.to_owned(), "0 of 2 routes are left"),
    ] {
        let (applied, refused) = reloads(&pillion);
        drop(begin(&pillion, &format!("{upstream}{rest}")));
        eventually("it is rejected", || (reloads(&pillion) == (applied, refused + 1.0)).then_some(()));
        let told = format!("{said}; `pillion reload` applies it");
        eventually("it is told", || pillion.log().contains(&told).then_some(()));
        assert_eq!(pillion.get("/denied").status, 404, "{said}");
    }
    pillion.reload(&upstream);
    assert_eq!(pillion.get("/denied").status, 200);
}
