//! Pictures of recordings.

use std::fs;

use rustix::process::Signal;

use crate::record::{Cut, wait_for_growth};
use crate::user::User;

/// All that stands between `<text …>` and `</text>`.
fn words(svg: &str) -> Vec<&str> {
    let after = svg.split("<text").skip(1);
    after.map(|rest| rest.split_once('>').unwrap().1.split("</text").next().unwrap().trim()).collect()
}

#[test]
fn a_fail_over_is_drawn_also_while_it_goes_on_and_after_a_crash() {
    let cut = Cut::start(&["--record", "HOME/record"]);
    let path = cut.file("record");
    wait_for_growth(&path, 10_000);
    cut.cut_and_return();
    wait_for_growth(&path, 10_000);
    let plot = |name: &str| {
        let file = cut.file(name);
        let arguments = ["plot", path.to_str().unwrap(), "-o", file.to_str().unwrap()];
        let ended = cut.client.run(&arguments).assert_code(0);
        (fs::read_to_string(file).unwrap(), ended.stderr)
    };
    let (svg, _) = plot("early.svg");
    assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"), "{}", &svg[..100]);
    cut.connecting.signal(Signal::KILL);
    // It has ended when nobody holds its socket any more.
    while cut.client.run(&["status", "connect"]).code == Some(0) {}
    // As if the crash had come in the middle of a line.
    let whole = fs::read(&path).unwrap();
    let last = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap();
    fs::write(&path, &whole[..(last + whole.len()) / 2]).unwrap();
    let (html, remark) = plot("late.html");
    assert!(remark.contains(" the last line is cut short, and left out"), "{remark}");
    assert!(html.starts_with("<!doctype html>\n") && html.contains("<svg ") && html.ends_with("</html>\n"));
    assert!(!html.contains("<script") && !html.contains("href"), "it needs nothing else");
    let shown = words(&html);
    for word in [&cut.steady, &cut.cut] {
        assert!(shown.contains(&word.as_str()), "{word} is missing in {shown:?}");
    }
    let units = ["received, MB/s (thin line: all links)", "round trip, ms"];
    assert!(units.iter().all(|unit| shown.contains(unit)), "{shown:?}");
    // Beside those of the key, each link that went has its signs: a triangle is drawn as one polygon and one line.
    assert!(html.matches("<polygon").count() > 1);
}

