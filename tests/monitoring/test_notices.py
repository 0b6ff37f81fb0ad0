"""Notices in the form of their receivers: a real Alertmanager, and the samples of the manual."""

import json
import re
import subprocess
import urllib.parse
import urllib.request

import pytest

from conftest import MONITORING, PATIENCE, RENEWD, ROOT, House, Receiver, free_port, run, until

SAMPLES = dict(
    re.findall(r"```jinja\n\{# (\S+) #\}\n(.*?)```", (ROOT / "docs/webhooks.md").read_text(), re.S)
)
OUTAGE = 'key="outage contoso"'


class Alertmanager:
    def __init__(self, folder):
        self.port = free_port()
        self.log = (folder / "alertmanager.log").open("w")
        command = [
            "prometheus-alertmanager",
            f"--config.file={MONITORING / 'alertmanager.yml'}",
            f"--storage.path={folder / 'alertmanager'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--cluster.listen-address=",
        ]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        until("Alertmanager", lambda: self.is_ready())

    def is_ready(self):
        assert self.process.poll() is None, open(self.log.name).read()
        try:
            return self.get("/-/ready")
        except OSError:
            return None

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE) as answer:
            return answer.read()

    def alerts(self, matcher):
        """Those that it shows, however they are kept back."""
        chosen = urllib.parse.urlencode({"filter": matcher})
        return json.loads(self.get(f"/api/v2/alerts?{chosen}"))

    def post(self, alerts):
        headers = {"content-type": "application/json"}
        url = f"http://127.0.0.1:{self.port}/api/v2/alerts"
        request = urllib.request.Request(url, json.dumps(alerts).encode(), headers)
        urllib.request.urlopen(request, timeout=PATIENCE)

    def stop(self):
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.log.close()


@pytest.fixture
def alertmanager(tmp_path):
    one = Alertmanager(tmp_path)
    yield one
    one.stop()


def sink(name, url, body, events='["resource.*"]', more=""):
    return f'\n[[sink.webhook]]\nname = "{name}"\nurl = "{url}"\nbody = {body}\nevents = {events}\n{more}\n'


def test_alertmanager_takes_the_shipped_configuration():
    found = run("amtool", "check-config", MONITORING / "alertmanager.yml")
    assert found.returncode == 0, found.stdout + found.stderr


def test_alertmanager_shows_an_outage_and_clears_it(tmp_path, emulator, alertmanager):
    url = f"http://127.0.0.1:{alertmanager.port}/api/v2/alerts"
    house = House(tmp_path, emulator, sink("alertmanager", url, '"alertmanager"'))
    try:
        until("two tokens", lambda: house.value('renewd_consumers{by="files",holds="live"}') == 2)
        emulator.ask("faults", {"kind": "reset"})
        assert house.renewd("renew", "bot", "anna", "--detach").returncode == 0
        shown = until("the outage", lambda: alertmanager.alerts(OUTAGE))
        assert len(shown) == 1
        labels = {"alertname": "RenewdNotice", "instance": "kit", "key": "outage contoso", "severity": "warning"}
        assert shown[0]["labels"] == labels
        assert shown[0]["annotations"]["notice"] == "resource.unreachable"
        assert shown[0]["status"]["state"] in ("active", "unprocessed")
        emulator.ask("faults", {}, "DELETE")
        until("the end of the outage", lambda: not alertmanager.alerts(OUTAGE))
        # A test clears by itself, and is one of its own.
        tested = house.renewd("sink", "test", "alertmanager")
        assert tested.returncode == 0, tested.stdout + tested.stderr
        found = until("the test", lambda: alertmanager.alerts('alertname="RenewdNotice"'))
        assert [one["annotations"]["notice"] for one in found] == ["sink.test"]
    finally:
        house.stop()


def test_what_explains_an_alert_keeps_it_back(alertmanager):
    def alert(name, severity, **more):
        return {"labels": {"alertname": name, "severity": severity, "instance": "a", **more}}

    alertmanager.post(
        [
            alert("RenewdNothingRenewed", "warning", resource="contoso"),
            alert("RenewdIdentitiesLate", "warning", resource="contoso"),
            alert("RenewdIdentitiesLate", "warning", resource="fabrikam"),
            alert("RenewdTokenEndsSoon", "critical", by="files"),
        ]
    )

    def kept_back():
        alerts = alertmanager.alerts('instance="a"')
        held = [one["labels"] for one in alerts if one["status"]["inhibitedBy"]]
        return held if all(one["status"]["state"] != "unprocessed" for one in alerts) else []

    held = until("what is kept back", kept_back)
    assert [(one["alertname"], one["resource"]) for one in held] == [("RenewdIdentitiesLate", "contoso")]


