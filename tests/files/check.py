"""Reads env files as python-dotenv and systemd do, and holds them against what was meant."""

import pathlib
import shlex
import sys

from dotenv import dotenv_values

folder = pathlib.Path(sys.argv[1])
files = sorted(folder.glob("*.env"))
assert files, f"no env files in {folder}"
for path in files:
    expected = path.with_suffix(".expected").read_bytes().decode()
    for interpolate in (True, False):
        values = dotenv_values(path, interpolate=interpolate)
        assert values["RENEWD_TOKEN"] == expected, (path.name, values["RENEWD_TOKEN"], expected)
        assert values["RENEWD_NAME"] == path.stem, values
        assert len(values) == 10, values
    # systemd's EnvironmentFile= removes quotes as a shell does and expands nothing.
    words = dict(line.split("=", 1) for line in shlex.split(path.read_text(), posix=True))
    assert words["RENEWD_TOKEN"] == expected, (path.name, words)
print(f"{len(files)} env files read back by python-dotenv and by shell words")
