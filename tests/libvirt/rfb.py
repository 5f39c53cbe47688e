"""The beginning of a VNC session (RFC 6143): whether a server lets somebody in with a password.

Run as a program it is the client, so that a test can put it into the network namespace from which hosts are reached.
VNC's authentication is a DES of the server's challenge, with the bits of each byte of the password turned round; no
library that comes with Python has DES, so it stands below (FIPS 46-3, its own tables).
"""

from __future__ import annotations

import socket
import subprocess
import sys

VNC_AUTHENTICATION = 2
TIMEOUT_S = 10.0


def opens_screen(namespace: str, host: str, port: int, password: str) -> bool:
    """Whether the server takes the password; raises where it is no VNC server or does not answer."""
    command = ["ip", "netns", "exec", namespace, sys.executable, __file__, host, str(port), password]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S * 2, check=False)
    assert ended.stdout.strip() in ("open", "closed"), ended.stderr
    return ended.stdout.strip() == "open"


def handshake(host: str, port: int, password: str) -> bool:
    with socket.create_connection((host, port), timeout=TIMEOUT_S) as server:
        version = _read(server, 12)
        assert version.startswith(b"RFB 003."), version
        server.sendall(b"RFB 003.008\n")
        kinds = _read(server, _read(server, 1)[0])
        assert kinds == bytes([VNC_AUTHENTICATION]), f"the server offers {list(kinds)}"
        server.sendall(kinds)
        server.sendall(answer_of(password, _read(server, 16)))
        return _read(server, 4) == bytes(4)


def _read(server: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = server.recv(size - len(data))
        assert part, "the server hung up"
        data += part
    return data


def answer_of(password: str, challenge: bytes) -> bytes:
    key = password.encode()[:8].ljust(8, b"\0")
    turned = bytes(int(f"{byte:08b}"[::-1], 2) for byte in key)
    return b"".join(des(turned, challenge[at : at + 8]) for at in range(0, len(challenge), 8))


# fmt: off
_IP = [
    58, 50, 42, 34, 26, 18, 10, 2, 60, 52, 44, 36, 28, 20, 12, 4, 62, 54, 46, 38, 30, 22, 14, 6, 64, 56, 48, 40, 32, 24,
    16, 8, 57, 49, 41, 33, 25, 17, 9, 1, 59, 51, 43, 35, 27, 19, 11, 3, 61, 53, 45, 37, 29, 21, 13, 5, 63, 55, 47, 39,
    31, 23, 15, 7,
]
_E = [
    32, 1, 2, 3, 4, 5, 4, 5, 6, 7, 8, 9, 8, 9, 10, 11, 12, 13, 12, 13, 14, 15, 16, 17, 16, 17, 18, 19, 20, 21, 20, 21,
    22, 23, 24, 25, 24, 25, 26, 27, 28, 29, 28, 29, 30, 31, 32, 1,
]
_P = [
    16, 7, 20, 21, 29, 12, 28, 17, 1, 15, 23, 26, 5, 18, 31, 10, 2, 8, 24, 14, 32, 27, 3, 9, 19, 13, 30, 6, 22, 11, 4,
    25,
]
_PC1 = [
    57, 49, 41, 33, 25, 17, 9, 1, 58, 50, 42, 34, 26, 18, 10, 2, 59, 51, 43, 35, 27, 19, 11, 3, 60, 52, 44, 36, 63, 55,
    47, 39, 31, 23, 15, 7, 62, 54, 46, 38, 30, 22, 14, 6, 61, 53, 45, 37, 29, 21, 13, 5, 28, 20, 12, 4,
]
_PC2 = [
    14, 17, 11, 24, 1, 5, 3, 28, 15, 6, 21, 10, 23, 19, 12, 4, 26, 8, 16, 7, 27, 20, 13, 2, 41, 52, 31, 37, 47, 55, 30,
    40, 51, 45, 33, 48, 44, 49, 39, 56, 34, 53, 46, 42, 50, 36, 29, 32,
]
_SHIFTS = [1, 1, 2, 2, 2, 2, 2, 2, 1, 2, 2, 2, 2, 2, 2, 1]
_S = [
    "e4d12fb83a6c59070f74e2d1a6cb953841e8d62bfc973a50fc8249175b3ea06d",
    "f18e6b34972dc05a3d47f28ec01a69b50e7ba4d158c6932fd8a13f42b67c05e9",
    "a09e63f51dc7b428d709346a285ecbf1d6498f30b12c5ae71ad069874fe3b52c",
    "7de3069a1285bc4fd8b56f03472c1ae9a690cb7df13e52843f06a1d8945bc72e",
    "2c417ab6853fd0e9eb2c47d150fa3986421bad78f9c5630eb8c71e2d6f09a453",
    "c1af92680d34e75baf427c9561de0b389ef528c3704a1db6432c95fabe17608d",
    "4b2ef08d3c975a61d0b7491ae35c2f8614bdc37eaf6805926bd814a7950fe23c",
    "d2846fb1a93e50c71fd8a374c56b0e927b419ce206adf35821e74a8dfc90356b",
]
# fmt: on


def _permuted(bits: str, table: list[int]) -> str:
    return "".join(bits[place - 1] for place in table)


def _xored(one: str, other: str) -> str:
    return "".join("1" if a != b else "0" for a, b in zip(one, other, strict=True))


def des(key: bytes, block: bytes) -> bytes:
    """One block of eight bytes, as bits in text: slow, and plain to read."""
    halves = _permuted("".join(f"{byte:08b}" for byte in key), _PC1)
    left_key, right_key = halves[:28], halves[28:]
    bits = _permuted("".join(f"{byte:08b}" for byte in block), _IP)
    left, right = bits[:32], bits[32:]
    for shift in _SHIFTS:
        left_key, right_key = left_key[shift:] + left_key[:shift], right_key[shift:] + right_key[:shift]
        mixed = _xored(_permuted(right, _E), _permuted(left_key + right_key, _PC2))
        left, right = right, _xored(left, _permuted(_substituted(mixed), _P))
    swapped = right + left
    final = "".join(swapped[_IP.index(place)] for place in range(1, 65))
    return int(final, 2).to_bytes(8, "big")


def _substituted(bits: str) -> str:
    said = ""
    for number, box in enumerate(_S):
        six = bits[6 * number : 6 * number + 6]
        at = int(six[0] + six[5], 2) * 16 + int(six[1:5], 2)
        said += f"{int(box[at], 16):04b}"
    return said


if __name__ == "__main__":
    print("open" if handshake(sys.argv[1], int(sys.argv[2]), sys.argv[3]) else "closed")
