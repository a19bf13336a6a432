//! Apps that write what a terminal would obey.

use serde_json::json;

use crate::harness::{App, Node, Ran, answered};

/// Says it on both streams, as bytes and as characters of C1, and then serves.
const HOSTILE: &str = r#"
import os, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer

def say(text):
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()

say(b"\x1b]0;owned\x07title\n")
say(b"\x1b[2J\x1b[1;1Hcleared\n")
say("\u009b2J\u202ereversed\n".encode())
say(b"\x9b2Jeight bits\n")
say(b"\x1b[31mred, and never reset\n")
say(b"\x1b]52;c;cm0gLXJm\x1b\\clipboard\n")
say(b"10%\r50%\r100%\n")
if os.path.exists("broken"):
    say(b"\x1b]0;owned\x07\x1b[31mthe real reason\x1b[8m\n")
    sys.exit(3)
sys.stderr.write("\x1b[?1049h\x1b[6nalternate\n")
say(b"Go on? [y/N] ")

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;

fn is_obeyed(letter: char) -> bool {
    (letter.is_control() && !matches!(letter, '\n' | '\t')) || letter == '\u{202e}'
}

fn assert_harmless(ran: &Ran) {
    assert!(!ran.out.contains(is_obeyed) && !ran.err.contains(is_obeyed), "{ran:?}");
}

#[tokio::test]
async fn what_an_app_writes_is_text_and_nothing_that_a_terminal_obeys() {
    let node = Node::start().await;
    let app = App::new(&node, "hostile", &[("Procfile", "web: python3 -u app.py\n"), ("app.py", HOSTILE)]);
    let folder = app.folder.to_str().unwrap().to_owned();
    let deployed = node.cli(&["deploy", &folder, "--app", "hostile"]).await;
    assert!(deployed.success(), "{deployed:?}");
    assert_harmless(&deployed);
    // The question has no end of its line, and is there all the same.
    let logs = answered("the question in the log", || async {
        let logs = node.cli(&["logs", "--app", "hostile"]).await;
        Ok(logs.out.contains("Go on? [y/N]").then_some(logs))
    })
    .await;
    assert_harmless(&logs);
    let texts: Vec<&str> = logs.out.lines().filter_map(|line| Some(line.split_once("web.1")?.1)).collect();
    let texts: Vec<&str> = texts.iter().filter_map(|text| Some(text.split_once("| ")?.1)).collect();
    for text in [
        "title",
        "cleared",
        "\u{fffd}reversed",
        "\u{fffd}2Jeight bits",
        "red, and never reset",
        "clipboard",
        "100%",
        "alternate",
    ] {
        assert!(texts.contains(&text), "{text}: {texts:?}");
    }
    let json = node.cli(&["logs", "--app", "hostile", "--json"]).await;
    assert_harmless(&json);
    assert!(json.json()["items"].as_array().unwrap().iter().any(|line| line["text"] == "title"), "{json:?}");

    // The same in what a failure says of it.
    app.write("broken", "");
    let failed = node.cli(&["deploy", &folder, "--app", "hostile"]).await;
    assert!(!failed.success() && failed.err.contains("the real reason"), "{failed:?}");
    assert_harmless(&failed);
    for verb in [&["build-log"][..], &["ps"], &["releases"], &["logs"], &["build-log", "--json"], &["ps", "--json"]] {
        assert_harmless(&node.cli(&[verb, &["--app", "hostile"]].concat()).await);
    }
    assert!(!node.log().contains(is_obeyed), "{}", node.log());
    node.finish().await;
}

/// What a build writes: colours that it does not take back, progress in one line, and what a terminal would obey.
const BUILD: &str = "\u{1b}[32mgreen\n\u{1b}[1;4mbold\u{1b}[0m and plain\n10%\r50%\r\u{1b}[33m100%\n\u{1b}]0;owned\u{7}title\n\
                     \u{1b}[2J\u{1b}[1;1Hcleared\n\u{1b}[?1049h\u{1b}[6nalternate\n";