def test_the_samples_of_the_manual_open_and_close_the_same(tmp_path, emulator):
    assert set(SAMPLES) == {"slack.json.j2", "pagerduty.json.j2", "ntfy.json.j2"}
    receiver, more = Receiver(), ""
    for name, text in SAMPLES.items():
        (tmp_path / name).write_text(text)
        more += sink(name.partition(".")[0], f"{receiver.url}/{name}", f'{{ file = "{tmp_path / name}" }}')
    plain = tmp_path / "plain.j2"
    plain.write_text("{{ state }}: {{ message }}\n")
    more += sink("plain", f"{receiver.url}/plain", f'{{ file = "{plain}" }}', more='content_type = "text/plain"')
    house = House(tmp_path, emulator, more)
    try:
        until("two tokens", lambda: house.value('renewd_consumers{by="files",holds="live"}') == 2)
        emulator.ask("faults", {"kind": "reset"})
        assert house.renewd("renew", "bot", "anna", "--detach").returncode == 0
        begun = {}
        while len(begun) < 4:
            path, headers, body = receiver.next()
            begun[path] = (headers, body)
        emulator.ask("faults", {}, "DELETE")
        ended = {}
        while len(ended) < 4:
            path, headers, body = receiver.next()
            ended[path] = (headers, body)
        for path, (headers, body) in begun.items():
            assert "webhook-signature" not in {name.lower() for name in headers}
            if path != "/plain":
                assert json.loads(body) and json.loads(ended[path][1])
        opened, closed = (json.loads(one["/pagerduty.json.j2"][1]) for one in (begun, ended))
        assert (opened["event_action"], closed["event_action"]) == ("trigger", "resolve")
        assert opened["dedup_key"] == closed["dedup_key"] == "outage contoso"
        assert ":red_circle:" in begun["/slack.json.j2"][1]
        assert json.loads(ended["/ntfy.json.j2"][1])["tags"] == ["white_check_mark"]
        assert begun["/plain"][1].startswith("begins: ") and ended["/plain"][1].startswith("ends: ")
        assert begun["/plain"][0]["content-type"] == "text/plain; charset=utf-8"
        # Not even a test holds what looks like a token.
        for name in ("slack", "plain"):
            assert house.renewd("sink", "test", name).returncode == 0
            assert "renewd-test-this-is-not-a-token" not in receiver.next()[2]
    finally:
        house.stop()


def test_mistakes_are_said_with_their_place(tmp_path, emulator):
    """Tokens in such a sink, and whatever is wrong with a template."""
    good = SAMPLES["slack.json.j2"]
    house = tmp_path / "renewd.toml"
    (tmp_path / "contoso.cs").touch(0o600)
    (tmp_path / "contoso.cs").write_text(emulator.connection)
    base = f'[[resource]]\nname = "contoso"\nconnection_string = {{ file = "{tmp_path}/contoso.cs" }}\n'
    for template, events, told in [
        (good, '["token.*"]', ["renewd.toml:9:11", "carries no tokens"]),
        (good, '["resource.*", "token.renewed"]', ["renewd.toml:9:25", "carries no tokens"]),
        (good, '["*"]', ["renewd.toml:9:11", "carries no tokens"]),
        ("\n" + '{"text": {{ token|json }}}', '["key.*"]', ["slack.j2:2:13", "knows no `token`"]),
        (good.replace("message", "token"), '["key.*"]', ["slack.j2:2:", "does not exist"]),
        (good + "{{ data.token|json }}", '["key.*"]', ["slack.j2:3:4", "knows no `data", "it knows notice, state"]),
        ('{"text": "{{ message }}"}', '["key.*"]', ["renewd.toml:8:", "no JSON", "message|json"]),
        ("{% if state %}", '["key.*"]', ["slack.j2:1:", "the template is wrong"]),
    ]:
        (tmp_path / "slack.j2").write_text(template)
        more = sink("slack", "http://127.0.0.1:1/", f'{{ file = "{tmp_path / "slack.j2"}" }}', events)
        house.write_text(base + more)
        found = run(RENEWD, "check", "--config", str(house))
        assert found.returncode == 2, found.stdout + found.stderr
        for part in told:
            assert part in found.stdout + found.stderr, (part, found.stdout, found.stderr)
