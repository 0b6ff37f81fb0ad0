"""Leads a TCP port of the loopback to a Unix socket, for programs that know no Unix sockets. Prints the port."""

import asyncio
import sys


async def pump(reader, writer):
    try:
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def lead(reader, writer):
    try:
        inner_reader, inner_writer = await asyncio.open_unix_connection(sys.argv[1])
    except OSError:
        writer.close()
        return
    await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))


async def main():
    server = await asyncio.start_server(lead, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
