"""A receiver made of docs/receivers/verify.py.

Says `port=N`, then one JSON line for each request. Secrets are the arguments.
"""
import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "docs/receivers"))
from verify import Refused, verify  # noqa: E402

versions = {}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            event = verify(sys.argv[1:], self.headers, body, versions)
            status, verdict = 200, "new" if event else "old"
        except Refused as why:
            event, status, verdict = None, 401, str(why)
        kind = event and event["type"]
        print(json.dumps({"path": self.path, "verdict": verdict, "type": kind}), flush=True)
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Handler)
print(f"port={server.server_port}", flush=True)
server.serve_forever()
