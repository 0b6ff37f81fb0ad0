"""The shipped alerts: what they say, whom they wake, what they name, and what their runbooks have one type."""

import re

import yaml

from conftest import MONITORING, RENEWD, known, names, run, samples, until

RULES = MONITORING / "renewd.rules.yml"
CASES = [MONITORING / "renewd.rules.test.yml", MONITORING / "renewd.rules.long.test.yml"]
# Whom nothing else may wake, and nobody may sleep through.
WAKE = {
    "RenewdDown",
    "RenewdConsumerWithoutToken",
    "RenewdTokenEndsSoon",
    "RenewdWithdrawalNotAtAcs",
    "RenewdStoreRestored",
}


def promtool(*arguments):
    found = run("promtool", *arguments, cwd=MONITORING)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def test_the_rules_are_sound(rules):
    promtool("check", "rules", "--lint=all", "--lint-fatal", str(RULES))
    for rule in rules:
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}, rule["alert"]


def test_each_alert_fires_and_does_not():
    promtool("test", "rules", *map(str, CASES))


def test_each_alert_has_a_case_of_both(rules):
    fires, silent = set(), set()
    for case in [case for path in CASES for case in yaml.safe_load(path.read_text())["tests"]]:
        alert = case["name"].partition(":")[0]
        checks = [check["exp_samples"] for check in case["promql_expr_test"]]
        if any(checks):
            fires.add(alert)
        # One that never fires in its case, or fires later, but nothing else does.
        if not all(checks):
            silent.add(alert)
    alerts = {rule["alert"] for rule in rules}
    assert fires == alerts and silent == alerts, (alerts - fires, alerts - silent)


def test_a_person_is_woken_for_what_the_list_says_and_for_nothing_else(rules):
    severity = {rule["alert"]: rule["labels"]["severity"] for rule in rules}
    assert set(severity.values()) == {"critical", "warning"}
    assert {alert for alert, word in severity.items() if word == "critical"} == WAKE


def test_every_metric_that_an_alert_names_is_there(house, rules):
    there = known(house.metrics()) | {"up"}
    for rule in rules:
        missing = names(rule["expr"]) - there
        assert not missing, (rule["alert"], missing)


def explained():
    """Kinds that the manual says no alert tells of."""
    rows = re.findall(r"^\| `([a-z_]+)` \| (\S.*) \|$", (MONITORING / "README.md").read_text(), re.M)
    return dict(rows)


def test_every_kind_of_need_is_told_by_an_alert_or_explained(house):
    kinds = {re.search('kind="(.*)"', one)[1] for one in samples(house.metrics()) if one.startswith("renewd_needs{")}
    told = [kind for line in re.findall(r"# needs: (.*)", RULES.read_text()) for kind in line.split(", ")]
    assert len(told) == len(set(told)), "told twice"
    missing = kinds - set(told) - set(explained())
    assert not missing, missing
    assert set(told) | set(explained()) == kinds, set(told) ^ kinds
    print(f"{len(told)} of {len(kinds)} kinds of needs are told by an alert, {len(explained())} explained")


# How a runbook's command ends where nothing is wrong; all others end with 0.
ENDS = {
    "renewd store accept": 1,
    "renewd store adopt": 1,
    "renewd store verify": 1,
    "renewd campaign retry": 1,
    "renewd campaign cancel": 1,
    "renewd check --online": 0,
    # Of a daemon that shares its store with no other.
    "renewd node list": 1,
}
# Of the system, and not of renewd: `tests/systemd` (runbook_commands) runs them.
SYSTEM = {"systemctl", "journalctl", "timedatectl"}


def commands(rules):
    quoted = {word for rule in rules for word in re.findall("`([^`]+)`", rule["annotations"]["runbook"])}
    return sorted(word for word in quoted if " " in word or word in SYSTEM)


def test_every_command_of_a_runbook_is_one(house, rules, tmp_path):
    # The first campaign.
    found = house.renewd("job", "run", "nightly")
    assert found.returncode == 0, found.stderr
    success = 'renewd_job_last_success_timestamp_seconds{job="nightly"}'
    until("the end of the campaign", lambda: house.value(success))
    lines = tmp_path / "names.jsonl"
    lines.write_text('{"name": "carl", "scopes": ["chat"]}\n')
    values = {"NAME": "bot", "SINK": "files", "SOURCE": "users", "ID": "1"}
    ran = 0
    for command in commands(rules):
        program, *arguments = command.split()
        if program in SYSTEM:
            continue
        assert program == "renewd", command
        values["FILE"] = str(lines if "import" in arguments else tmp_path / f"copy-{ran}")
        arguments = [values.get(word, word) for word in arguments]
        if arguments[0] in ("check", "doctor") or arguments[:2] == ["store", "verify"]:
            found = run(RENEWD, *arguments, "--config", str(house.config))
        else:
            found = house.renewd(*arguments)
        expected = next((end for start, end in ENDS.items() if command.startswith(start)), 0)
        assert found.returncode == expected, (command, found.returncode, found.stdout, found.stderr)
        ran += 1
    assert ran > 20, ran


def test_every_runbook_has_a_command_or_says_what_to_do(rules):
    for rule in rules:
        assert "`" in rule["annotations"]["runbook"], rule["alert"]


def test_no_ticket_keeps_back_what_wakes_a_person(rules):
    severity = {rule["alert"]: rule["labels"]["severity"] for rule in rules}
    config = yaml.safe_load((MONITORING / "alertmanager.yml").read_text())

    def matched(matchers):
        chosen = set(severity)
        for matcher in matchers:
            label, operator, value = re.fullmatch(r'(\w+)(=~|!~|!=|=)"(.*)"', matcher).groups()
            text = {name: name if label == "alertname" else severity[name] for name in severity}
            hits = {
                name
                for name in severity
                if (re.fullmatch(value, text[name]) if "~" in operator else text[name] == value)
            }
            chosen &= set(severity) - hits if operator.startswith("!") else hits
        return chosen

    for rule in config["inhibit_rules"]:
        sources, targets = matched(rule["source_matchers"]), matched(rule["target_matchers"])
        assert sources and targets and not sources & targets, rule
        if any(severity[name] == "warning" for name in sources):
            assert not [name for name in targets if severity[name] == "critical"], rule
