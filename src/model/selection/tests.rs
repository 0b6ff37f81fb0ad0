//! Selections are read, printed and read again; what they select.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn facts(labels: &BTreeMap<String, String>) -> Facts<'_> {
    Facts {
        name: "guest-7",
        id: Some("8:acs:r_7"),
        resource: "contoso",
        scopes: &[Scope::Chat, Scope::VoipJoin],
        state: State::Late,
        origin: "file".into(),
        labels,
        issued: Some(Timestamp::UNIX_EPOCH),
        expires: Some(Timestamp::UNIX_EPOCH + std::time::Duration::from_secs(3600)),
        revoked: None,
    }
}

#[test]
fn what_is_selected() {
    let labels = labels(&[("team", "guest"), ("Room", "4")]);
    let facts = facts(&labels);
    let cases = [
        ("name = 'guest-7'", true),
        ("name = guest-7", true),
        ("name != 'guest-7'", false),
        ("name ~ 'guest-*'", true),
        ("name ~ 'g*-?'", true),
        ("name ~ '*'", true),
        ("name ~ 'guest-??'", false),
        ("name !~ 'guest-*'", false),
        ("name in ('a', \"guest-7\")", true),
        ("name not in (guest-7)", false),
        ("id = '8:acs:r_7'", true),
        ("resource = 'contoso' and scope = 'chat'", true),
        ("scope = 'voip'", false),
        ("scope in (voip, voip.join)", true),
        ("state in (late, held)", true),
        ("not state = active", true),
        ("origin = cli", false),
        ("label.team = 'guest'", true),
        ("label.Room = '4'", true),
        ("label.room = '4'", false),
        ("label.none != 'x'", true),
        ("label.none ~ '*'", false),
        ("issued < '2026-11-20T00:00:00Z'", true),
        ("issued < '1970-01-01'", false),
        ("issued <= '1970-01-01'", true),
        ("expires > '1970-01-01T01:00:00+00:00'", false),
        ("expires >= '1970-01-01T02:00:00+01:00'", true),
        ("revoked < '2100-01-01'", false),
        ("not revoked < '2100-01-01'", true),
        (
            "name = x or name = y and state = late or state = late",
            true,
        ),
        ("(name = x or state = late) and not (scope = chat)", false),
        ("NAME = guest-7 AND NOT state = held OR name = x", true),
    ];
    for (text, wanted) in cases {
        let selection = Selection::parse(text).unwrap_or_else(|e| panic!("{}", e.explain(text)));
        assert_eq!(selection.matches(&facts), wanted, "{text}");
    }
}

#[test]
fn nonsense_is_shown_with_line_column_and_caret() {
    let told: Vec<String> = [
        "",
        "state = lost",
        "name == 'x'",
        "name = 'x' label.team = 'y'",
        "name = 'x' and\n  nmae = 'y'",
        "name = 'x",
        "(name = x or (name = y)",
        "name in (a b)",
        "name in",
        "label. = x",
        "issued = '2026-11-20'",
        "issued < yesterday",
        "issued < '2026-11-20T00:00:00'",
        "scope = chat.write",
        "ü = 'x'",
        "name = 'ü' § x",
        "; drop table identity",
    ]
    .into_iter()
    .map(|text| match Selection::parse(text) {
        Ok(selection) => format!("understood as {selection}"),
        Err(error) => error.explain(text),
    })
    .collect();
    insta::assert_snapshot!(told.join("\n\n"));
}

#[test]
fn depth_and_length_are_bounded() {
    for text in [
        "(".repeat(100_000),
        "not ".repeat(10_000),
        "name = x or ".repeat(10_000),
    ] {
        let error = Selection::parse(&text).expect_err("too much");
        assert!(!error.explain(&text).is_empty());
    }
    let long = vec!["name = x"; 4000].join(" and ");
    assert!(Selection::parse(&long).is_ok());
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c*?' ]{0,4}", "\\PC{0,5}"]
}

fn condition() -> impl Strategy<Value = Expr> {
    let free = prop_oneof![
        Just(TextField::Name),
        Just(TextField::Id),
        Just(TextField::Resource),
        Just(TextField::Origin),
        "[a-c.]{1,2}".prop_map(TextField::Label),
    ];
    let values = || proptest::collection::vec(value(), 1..3);
    let test = prop_oneof![
        value().prop_map(Test::Is),
        value().prop_map(Test::IsNot),
        value().prop_map(Test::Like),
        value().prop_map(Test::Unlike),
        values().prop_map(Test::In),
        values().prop_map(Test::NotIn),
    ];
    let state = prop_oneof![Just("late"), Just("held")].prop_map(str::to_owned);
    let scope = prop_oneof![Just("chat"), Just("voip.join")].prop_map(str::to_owned);
    let time = prop_oneof![
        Just(TimeField::Issued),
        Just(TimeField::Expires),
        Just(TimeField::Revoked)
    ];
    let order = prop_oneof![
        Just(Order::Before),
        Just(Order::NotAfter),
        Just(Order::After),
        Just(Order::NotBefore)
    ];
    prop_oneof![
        (free, test).prop_map(|(field, test)| Expr::Text(field, test)),
        state.prop_map(|value| Expr::Text(TextField::State, Test::Is(value))),
        scope.prop_map(|value| Expr::Text(TextField::Scope, Test::NotIn(vec![value]))),
        (time, order, -4000i64..4000).prop_map(|(field, order, at)| {
            let than = Timestamp::from_millisecond(at * 1001).expect("near 1970");
            Expr::Time(field, order, than)
        }),
    ]
}

fn expr() -> impl Strategy<Value = Expr> {
    condition().prop_recursive(4, 24, 3, |part| {
        let parts = || proptest::collection::vec(part.clone(), 2..4);
        prop_oneof![
            parts().prop_map(Expr::All),
            parts().prop_map(Expr::Any),
            part.clone().prop_map(|part| Expr::Not(Box::new(part))),
        ]
    })
}

proptest! {
    #[test]
    fn printed_and_read_again_it_is_the_same(expr in expr(), label in value(), known in any::<bool>()) {
        let selection = Selection(expr);
        let again = Selection::parse(&selection.to_string());
        prop_assert_eq!(again.as_ref(), Ok(&selection), "{}", selection);
        let labels = labels(&[("a", &label), ("b", "b")]);
        let mut facts = facts(&labels);
        if known {
            (facts.issued, facts.revoked) = (None, facts.issued);
        }
        prop_assert_eq!(again.map(|again| again.matches(&facts)), Ok(selection.matches(&facts)));
    }

    #[test]
    fn nothing_written_makes_it_fall_over(text in "\\PC{0,40}") {
        if let Err(error) = Selection::parse(&text) {
            prop_assert!(!error.explain(&text).is_empty());
        }
    }

    #[test]
    fn patterns_without_signs_are_plain_texts(text in "[ab]{0,6}", other in "[ab]{0,6}") {
        prop_assert_eq!(is_like(&text, &other), text == other);
        let around = format!("*{text}*");
        prop_assert!(is_like(&text, &around));
        prop_assert!(is_like(&text, &"?".repeat(text.len())));
    }
}
