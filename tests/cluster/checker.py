"""Looks at every token of every identity, on every node's socket and in every file, and at what webhooks brought: whether one
that lives was there each time, and whether a version ever fell. Whether a token lives, the service says."""

import contextlib
import datetime
import json
import socket
import statistics
import threading
import time

# A token that was replaced between the look and the question to the service is looked for again so often.
LOOKS_AGAIN = 2
# A daemon knows the clock of the service by whole seconds, from the Date of its answers.
WHOLE_SECOND = 1.0


class Place:
    """One place at which one consumer finds one identity's token."""

    def __init__(self, node, kind, name):
        self.node, self.kind, self.name = node, kind, name
        self.version, self.token, self.why = 0, None, None
        self.dead_since = None
        # When the last token that it had ends, and how long that was still to come when it was missed.
        self.ends = self.left = 0.0
        # When it was last looked for.
        self.asked = 0.0

    def __str__(self):
        return f"{self.name}, {self.kind} of {self.node}"

    def has_just_ended(self):
        return self.why == "expired" and self.asked - self.ends < WHOLE_SECOND


class Reader:
    """Asks one node's socket over one connection, again after it broke."""

    def __init__(self, node):
        self.path, self.stream = str(node.socket), None

    def ask(self, name, version):
        """Status and body; 304 where the version is still the newest. Fails with OSError."""
        for fresh in (False, True):
            try:
                return self.once(name, version)
            except (OSError, ValueError, IndexError):
                was_kept, self.stream = self.stream and not fresh, None
                if not was_kept:
                    raise OSError(f"{self.path} does not answer") from None

    def once(self, name, version):
        if not self.stream:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(5)
            connection.connect(self.path)
            self.stream = connection.makefile("rwb", buffering=65536)
            self.fresh = True
        self.stream.write(f'GET /v1/tokens/{name} HTTP/1.1\r\nHost: localhost\r\nX-Renewd-Client: checker\r\nIf-None-Match: "{version}"\r\n\r\n'.encode())
        self.stream.flush()
        status = int(self.stream.readline().split()[1])
        length, closes = 0, False
        while (line := self.stream.readline().strip().lower()):
            if line.startswith(b"content-length:"):
                length = int(line[15:])
            closes |= line == b"connection: close"
        body = self.stream.read(length)
        if closes:
            self.stream = None
        return status, body


