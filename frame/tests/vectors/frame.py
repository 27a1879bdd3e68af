#!/usr/bin/env python3
"""The vectors of PROTOCOL.md, section 12: a second implementation, written from that text alone.

    python3 frame.py > frame.json
"""
import json
import struct

HELLO, DATA, CREDIT, CLOSE, MESSAGE = 1, 2, 3, 4, 5
DIALER_NONCE, ACCEPTOR_NONCE = 0x0102030405060708, 0x1112131415161718


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


EPOCH = struct.pack(">QQ", DIALER_NONCE, ACCEPTOR_NONCE)


def frame(kind, count, payload, epoch=EPOCH):
    checked = struct.pack(">BI", kind, count) + payload
    return checked + struct.pack("<I", crc32c(epoch + checked))


def cobs(data):
    line = b""
    while True:
        zero = data.find(b"\0")
        run = data[: zero if zero >= 0 else len(data)][:254]
        line += bytes([len(run) + 1]) + run
        ended_by_zero = len(run) < 254 and zero >= 0
        data = data[len(run) + ended_by_zero :]
        if not data and not ended_by_zero:
            return line + b"\0"


def hello(role, answer, mtu, buffer, read, nonce, peer):
    payload = struct.pack(">BBBHIIHQQ", 1, role, answer, mtu, buffer, read, 1000, nonce, peer)
    return frame(HELLO, 0, payload, epoch=b"")


def transfer(frames, packet):
    data = b"".join(struct.pack(">H", len(f)) + f for f in frames)
    return data + (b"\0" if data and len(data) % packet == 0 else b"")


BIG = bytes(n * 7 % 256 for n in range(300))
SESSION = [
    ("dialer", "HELLO, the peer unknown", hello(0, 1, 631, 2048, 0, DIALER_NONCE, 0)),
    ("acceptor", "HELLO, has heard the dialer", hello(1, 1, 631, 1024, 512, ACCEPTOR_NONCE, DIALER_NONCE)),
    ("dialer", "HELLO, has heard the acceptor, wants no answer", hello(0, 0, 631, 2048, 0, DIALER_NONCE, ACCEPTOR_NONCE)),
    ("dialer", "DATA", frame(DATA, 0, b"first")),
    ("dialer", "DATA, 300 bytes", frame(DATA, 14, BIG)),
    ("dialer", "MESSAGE", frame(MESSAGE, 323, b"aside")),
    ("acceptor", "CREDIT, limit 1347", frame(CREDIT, 0, struct.pack(">I", 1347))),
    ("acceptor", "DATA", frame(DATA, 0, b"answer")),
    ("dialer", "CLOSE", frame(CLOSE, 323, b"\0")),
]
COBS = [b"\0", b"\0\0", b"\x11\x22\0\x33", b"\x11\0\0\0", bytes(range(1, 255)), bytes(range(1, 256)), b"\0" + bytes(range(1, 255)), bytes(range(1, 255)) + b"\0"]
good = dict(role=0, answer=1, mtu=631, buffer=2048, read=0, nonce=1, peer=0)
BAD_HELLOS = [
    ("MTU of 255", dict(good, mtu=255)),
    ("buffer without room for a frame", dict(good, buffer=264)),
    ("buffer above 2^30", dict(good, buffer=(1 << 30) + 1)),
    ("no nonce", dict(good, nonce=0)),
    ("unknown role", dict(good, role=2)),
]


def payload(f):
    return f[5:-4].hex()


bad_hellos = [{"name": name, "payload": payload(hello(**fields))} for name, fields in BAD_HELLOS]
first = bytearray(bytes.fromhex(payload(hello(**good))))
bad_hellos.append({"name": "too short", "payload": first[:-1].hex()})
bad_hellos.append({"name": "no keep alive", "payload": (first[:13] + b"\0\0" + first[15:]).hex()})
bad_hellos.append({"name": "version 2", "payload": (b"\2" + first[1:]).hex()})

frames = [f for _, _, f in SESSION]
exact = [frame(DATA, 0, bytes(53))]
print(json.dumps({
    "nonces": {"dialer": "%016x" % DIALER_NONCE, "acceptor": "%016x" % ACCEPTOR_NONCE},
    "crc32c": [{"data": d.hex(), "crc": "%08x" % crc32c(d)} for d in (b"", b"123456789", bytes(32))],
    "cobs": [{"frame": d.hex(), "line": cobs(d).hex()} for d in COBS],
    "session": [{"from": w, "name": n, "frame": f.hex(), "line": cobs(f).hex()} for w, n, f in SESSION],
    "bad hellos": bad_hellos,
    "transfers": [
        {"name": "one frame", "packet size": 64, "frames": [frames[3].hex()], "transfer": transfer(frames[3:4], 64).hex()},
        {"name": "three frames", "packet size": 64, "frames": [f.hex() for f in frames[3:6]], "transfer": transfer(frames[3:6], 64).hex()},
        {"name": "padded", "packet size": 64, "frames": [f.hex() for f in exact], "transfer": transfer(exact, 64).hex()},
    ],
}, indent=1))
