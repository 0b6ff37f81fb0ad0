"""The heartbeat, as somebody outside hears it."""

import queue
import time

from conftest import RENEWD, House, Receiver, in_database, run, until

SECRET = "5b1f-nobody-knows-this"
# Longer than between two of them.
SILENCE = 3


def is_silent(receiver):
    while not receiver.taken.empty():
        receiver.taken.get()
    try:
        receiver.taken.get(timeout=SILENCE)
        return False
    except queue.Empty:
        return True


def test_it_is_heard_while_all_is_well_and_is_silent_when_that_cannot_be_said(tmp_path, emulator):
    receiver = Receiver()
    (tmp_path / "ping").touch(0o600)
    (tmp_path / "ping").write_text(f"{receiver.url}/{SECRET}\n")
    daemon = f'heartbeat = {{ url = {{ file = "{tmp_path}/ping" }}, every = "1s" }}'
    house = House(tmp_path, emulator, daemon=daemon)
    try:
        path, headers, body = receiver.next()
        assert (path, body) == (f"/{SECRET}", "") and headers["user-agent"].startswith("renewd/")
        last = until("its success", lambda: house.value("renewd_heartbeat_last_success_timestamp_seconds"))
        assert last <= time.time() + 1
        in_database(tmp_path, "ALTER TABLE consumer_count RENAME TO elsewhere")
        log, why = tmp_path / "daemon.log", "the heartbeat is silent, because the store cannot be read"
        until("the reason of its silence", lambda: why in log.read_text())
        until("silence", lambda: is_silent(receiver))
        in_database(tmp_path, "ALTER TABLE elsewhere RENAME TO consumer_count")
        assert receiver.next()[0] == f"/{SECRET}"
        # A reload takes it away.
        house.config.write_text(house.config.read_text().replace(daemon, ""))
        house.process.send_signal(1)
        until("silence", lambda: is_silent(receiver))
    finally:
        house.stop()
    assert SECRET not in log.read_text()


def test_an_address_that_would_tell_the_secret_is_refused(tmp_path, emulator):
    (tmp_path / "contoso.cs").touch(0o600)
    (tmp_path / "contoso.cs").write_text(emulator.connection)
    (tmp_path / "ping").touch(0o600)
    config = tmp_path / "renewd.toml"
    config.write_text(
        f"""[daemon]
heartbeat = {{ url = {{ file = "{tmp_path}/ping" }}, every = "1m" }}
[[resource]]
name = "contoso"
connection_string = {{ file = "{tmp_path}/contoso.cs" }}
"""
    )
    for address, told in [
        (f"http://hc.example/{SECRET}", "to the network"),
        (f"{SECRET}", "no address"),
        (f"ftp://hc.example/{SECRET}", "to the network"),
    ]:
        (tmp_path / "ping").write_text(address)
        found = run(RENEWD, "check", "--config", str(config))
        said = found.stdout + found.stderr
        assert found.returncode == 2 and told in said and "renewd.toml:2:" in said, said
        assert SECRET not in said