class Checker:
    """Polls in a thread of its own, from `start` until `stop`. What it found is in `gaps`, `falls` and `dead_served`."""

    def __init__(self, stage, nodes, names, every=1.0):
        self.stage, self.nodes, self.names, self.every = stage, nodes, names, every
        self.places = [Place(node.name, kind, name) for node in nodes for kind in ("socket", "file") for name in names]
        self.readers = {node.name: Reader(node) for node in nodes}
        self.by_name = {node.name: node for node in nodes}
        self.hook = {name: Place("the receiver", "webhook", name) for name in names}
        self.inodes, self.heard, self.event_ids = {}, 0, {}
        self.gaps, self.falls, self.dead_served, self.duplicates = [], [], [], []
        self.looks, self.rounds = 0, []
        # Nodes whose places are not counted at the moment: they are stopped or cut off on purpose.
        self.away = {}
        self.lags = []
        self.trouble, self.ending = None, threading.Event()
        self.lock = threading.Lock()

    def __enter__(self):
        self.thread = threading.Thread(target=self.poll_on, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.ending.set()
        self.thread.join(60)
        now = time.monotonic()
        for place in [*self.places, *self.hook.values()]:
            self.close(place, now)
        if self.trouble:
            raise self.trouble

    @contextlib.contextmanager
    def without(self, node, *kinds):
        """Places of this node (or only of these kinds) do not count meanwhile."""
        self.ignore(node, *kinds)
        try:
            yield
        finally:
            self.count(node)

    def ignore(self, node, *kinds):
        with self.lock:
            self.away[node.name] = kinds or ("socket", "file")

    def count(self, node, *kinds):
        """All places of this node (or those of these kinds) count again."""
        with self.lock:
            left = tuple(kind for kind in self.away.pop(node.name, ()) if kinds and kind not in kinds)
            if left:
                self.away[node.name] = left

    def poll_on(self):
        try:
            while not self.ending.is_set():
                began = time.monotonic()
                with self.lock:
                    self.look()
                self.rounds.append(time.monotonic() - began)
                self.ending.wait(max(0.0, self.every - self.rounds[-1]))
        except Exception as error:  # told to whoever stops it
            self.trouble = error

    # ------------------------------------------------------------------ one round

    def look(self):
        self.listen()
        counted = [place for place in self.places if place.kind not in self.away.get(place.node, ())]
        for place in self.places:
            if place in counted:
                continue
            place.dead_since = None
        for place in counted:
            self.read(place)
        places = [*counted, *self.hook.values()]
        for again in range(LOOKS_AGAIN + 1):
            reasons = self.judge(places)
            doubted = [place for place in places if not place.token or place.token in reasons]
            if not doubted or again == LOOKS_AGAIN:
                break
            self.listen()
            for place in doubted:
                if place.kind != "webhook":
                    self.read(place)
        now = time.monotonic()
        for place in places:
            if place.token and place.token not in reasons:
                self.close(place, now)
                continue
            place.why = reasons.get(place.token) or place.why
            if place.kind == "webhook" and not place.version:
                continue
            if not place.dead_since:
                place.dead_since, place.left = now, place.ends - time.time()
            if place.kind == "socket" and place.token and not place.has_just_ended():
                self.dead_served.append((str(place), place.version, place.why))
        self.looks += len(places)

    def judge(self, places):
        tokens = list({place.token for place in places if place.token})
        return self.stage.emulator.judge(tokens) if tokens else {}

    def read(self, place):
        place.asked = time.time()
        if place.kind == "file":
            self.read_file(place)
        else:
            self.read_socket(place)

    def read_file(self, place):
        path = self.by_name[place.node].file(place.name)
        try:
            seen = path.stat()
            if self.inodes.get(path) == (seen.st_ino, seen.st_mtime_ns):
                return
            document = json.loads(path.read_bytes())
        except FileNotFoundError:
            place.token, place.why = None, "there is no file"
            return
        self.inodes[path] = (seen.st_ino, seen.st_mtime_ns)
        self.take(place, document)

    def read_socket(self, place):
        try:
            status, body = self.readers[place.node].ask(place.name, place.version if place.token else 0)
        except OSError as error:
            place.token, place.why = None, str(error)
            return
        if status == 200:
            self.take(place, json.loads(body))
        elif status != 304:
            place.token, place.why = None, f"{status} {json.loads(body or b'{}').get('type', '')}"

    def listen(self):
        events, self.heard = self.stage.receiver.taken[self.heard :], len(self.stage.receiver.taken)
        for _, event_id, event in events:
            document = event["data"]
            if "version" not in document or document["name"] not in self.hook:
                continue
            same = self.event_ids.setdefault((document["name"], document["version"], event["type"]), event_id)
            if same != event_id:
                self.duplicates.append((document["name"], document["version"]))
            self.take(self.hook[document["name"]], document)

    def take(self, place, document):
        if document["version"] < place.version:
            self.falls.append((str(place), place.version, document["version"]))
        place.version, place.token, place.why = document["version"], document["token"], document["state"]
        if ends := document.get("expires_at"):
            place.ends = datetime.datetime.fromisoformat(ends).timestamp()

    def close(self, place, now):
        if place.dead_since:
            self.gaps.append((str(place), now - place.dead_since, place.why, place.left))
        place.dead_since = None

    # ------------------------------------------------------------------ what it saw

    def all_live(self):
        """Whether its newest look found a live token at every place that counts."""
        with self.lock:
            self.look()
            counted = [place for place in self.places if place.kind not in self.away.get(place.node, ())]
            return all(place.token and not place.dead_since for place in counted)

    def longest_gap(self):
        return max((gap[1] for gap in self.gaps), default=0.0)

    def missed(self):
        """Gaps that began while the last token of the place lived."""
        return [gap for gap in self.gaps if gap[3] > WHOLE_SECOND]

    def figures(self):
        pace = f"every {statistics.median(self.rounds) + 0:.1f} s" if self.rounds and max(self.rounds) > self.every else f"every {self.every:g} s"
        text = f"{self.looks} looks at {len(self.places)} places and the webhook, {pace}"
        text += f"; without a live token {len(self.gaps)}" + (f", the longest {self.longest_gap():.1f} s" if self.gaps else "")
        return text + f"; versions that fell {len(self.falls)}; dead tokens served {len(self.dead_served)}"

    def told(self, limit=6):
        worst = sorted(self.gaps, key=lambda gap: -gap[1])[:limit]
        lines = [f"no live token for {length:.1f} s at {place} ({why})" for place, length, why, _ in worst]
        lines += [f"version fell from {before} to {after} at {place}" for place, before, after in self.falls[:limit]]
        lines += [f"a dead token was served ({why}), version {version}, by {place}" for place, version, why in self.dead_served[:limit]]
        lines += [f"version {version} of {name} came as two events" for name, version in self.duplicates[:limit]]
        return "\n".join(lines)

    def expect_nothing(self, gap=0.0):
        """Nobody was without a live token for longer than that, and no version fell."""
        bad = self.falls or self.dead_served or self.duplicates or self.longest_gap() > gap
        if bad:
            raise AssertionError(f"{self.figures()}\n{self.told()}")
