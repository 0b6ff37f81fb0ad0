"""Runs cases one after the other, and says of each what it saw, with its figure."""

import sys
import time
import traceback


class Report:
    def __init__(self, title):
        self.title, self.lines, self.failed = title, [], []

    def run(self, name, case, *arguments):
        began = time.monotonic()
        print(f"  ... {name}", flush=True)
        try:
            seen, mark = case(*arguments), "ok"
        except Exception as error:
            if not isinstance(error, AssertionError):
                traceback.print_exc()
            seen, mark = f"{type(error).__name__}: {error}", "FAILED"
            self.failed.append(name)
        took = time.monotonic() - began
        self.lines.append((name, mark, took, seen))
        print(f"{mark:>6} {name} ({took:.0f} s)\n       " + str(seen).replace("\n", "\n       "), flush=True)

    def end(self):
        """Prints the table and ends the program."""
        took = sum(line[2] for line in self.lines)
        print(f"\n{self.title}: {len(self.lines)} cases in {took:.0f} s, {len(self.failed)} failed")
        for name, mark, seconds, seen in self.lines:
            print(f"| {name} | {mark} | {seconds:.0f} s | {str(seen).splitlines()[0]} |")
        sys.exit(1 if self.failed else 0)
