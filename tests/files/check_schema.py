"""Holds the sample configurations against their schema, and the schema against what it must refuse."""

import copy
import json
import pathlib
import sys
import tomllib

from jsonschema import Draft7Validator

root = pathlib.Path(sys.argv[1])
schema = json.loads((root / "config/renewd.schema.json").read_text())
Draft7Validator.check_schema(schema)
validator = Draft7Validator(schema)

samples = [root / "config/renewd.toml", *sorted((root / "config/examples").glob("*.toml"))]
assert len(samples) >= 5, samples
for path in samples:
    sample = tomllib.loads(path.read_text())
    errors = [f"{list(error.path)}: {error.message}" for error in validator.iter_errors(sample)]
    assert not errors, (path.name, errors)

whole = tomllib.loads((root / "config/renewd.toml").read_text())
wrong = {
    "an unknown key": lambda c: c["daemon"].update(colour="red"),
    "an unknown section": lambda c: c.update(deamon={}),
    "a missing name": lambda c: c["resource"][0].pop("name"),
    "a secret in the clear": lambda c: c["resource"][0].update(connection_string="endpoint=x"),
    "a secret of two places": lambda c: c["store"].update(seal_key={"file": "a", "env": "B"}),
    "a number out of range": lambda c: c["resource"][0].update(max_in_flight=0),
    "a duration without a unit": lambda c: c["renewal"].update(lifetime="24"),
    "an unknown word": lambda c: c["sink"]["file"][0].update(format="yaml"),
    "a section where a list is meant": lambda c: c.update(identity={}),
}
for what, break_it in wrong.items():
    config = copy.deepcopy(whole)
    break_it(config)
    assert list(validator.iter_errors(config)), f"the schema takes {what}"
print(f"{len(samples)} sample configurations fit their schema, which refuses {len(wrong)} wrong ones")
