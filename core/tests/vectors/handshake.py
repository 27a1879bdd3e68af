#!/usr/bin/env python3
"""Computes the outputs in handshake.json from its inputs, from PROTOCOL.md alone; needs the package `cryptography`.

A second implementation: nothing here is taken from the first. Run it to write the file anew.
"""

import hashlib
import hmac
import json
import pathlib

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

RAW = (serialization.Encoding.Raw, serialization.PublicFormat.Raw)
FIRST_MESSAGE_BYTES = 192


def mac(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


def expand(secret, label, length=32):
    return mac(secret, label + b"\x01")[:length]


def public(private):
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes(*RAW)


def dh(private, peer):
    return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(peer))


def varint(value):
    for bits, prefix, length in ((6, 0, 1), (14, 1, 2), (30, 2, 4), (62, 3, 8)):
        if value < 1 << bits:
            return (prefix << (8 * length - 2) | value).to_bytes(length, "big")
    raise ValueError(value)


def parameters(*values):
    return b"".join(varint(i) + varint(len(varint(v))) + varint(v) for i, v in enumerate(values, 1))


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


class Symmetric:
    """Noise revision 34, section 5.2, with SHA256 and ChaChaPoly."""

    def __init__(self, name, prologue):
        self.h = hashlib.sha256(name).digest() if len(name) > 32 else name.ljust(32, b"\0")
        self.ck, self.k, self.n = self.h, None, 0
        self.mix_hash(prologue)

    def mix_hash(self, data):
        self.h = hashlib.sha256(self.h + data).digest()

    def hkdf(self, material, count):
        secret, out = mac(self.ck, material), [b""]
        for i in range(1, count + 1):
            out.append(mac(secret, out[-1] + bytes([i])))
        return out[1:]

    def mix_key(self, material):
        self.ck, self.k = self.hkdf(material, 2)
        self.n = 0

    def mix_key_and_hash(self, material):
        self.ck, mixed, key = self.hkdf(material, 3)
        self.mix_hash(mixed)
        self.k, self.n = key, 0

    def encrypt_and_hash(self, plain):
        sealed = plain
        if self.k:
            nonce = bytes(4) + self.n.to_bytes(8, "little")
            sealed = ChaCha20Poly1305(self.k).encrypt(nonce, plain, self.h)
            self.n += 1
        self.mix_hash(sealed)
        return sealed

    def split(self):
        return self.hkdf(b"", 2)


def packets(suite, secrets):
    out = {}
    for name, secret in zip(("initiator", "responder"), secrets):
        for number in (0, 1):
            key, iv = expand(secret, b"bondwire key"), expand(secret, b"bondwire iv", 12)
            nonce = bytes(a ^ b for a, b in zip(iv, number.to_bytes(12, "big")))
            header = bytes([number << 2, number])
            aead = {1: AESGCM, 2: ChaCha20Poly1305}[suite](key)
            out[f"{name} packet {number}"] = header + aead.encrypt(nonce, b"\x01", header)
            secret = expand(secret, b"bondwire ku")
    return out


def pairing(i):
    root = mac(b"bondwire pair", i["pairing token"])
    return expand(root, b"bondwire pair id", 8), expand(root, b"bondwire pair psk")