/// The lines that a terminal was given. Each has colours at most, and none when it ends.
fn shown(ran: &Ran) -> Vec<String> {
    let line = |line: &str| {
        let (mut text, mut rest, mut is_coloured) = (String::new(), line, false);
        while let Some(at) = rest.find(is_obeyed) {
            text.push_str(&rest[..at]);
            let sequence = rest[at..].strip_prefix("\u{1b}[").and_then(|rest| rest.split_once('m'));
            let Some((parameters, after)) =
                sequence.filter(|(parameters, _)| !parameters.contains(char::is_alphabetic))
            else {
                panic!("more than colours: {line:?} of {ran:?}")
            };
            (rest, is_coloured) = (after, !matches!(parameters, "" | "0"));
        }
        assert!(!is_coloured, "a colour outlives its line: {line:?} of {ran:?}");
        text + rest
    };
    ran.out.split("\r\n").map(line).collect()
}

#[tokio::test]
async fn a_terminal_is_given_colours_that_end_with_their_line_and_a_pipe_none() {
    let node = Node::start().await;
    let files = [("Procfile", "web: python3 -u app.py\n"), ("app.py", HOSTILE), ("build.txt", BUILD)];
    let app = App::new(&node, "hostile", &files);
    let operator = node.operator();
    let project = operator.create_project("hostile").await;
    let config = json!({ "config": { "build_command": "cat build.txt" } });
    operator.put(&format!("/projects/{project}/build-config"), config).await.ok();
    let folder = app.folder.to_str().unwrap();
    let of_build = ["green", "bold and plain", "100%", "title", "cleared", "alternate"];
    let of_app = ["title", "cleared", "red, and never reset", "clipboard", "100%", "alternate"];
    let data = node.data();
    let data = data.to_str().unwrap();
    for (arguments, texts) in [
        (&["deploy", folder, "--app", "hostile", "--rebuild"][..], of_build),
        (&["build-log", "--app", "hostile"], of_build),
        (&["logs", "--app", "hostile"], of_app),
    ] {
        let on_terminal = node.cli_on_terminal(arguments, &[]).await;
        assert!(on_terminal.success(), "{on_terminal:?}");
        assert!(on_terminal.out.contains("\u{1b}[3"), "no colours on a terminal: {on_terminal:?}");
        let refused = node.cli_on_terminal(arguments, &[("NO_COLOR", "1")]).await;
        assert!(!refused.out.contains('\u{1b}'), "{refused:?}");
        let piped = node.cli_with(&[&["--data", data], arguments].concat(), &[("NO_COLOR", "")]).await;
        assert_harmless(&piped);
        let lines = |ran: &Ran| -> Vec<String> { ran.out.lines().map(str::to_owned).collect() };
        for (how, lines) in [("coloured", shown(&on_terminal)), ("plain", shown(&refused)), ("piped", lines(&piped))] {
            for text in texts {
                let is_there = lines.iter().any(|line| {
                    let line = line.split_once("| ").map_or(line.as_str(), |(_, text)| text);
                    line.trim() == text
                });
                assert!(is_there, "{text} of {arguments:?}, {how}: {lines:?}");
            }
            assert!(!lines.iter().any(|line| line.contains("50%")), "{how}: {lines:?}");
        }
    }

    // The same of a failure, whose reason ends hidden.
    app.write("broken", "");
    let failed = node.cli_on_terminal(&["deploy", folder, "--app", "hostile"], &[]).await;
    assert!(!failed.success() && shown(&failed).iter().any(|line| line.contains("the real reason")), "{failed:?}");
    node.finish().await;
}

#[tokio::test]
async fn names_and_addresses_in_errors_are_text() {
    let node = Node::start().await;
    for arguments in [
        &["deploy", "/no/such/\u{1b}[2Jfolder"][..],
        &["deploy", "https://example.com/\u{1b}]0;owned\u{7}"],
        &["create", "\u{1b}[31mname\u{9b}2J"],
        &["ps", "--app", "\u{1b}[31mname\nerror: forged"],
        &["logs", "--context", "\u{1b}[31mname"],
    ] {
        let ran = node.cli_elsewhere(arguments, "").await;
        assert!(!ran.success() && !ran.err.is_empty(), "{ran:?}");
        assert_harmless(&ran);
    }
    node.finish().await;
}
