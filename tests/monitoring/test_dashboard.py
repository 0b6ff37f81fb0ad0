"""The shipped dashboard: made by its script, of expressions that are sound and metrics that are there."""

import json
import subprocess
import sys

import yaml

from conftest import MONITORING, known, names, run

BOARD = MONITORING / "dashboard.json"


def panels():
    return [panel for panel in json.loads(BOARD.read_text())["panels"] if panel["type"] != "row"]


def expressions():
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def test_it_is_what_its_script_writes():
    made = subprocess.run([sys.executable, MONITORING / "dashboard.py"], check=True, capture_output=True, text=True)
    assert made.stdout == BOARD.read_text(), "run docs/monitoring/dashboard.py > docs/monitoring/dashboard.json"


def test_every_expression_is_sound_and_gives_what_its_metrics_hold(house, tmp_path):
    # A recording rule is an expression, and nothing else.
    rules = [
        {"record": f"dashboard:panel:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, expression in enumerate(expressions())
    ]
    path = tmp_path / "dashboard.rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    found = run("promtool", "check", "rules", "--lint=all", "--lint-fatal", str(path))
    assert found.returncode == 0, found.stdout + found.stderr
    there = known(house.metrics())
    for expression in expressions():
        assert names(expression) and not names(expression) - there, expression


def test_every_panel_says_what_it_is_and_lies_on_a_place_of_its_own():
    places = [tuple(sorted(panel["gridPos"].items())) for panel in panels()]
    assert len(set(places)) == len(places) > 20
    for panel in panels():
        assert panel["title"] and panel["fieldConfig"]["defaults"]["unit"], panel
