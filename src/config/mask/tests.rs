//! What an excerpt may show.

use super::*;
use crate::config::quantity::MASK;

fn apply(text: &str) -> String {
    let mut out = String::new();
    let mut at = 0;
    for range in masked(text) {
        assert!(range.start >= at, "ranges are in order");
        out.push_str(&text[at..range.start]);
        out.push_str(MASK);
        at = range.end;
    }
    out + &text[at..]
}

#[test]
fn nothing_under_a_secret_key_is_shown() {
    for text in [
        "connection_string = \"hunter2\"",
        "connection_string = 'hunter2'",
        "connection_string = hunter2",
        "connection_string\t=\t\"hunter2",
        "connection_string =\n\"hunter2\"",
        "connection_string = \"\"\"\nhunter2\n\"\"\"",
        "connection_string = '''\nhunter2",
        "connection_string = \"a\" \"hunter2\"",
        "\"connection_string\" = \"hunter2\"",
        "resource.connection_string = \"hunter2\"",
        "connection_string.file = \"hunter2\"",
        "connection_string = { file = \"hunter2\" }",
        "connection_string \"hunter2\"",
        "connection_string: hunter2",
        "conection_strnig = \"hunter2\"",
        "secrets = [\"hunter2\"]",
        "secrets = [\n  \"hunter2\",\n  'hunter2'\n]",
        "secrets = [{ file = \"hunter2\" }, \"hunter2\"",
        "name = { connection_string = \"hunter2\" }",
        "name = [\nconnection_string = \"hunter2\"",
        "limits = { issue = \"1000/30s\"\nconnection_string = \"hunter2\"",
        "[resource.connection_string]\nfile = \"hunter2\"",
        "name = \"a\" # connection_string = \"hunter2\"",
        "# hunter2",
        "= \"hunter2\"",
        "\"hunter2\"",
        "hunter2",
        "name = \"\"\"\nhunter2\nname = \"hunter2\"\n\"\"\"",
        "seal_key = 'hunter2'",
        "labels = { seal_key = 'hunter2' }",
        "name = \"a\"connection_string = \"hunter2\"",
        "sinks = [\"a\", conection_string = \"hunter2\"",
        "name = \"a\" secrets = [{ file = \"hunter2\nhunter2\" }]",
        "path = \"/rseal_key = { env = \"hunter2\" } # hunter2\"",
        "sinks = [\"a\" \"hunter2\", \"b\"]",
        "name \"\"\"\nsecrets = [\"whsec_\"\"\"hunter2\",",
    ] {
        assert!(!apply(text).contains("hunter2"), "{}", apply(text));
    }
}

#[test]
fn what_looks_like_a_secret_is_shown_nowhere() {
    for text in [
        "name = \"endpoint=https://x;accesskey=abc\"",
        "name = \"whsec_abc\"",
        "url = \"https://abc:abc@host/\"",
        "url = \"https://host/hook?sig=abc\"",
        "name = \"bm90LWEtcmVhbC1rZXktMDEyMzQ1Njc4OWFiY2RlZiEh\"",
        "whsec_abc = 1",
    ] {
        let shown = apply(text);
        assert!(!shown.contains("abc") && !shown.contains("bm90"), "{shown}");
    }
}

#[test]
fn what_an_operator_needs_to_see_is_shown() {
    for text in [
        "name = \"support-bot\"",
        "listne = \"127.0.0.1:9847\"",
        "[[sink.file]]",
        "[[resouce]]",
        "[[resource]",
        "scopes = [\"chat\", \"voip\"]",
        "scopes = [\n  \"chat\",\n]",
        "labels = { team = \"support\", floor = '3' }",
        "[identity.labels]\nteam = \"support\"",
        "limits = { issue = \"1000/30s\" }",
        "mode = 0640",
        "name \"bot\"",
        "id = \"8:acs:0b5c9bf5-2d5c-4a27-a0c6-3a4b4b9f0d11_0000001d-9f0d-4b4b\"",
        "path = \"/run/renewd/tokens/{name}.json\"",
    ] {
        assert_eq!(apply(text), text);
    }
}
