"""One word per thing: the table of docs/words.md, held to a daemon that has such things to tell, in each of its interfaces."""

import re

from conftest import ROOT, House, until

SINK = """
[[sink.webhook]]
name = "crm"
url = "http://127.0.0.1:1/"
secrets = [{ file = "FOLDER/hook.secret" }]
"""
INTERFACES = ["json", "metrics", "status", "page"]


def rows():
    lines = re.findall(r"^\| (.*) \|$", (ROOT / "docs/words.md").read_text(), re.M)[2:]
    for line in lines:
        word, _, *cells = [cell.strip() for cell in line.split("|")]
        yield word, dict(zip(INTERFACES, cells, strict=True))


def spelled(text):
    """As the table spells it: in one case, with blanks between words."""
    return re.sub(r"[_\s]+", " ", text.lower())


def test_each_word_means_the_same_in_every_interface(tmp_path, emulator):
    more = SINK.replace("FOLDER", str(tmp_path))
    house = House(tmp_path, emulator, more)
    config = house.config.read_text().replace('sinks = ["files"]', 'sinks = ["files", "crm"]', 1)
    try:
        house.config.write_text(config)
        house.process.send_signal(1)
        until("a sink that fails", lambda: house.value('renewd_needs{kind="sink_failing"}') == 1)
        assert house.renewd("hold", "anna", "--yes").returncode == 0
        assert house.renewd("store", "backup", str(tmp_path / "copy")).returncode == 0
        until("one that is held", lambda: house.value('renewd_identities{resource="contoso",state="held"}') == 1)
        said = {
            "json": house.renewd("status", "--json").stdout,
            "metrics": house.metrics(),
            "status": house.renewd("status").stdout,
            "page": re.sub(r"<[^>]*>", " ", house.get("/")[1]),
        }
        table = list(rows())
        assert len(table) >= 10
        for word, cells in table:
            for interface, cell in cells.items():
                if cell:
                    text = cell.strip("`")
                    assert text in said[interface], (word, interface, text, said[interface])
                    # The word itself, or its parts, as a key may hold more than the word.
                    parts = spelled(word).split()
                    assert all(part.rstrip("s") in spelled(text) for part in parts), (word, interface, text)
    finally:
        house.stop()
