"""Webhook receivers in processes of their own: one that takes everything, one that takes a connection and never answers."""

import asyncio
import multiprocessing
import socket
import time

ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


class Well(asyncio.Protocol):
    """Answers every request; no more of HTTP than the daemon and wrk speak."""

    def __init__(self, arrived):
        self.arrived, self.rest = arrived, b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.rest += data
        while (length := whole(self.rest)) is not None:
            self.rest = self.rest[length:]
            if self.arrived is not None:
                self.arrived.put(time.monotonic())
            self.transport.write(ANSWER)


def whole(data):
    """The length of the first request, once all of it is there."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    at = data.lower().find(b"content-length:", 0, end)
    length = end + 4 + (int(data[at + 15:data.find(b"\r\n", at)]) if at >= 0 else 0)
    return length if len(data) >= length else None


def serve(listener, kind, arrived):
    async def run():
        make = (lambda: Well(arrived)) if kind == "well" else asyncio.Protocol
        server = await asyncio.get_running_loop().create_server(make, sock=listener)
        await server.serve_forever()

    asyncio.run(run())


def start(kind, arrived=None):
    """The port and the process; it ends with this one."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    process = multiprocessing.Process(target=serve, args=(listener, kind, arrived), daemon=True)
    process.start()
    port = listener.getsockname()[1]
    listener.close()
    return port, process
