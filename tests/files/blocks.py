"""Writes each block of configuration in the pages as a file of its own, and beside them the schema of such parts: a page
leaves out what it does not speak of, so nothing is required."""

import json
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


def parts(schema):
    if isinstance(schema, dict):
        return {key: parts(value) for key, value in schema.items() if key != "required"}
    return [parts(one) for one in schema] if isinstance(schema, list) else schema


schema = json.loads((root / "config/renewd.schema.json").read_text())
(folder / "parts.schema.json").write_text(json.dumps(parts(schema)))
assert count >= 10, f"{count} blocks in {len(pages)} pages"