#[test]
fn what_cannot_be_drawn_is_told_in_one_line() {
    let user = User::new();
    let file = |name: &str, text: &str| {
        let path = user.home().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let header = r#"{"bondwire_recording":{"version":1}}"#;
    let (to, sample) = (user.home().join("o.svg"), r#"{"sample":{"seconds":1,"bonds":[]}}"#);
    let to = to.to_str().unwrap();
    let cases = [
        (file("empty", ""), "empty: it is empty; nothing was recorded".to_owned()),
        (file("words", "hello\n"), "words:1: this is no recording; --record writes one".to_owned()),
        (
            file("newer", r#"{"bondwire_recording":{"version":2}}"#),
            "newer:1: a recording of version 2".to_owned(),
        ),
        (
            file("wrong", &format!("{header}\n{sample}\n{{\n{sample}\n")),
            "wrong:3: no line of a recording: ".to_owned(),
        ),
        (
            file("huge", &format!("{header}\n{}", "x".repeat(5 << 20))),
            "huge:2: a line of more than 4 MiB".to_owned(),
        ),
        (file("early", header), "early: it has no sample yet".to_owned()),
        ("/nowhere/record".to_owned(), "cannot read /nowhere/record: No such file".to_owned()),
        (user.home().to_str().unwrap().to_owned(), "Is a directory".to_owned()),
    ];
    for (path, expected) in cases {
        let ended = user.run(&["plot", &path, "-o", to]).assert_code(3);
        assert!(ended.error_line().contains(&expected), "{}", ended.stderr);
        assert!(!fs::exists(to).unwrap(), "{path}");
    }
    let good = file("good", &format!("{header}\n{sample}\n"));
    let bond = user.run(&["plot", &good, "-o", to, "--bond", "7"]).assert_code(3);
    assert!(bond.error_line().ends_with("good: it has no bond 7"), "{}", bond.stderr);
    let picture = user.run(&["plot", &good, "-o", "o.png"]).assert_code(2);
    assert!(picture.error_line().contains("has to end in .svg or .html"), "{}", picture.stderr);
    let nowhere = user.run(&["plot", &good, "-o", "/nowhere/o.svg"]).assert_code(3);
    assert!(nowhere.error_line().contains("cannot write /nowhere/o.svg: No such file"), "{}", nowhere.stderr);
    user.run(&["plot", &good, "-o", to]).assert_code(0);

    // A name is text, whatever it says.
    let link = r#"{"id":0,"link":"<script>alert(1)</script>","state":"active","sent_bytes":7}"#;
    let sample = format!(r#"{{"sample":{{"seconds":1,"bonds":[{{"number":1,"links":[{link}]}}]}}}}"#);
    let evil = r#"{"bondwire_recording":{"version":1,"command":"</title><script>"}}"#;
    let evil = file("evil", &format!("{evil}\n{sample}\n"));
    let page = user.home().join("o.html");
    user.run(&["plot", &evil, "-o", page.to_str().unwrap()]).assert_code(0);
    let page = fs::read_to_string(page).unwrap();
    assert!(!page.contains("<script") && page.contains("&lt;script"), "{page}");
}

#[test]
fn a_speed_test_and_the_demo_are_drawn() {
    let (server, client) = (User::new(), User::new());
    let (_listening, link) = server.listen(&["--allow", &client.public_key()]);
    let picture = client.home().join("speed.svg");
    let key = server.public_key();
    let at = picture.to_str().unwrap();
    let measure = ["speed", &link, &link, "--peer", &key, "--seconds", "1", "--omit", "0", "--plot", at];
    client.run(&measure).assert_code(0);
    let svg = fs::read_to_string(&picture).unwrap();
    let name = link.replacen(':', " ", 1);
    assert_eq!(words(&svg).iter().filter(|word| **word == name).count(), 2, "{:?}", words(&svg));
    // Over the bond that runs in another process.
    let connecting = client.start(&["connect", &link, &link, "--peer", &key, "--control", "running"]);
    connecting.wait_for("connected to ");
    fs::remove_file(&picture).unwrap();
    let record = client.home().join("running");
    let record = record.to_str().unwrap();
    let measure = ["speed", "running", "--seconds", "1", "--omit", "0", "--plot", at, "--record", record];
    client.run(&measure).assert_code(0);
    let svg = fs::read_to_string(&picture).unwrap();
    assert!(
        words(&svg).iter().any(|word| word.starts_with("bondwire connect (running), from ")),
        "{:?}",
        words(&svg)
    );
    assert_eq!(words(&svg).iter().filter(|word| **word == name).count(), 2, "{:?}", words(&svg));
    assert!(fs::read_to_string(record).unwrap().contains("{\"end\":"));
    drop(connecting);

    let wrong = client.run(&["speed", &link, "--peer", &key, "--plot", "x.pdf"]).assert_code(2);
    assert!(wrong.error_line().contains("has to end in .svg or .html"), "{}", wrong.stderr);

    let (record, picture) = (client.home().join("demo"), client.home().join("demo.svg"));
    let (record, picture) = (record.to_str().unwrap(), picture.to_str().unwrap());
    client.run(&["demo", "--seconds", "3", "--record", record]).assert_code(0);
    client.run(&["plot", record, "-o", picture]).assert_code(0);
    let svg = fs::read_to_string(picture).unwrap();
    assert_eq!(words(&svg).iter().filter(|word| word.starts_with("tcp 127.0.0.1:")).count(), 2);
}
