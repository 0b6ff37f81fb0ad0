"""A network of the tests' own: each node in a network namespace, and TCP proxies on its way out that can be frozen, cut,
and made to lose the answer to a commit."""

import asyncio
import ctypes
import fcntl
import os
import socket
import struct
import threading

CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
libc = ctypes.CDLL(None, use_errno=True)


def in_thread(action):
    """What `action` returns, done by a thread that ends with it: a namespace is a matter of threads."""
    result = []

    def act():
        try:
            result.append((action(), None))
        except BaseException as error:  # handed to whoever waits
            result.append((None, error))

    thread = threading.Thread(target=act)
    thread.start()
    thread.join()
    value, error = result[0]
    if error:
        raise error
    return value


class Namespace:
    """A network with nothing but its own loopback, so that the same addresses mean something else in each."""

    def __init__(self):
        self.handle = in_thread(self.make)

    @staticmethod
    def make():
        if libc.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "cannot make a network namespace")
        with socket.socket() as any_socket:
            request = bytearray(struct.pack("16sH22x", b"lo", 0))
            fcntl.ioctl(any_socket, SIOCGIFFLAGS, request)
            flags = struct.unpack_from("H", request, 16)[0] | IFF_UP
            struct.pack_into("H", request, 16, flags)
            fcntl.ioctl(any_socket, SIOCSIFFLAGS, request)
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def enter(self):
        """This thread, or the child that is about to become a program, lives in it from now on."""
        if libc.setns(self.handle, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "cannot enter the network namespace")

    def listen(self, port):
        def bound():
            self.enter()
            return socket.create_server(("127.0.0.1", port), backlog=256)

        return in_thread(bound)

    def close(self):
        os.close(self.handle)


