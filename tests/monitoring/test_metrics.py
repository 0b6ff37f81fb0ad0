"""What `/metrics` says, held against the programs that read it."""

import subprocess

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from conftest import House, in_database, samples, until

OPEN = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"


def checked(text):
    found = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True
    )
    return found.returncode, found.stdout + found.stderr


def test_promtool_finds_nothing_to_say(house):
    kind, text = house.get("/metrics")
    assert kind == "text/plain; version=0.0.4; charset=utf-8"
    assert checked(text) == (0, ""), text


def test_whoever_prefers_openmetrics_gets_it(house):
    kind, text = house.get("/metrics", OPEN)
    assert kind == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["renewd_acs_calls"].type == "counter"
    assert families["renewd_acs_call_duration_seconds"].type == "histogram"
    classic = house.metrics()
    assert samples(text.removesuffix("# EOF\n")) == samples(classic)


def test_every_series_is_there_from_the_start_and_in_the_same_place(tmp_path, emulator):
    emulator.ask("faults", {"kind": "status"})
    house = House(tmp_path, emulator)
    try:
        text = house.metrics()
        first = samples(text)
        assert checked(text) == (0, ""), text
        for series in [
            'renewd_acs_calls_total{resource="contoso",operation="issue",result="credentials"}',
            'renewd_deliveries_pending{sink="files"}',
            'renewd_consumers{by="socket",holds="none"}',
            'renewd_needs{kind="late"}',
            'renewd_operation_open{resource="contoso",operation="delete"}',
            'renewd_last_success_timestamp_seconds{resource="contoso"}',
            'renewd_job_last_success_timestamp_seconds{job="nightly"}',
            'renewd_source_lapsed{source="users"}',
            "renewd_store_up",
            "process_cpu_seconds_total",
        ]:
            assert series in first, series
        emulator.ask("faults", {}, "DELETE")
        live = 'renewd_consumers{by="files",holds="live"}'
        until("two tokens after the outage", lambda: house.value(live) == 2)
        # What the store does is counted by a word each, which comes with its first time.
        after = [one for one in samples(house.metrics()) if "renewd_store_operation" not in one]
        assert [one for one in first if "renewd_store_operation" not in one] == after
    finally:
        house.stop()


def test_an_unreadable_store_leaves_no_series_out(tmp_path, emulator):
    house = House(tmp_path, emulator)
    try:
        until("two tokens", lambda: house.value('renewd_consumers{by="files",holds="live"}') == 2)
        before = samples(house.metrics())
        assert house.value("renewd_store_up") == 1
        in_database(tmp_path, "ALTER TABLE consumer_count RENAME TO elsewhere")
        until("the store's failure", lambda: house.value("renewd_store_up") == 0)
        assert house.value('renewd_consumers{by="files",holds="live"}') == 2
        missing = set(before) - set(samples(house.metrics()))
        assert not missing, missing
        in_database(tmp_path, "ALTER TABLE elsewhere RENAME TO consumer_count")
        until("the store", lambda: house.value("renewd_store_up") == 1)
    finally:
        house.stop()


def test_a_refused_reload_and_a_lapsed_source_are_told(tmp_path, emulator):
    house = House(tmp_path, emulator)
    try:
        good = house.config.read_text()
        house.config.write_text(good + "\nnonsense = true\n")
        house.process.send_signal(1)
        until("the refusal", lambda: house.value("renewd_config_last_reload_successful") == 0)
        house.config.write_text(good)
        (tmp_path / "users.jsonl").unlink()
        house.process.send_signal(1)
        until("the lapse", lambda: house.value('renewd_source_lapsed{source="users"}') == 1)
        until("the reload", lambda: house.value("renewd_config_last_reload_successful") == 1)
    finally:
        house.stop()
