"""Writes each block of configuration in the pages and their samples as a file of its own, for a program that checks files."""

import pathlib
import re
import sys

root, folder = (pathlib.Path(argument) for argument in sys.argv[1:])
pages = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
count = 0
for page in pages:
    for block in re.findall(r"^```toml\n(.*?)^```", page.read_text(), re.M | re.S):
        count += 1
        (folder / f"{page.stem}-{count}.toml").write_text(block)
assert count >= 10, f"{count} blocks in {len(pages)} pages"