class Network:
    """Runs every link, in one thread."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def link(self, listener, target, connection=None):
        return Link(self, listener, target, connection or Passing)

    def do(self, task):
        return asyncio.run_coroutine_threadsafe(task, self.loop).result(30)

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)


class Link:
    """Whoever connects to `listener` speaks with `target`, as long as the link lets them."""

    def __init__(self, network, listener, target, connection):
        self.network, self.listener, self.target, self.connection = network, listener, target, connection
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.refusing = False
        self.open = set()
        # Calls of ACS that went this way.
        self.calls = 0
        # What the next commit that wrote something meets: "lose" its answer, or "hold" it back before it is sent.
        self.next_commit = None
        self.met, self.released = threading.Event(), asyncio.Event()
        # Called with the head of each request; True holds it back until `release`.
        self.hold_request = None
        self.server = network.do(asyncio.start_server(self.take, sock=listener))

    async def take(self, reader, writer):
        if self.refusing:
            writer.transport.abort()
            return
        await self.flowing.wait()
        try:
            far = await asyncio.open_connection(*self.target)
        except OSError:
            writer.transport.abort()
            return
        one = self.connection(self, (reader, writer), far)
        self.open.add(one)
        try:
            await one.run()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open.discard(one)
            one.abort()

    def on_loop(self, action):
        done = threading.Event()
        self.network.loop.call_soon_threadsafe(lambda: (action(), done.set()))
        done.wait(30)

    def freeze(self):
        """Nothing goes through any more, and nobody is told."""
        self.on_loop(self.flowing.clear)

    def thaw(self):
        self.on_loop(self.flowing.set)

    def cut(self):
        """Every connection breaks, and new ones are refused."""
        self.refusing = True
        self.on_loop(lambda: [one.abort() for one in list(self.open)])

    def mend(self):
        self.refusing = False
        self.thaw()

    def repair(self):
        """As if nobody had touched it."""
        self.next_commit = self.hold_request = None
        self.release()
        self.mend()

    def lose_next_commit(self):
        self.met.clear()
        self.next_commit = "lose"

    def hold_next_commit(self):
        self.met.clear()
        self.on_loop(self.released.clear)
        self.next_commit = "hold"

    def hold_next_request(self, chosen):
        self.met.clear()
        self.on_loop(self.released.clear)
        self.hold_request = chosen

    def release(self):
        self.on_loop(self.released.set)

    def close(self):
        self.cut()
        self.on_loop(self.server.close)


class Passing:
    """One connection, whatever it says."""

    def __init__(self, link, near, far):
        self.link, self.near, self.far = link, near, far

    async def run(self):
        pumps = [asyncio.create_task(self.forth()), asyncio.create_task(self.back())]
        done, left = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        # What the far side still has to say is let through, where only the near one has ended.
        if left and pumps[0] in done and not pumps[0].exception():
            await asyncio.wait(left, timeout=5)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

    async def forth(self):
        await self.pump(self.near[0], self.far[1], self.sent)

    async def back(self):
        await self.pump(self.far[0], self.near[1], self.answered)

    async def pump(self, reader, writer, seen):
        while data := await reader.read(65536):
            await self.link.flowing.wait()
            data = await seen(data)
            await self.link.flowing.wait()
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    async def sent(self, data):
        self.link.calls += data.count(b"/identities")
        chosen = self.link.hold_request
        if chosen and chosen(data):
            self.link.hold_request = None
            self.link.met.set()
            await self.link.released.wait()
        return data

    async def answered(self, data):
        return data

    def abort(self):
        for _, writer in (self.near, self.far):
            writer.transport.abort()


class Postgres(Passing):
    """A connection in PostgreSQL's protocol, plain, of which the messages are told apart."""

    STARTUP, WRITES = 196608, (b"INSERT", b"UPDATE", b"DELETE")

    def __init__(self, *rest):
        super().__init__(*rest)
        self.started = False
        self.wishes = 0  # for encryption, each answered by one byte
        self.rest = {"sent": b"", "answered": b""}
        self.wrote = False
        self.commits = set()  # names of prepared statements that say COMMIT

    async def sent(self, data):
        data = self.rest["sent"] + data
        whole, out = 0, b""
        while True:
            head = 1 if self.started else 0
            if len(data) < whole + head + 4:
                break
            length = head + struct.unpack_from("!I", data, whole + head)[0]
            if len(data) < whole + length:
                break
            message = data[whole : whole + length]
            whole += length
            if self.link.next_commit == "hold" and self.wrote and self.is_commit(message):
                self.link.next_commit = None
                self.far[1].write(out)
                await self.far[1].drain()
                out = b""
                self.link.met.set()
                await self.link.released.wait()
            elif not self.started:
                code = struct.unpack_from("!I", message, 4)[0]
                self.started = code == self.STARTUP
                self.wishes += code in (80877103, 80877104)
            out += message
        self.rest["sent"] = data[whole:]
        return out

    def is_commit(self, message):
        kind, body = message[:1], message[5:]
        if kind == b"Q":
            return body.strip(b"\0 ;\n").upper().endswith(b"COMMIT")
        if kind == b"P":
            name, text, *_ = body.split(b"\0")
            if text.strip(b" ;\n").upper() == b"COMMIT":
                self.commits.add(name)
        if kind == b"B":
            return body.split(b"\0")[1] in self.commits
        return False

    async def answered(self, data):
        data = self.rest["answered"] + data
        whole, out = 0, b""
        if self.wishes and data:
            out, data = data[: self.wishes], data[self.wishes :]
            self.wishes -= len(out)
        while len(data) >= whole + 5:
            length = 1 + struct.unpack_from("!I", data, whole + 1)[0]
            if len(data) < whole + length:
                break
            message = data[whole : whole + length]
            whole += length
            if message[:1] == b"C":
                tag = message[5:].rstrip(b"\0")
                if tag == b"COMMIT" and self.wrote and self.link.next_commit == "lose":
                    self.link.next_commit = None
                    self.link.met.set()
                    raise ConnectionResetError
                words = tag.split()
                changed = words[0] in self.WRITES and words[-1] != b"0"
                self.wrote = changed or (self.wrote and words[0] not in (b"BEGIN", b"START", b"COMMIT"))
            out += message
        self.rest["answered"] = data[whole:]
        return out