def open_bond(i, token=None):
    """An OPEN; with the id and the key of a token, one that pairs."""
    prefix = bytes([0x81, 1, 0]) if token is None else bytes([0x81, 1, 1]) + token[0]
    pattern = b"XX" if token is None else b"XXpsk3"
    noise = Symmetric(b"Noise_" + pattern + b"_25519_ChaChaPoly_SHA256", b"bondwire 1" + prefix)
    s_i, s_r = i["initiator static private"], i["responder static private"]
    e_i, e_r = i["OPEN initiator ephemeral private"], i["OPEN responder ephemeral private"]

    tag_bytes = 0 if token is None else 16
    payload = bytes([2, 1, 2]).ljust(FIRST_MESSAGE_BYTES - len(prefix) - 32 - tag_bytes, b"\0")
    noise.mix_hash(public(e_i))
    if token is not None:
        noise.mix_key(public(e_i))
    open1 = prefix + public(e_i) + noise.encrypt_and_hash(payload)

    noise.mix_hash(public(e_r))
    if token is not None:
        noise.mix_key(public(e_r))
    noise.mix_key(dh(e_r, public(e_i)))
    static = noise.encrypt_and_hash(public(s_r))
    noise.mix_key(dh(s_r, public(e_i)))
    payload = bytes([1]) + i["responder random"] + parameters(65535, 5000, 100, 0, 4096)
    open2 = b"\x82" + public(e_r) + static + noise.encrypt_and_hash(payload)

    static = noise.encrypt_and_hash(public(s_i))
    noise.mix_key(dh(s_i, public(e_r)))
    if token is not None:
        noise.mix_key_and_hash(token[1])
    payload = i["initiator random"] + i["attempt id"] + varint(0) + b"\0" + parameters(1400, 5000, 100, 120_000, 4096)
    open3 = b"\x83" + static + noise.encrypt_and_hash(payload)
    secrets = noise.split()

    verdict = ChaCha20Poly1305(expand(secrets[1], b"bondwire verdict"))
    open4 = b"\x84" + verdict.encrypt(bytes(12), b"\0" + varint(0) + i["responder random"], b"\x84")

    material = i["initiator random"] + i["responder random"] + public(s_i) + public(s_r)
    bond = mac(b"bondwire bond", material)
    close = {who: expand(bond, b"bondwire close " + who) for who in (b"i", b"r")}
    closing = b"bondwire close" + (7).to_bytes(8, "big") + b"bye"
    return bond, {
        "OPEN1": open1,
        "OPEN2": open2,
        "OPEN3": open3,
        "OPEN4": open4,
        "initiator secret": secrets[0],
        "responder secret": secrets[1],
        "bond secret": bond,
        "bond id": expand(bond, b"bondwire bond id", 16),
        "join secret": expand(bond, b"bondwire join"),
        "CLOSE MAC of the initiator, code 7, reason bye": mac(close[b"i"], closing)[:16],
        "CLOSE MAC of the responder, code 7, reason bye": mac(close[b"r"], closing)[:16],
        **packets(1, secrets),
    }


def join_bond(i, bond):
    prefix = bytes([0x85, 1]) + expand(bond, b"bondwire bond id", 16)
    noise = Symmetric(b"Noise_NNpsk0_25519_ChaChaPoly_SHA256", b"bondwire 1 join" + prefix)
    e_i, e_r = i["JOIN initiator ephemeral private"], i["JOIN responder ephemeral private"]

    noise.mix_key_and_hash(expand(bond, b"bondwire join"))
    noise.mix_hash(public(e_i))
    noise.mix_key(public(e_i))
    payload = varint(1) + varint(0 + 1) + bytes([2, 2, 1]) + parameters(1400, 5000, 100, 120_000, 4096)
    payload = payload.ljust(FIRST_MESSAGE_BYTES - 18 - 32 - 16, b"\0")
    join1 = prefix + public(e_i) + noise.encrypt_and_hash(payload)

    noise.mix_hash(public(e_r))
    noise.mix_key(public(e_r))
    noise.mix_key(dh(e_r, public(e_i)))
    payload = bytes([0, 2]) + varint(0) + parameters(65535, 5000, 100, 0, 4096)
    join2 = b"\x86" + public(e_r) + noise.encrypt_and_hash(payload)
    secrets = noise.split()
    return {
        "JOIN1": join1,
        "JOIN2": join2,
        "initiator secret": secrets[0],
        "responder secret": secrets[1],
        **packets(2, secrets),
    }


def plain():
    secret, number = bytes(32), 0x1_0000_0005
    key, iv = expand(secret, b"bondwire key"), expand(secret, b"bondwire iv", 12)
    nonce = bytes(a ^ b for a, b in zip(iv, number.to_bytes(12, "big")))
    header, payload = bytes([0, number & 0xFF]), b"\x01"
    tag = crc32c(key[:4] + nonce + header + payload).to_bytes(4, "little")
    return {"key": key, "iv": iv, "nonce": nonce, "header": header, "payload": payload, "tag": tag}


def main():
    path = pathlib.Path(__file__).with_suffix(".json")
    inputs = {name: bytes.fromhex(value) for name, value in json.loads(path.read_text())["inputs"].items()}
    bond, opened = open_bond(inputs)
    token = pairing(inputs)
    paired = {"token id": token[0], "pre-shared key": token[1], **open_bond(inputs, token)[1]}
    parts = {"inputs": inputs, "open": opened, "pair": paired, "join": join_bond(inputs, bond), "none": plain()}
    text = {part: {name: value.hex() for name, value in values.items()} for part, values in parts.items()}
    path.write_text(json.dumps(text, indent=2) + "\n")


if __name__ == "__main__":
    main()
