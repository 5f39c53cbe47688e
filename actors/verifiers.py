"""What a password of a local account is kept as, and how one is checked against it.

    verifier = HMAC-SHA-256(key, name, Argon2id(password, salt))

The key is in a file beside the journals and in none of them, so a verifier read from a journal, a snapshot, SQL or a
copy of the database is nothing to guess passwords with. It is bound to its user's name: moved to another user it fits
nothing. A key that was lost cannot be had again; then passwords are set anew.

This module hashes in the caller's thread, for tens of milliseconds and 64 MiB: who calls it from where, and how many
at once, is `authentication.py`'s to bound.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import unicodedata
from pathlib import Path

import msgspec

from olvm.model.errors import JournalCorrupt, JournalUnwritable, NotSupportedYet, OlvmError

KEY_BYTES = 32
KEY_FILE = "verifiers.key"
SALT_BYTES = 16
HASH_BYTES = 32


class Cost(msgspec.Struct, frozen=True, array_like=True):
    """Of one Argon2id hash. The default is the second recommendation of RFC 9106 (section 4), for 64 MiB.

    Changed here, verifiers of another cost are replaced as their users log on.
    """

    passes: int = 3
    memory_kib: int = 65_536
    lanes: int = 4


class Verifier(msgspec.Struct, frozen=True, array_like=True):
    """The stored text is its JSON. `key_id` tells which key made it, and nothing else of the key."""

    cost: Cost
    salt: bytes
    key_id: str
    digest: bytes

    def __repr__(self) -> str:
        return "Verifier(…)"


class KeyLost(OlvmError):
    """The verifier was made under a key that is not there any more."""


class Verifiers:
    """Makes and checks verifiers under the key in `directory`, which is made when it is first needed."""

    def __init__(self, directory: Path, cost: Cost | None = None) -> None:
        self._path = directory / KEY_FILE
        self._cost = cost or Cost()
        self._key = b""

    def make(self, name: str, password: str) -> str:
        """Raises `NotSupportedYet` without argon2-cffi, `JournalUnwritable` if the key cannot be kept."""
        if not self._key:
            self._key = _read_key(self._path) or _make_key(self._path)
        salt = secrets.token_bytes(SALT_BYTES)
        digest = self._digest(name, password, salt, self._cost)
        made = Verifier(self._cost, salt, _key_id(self._key), digest)
        return msgspec.json.encode(made).decode()

    def fits(self, name: str, password: str, text: str) -> bool:
        """Whether the password is that of which `text` was made, for this name.

        Raises:
            KeyLost: nobody can say any more.
        """
        verifier = msgspec.json.decode(text, type=Verifier)
        if not self._key:
            self._key = _read_key(self._path)
        if not self._key or not hmac.compare_digest(_key_id(self._key), verifier.key_id):
            self.spend(password)
            raise KeyLost(
                f"the password of {name} was kept under a key that {self._path} does not hold; restore the file "
                "from a backup, or set the password anew"
            )
        digest = self._digest(name, password, verifier.salt, verifier.cost)
        return hmac.compare_digest(digest, verifier.digest)

    def is_stale(self, text: str) -> bool:
        """Whether hashes cost something else by now."""
        return msgspec.json.decode(text, type=Verifier).cost != self._cost

    def spend(self, password: str) -> None:
        """Take the time of a check where there is nothing to check: the clock tells nobody which users there are."""
        _argon2id(password, secrets.token_bytes(SALT_BYTES), self._cost)

    def _digest(self, name: str, password: str, salt: bytes, cost: Cost) -> bytes:
        told = name.encode() + b"\0" + _argon2id(password, salt, cost)  # no name holds a NUL
        return hmac.digest(self._key, told, hashlib.sha256)


def _argon2id(password: str, salt: bytes, cost: Cost) -> bytes:
    try:
        from argon2 import low_level
    except ImportError:
        raise NotSupportedYet(
            "passwords of local accounts need argon2-cffi where the engine runs: pip install 'olvm[sso]'"
        ) from None
    # The same text typed on two keyboards may differ in its code points: RFC 8265, 4.2.2.
    secret = unicodedata.normalize("NFC", password).encode()
    return low_level.hash_secret_raw(
        secret,
        salt,
        time_cost=cost.passes,
        memory_cost=cost.memory_kib,
        parallelism=cost.lanes,
        hash_len=HASH_BYTES,
        type=low_level.Type.ID,
    )


# ---------------------------------------------------------------- the key


def _key_id(key: bytes) -> str:
    return hmac.digest(key, b"olvm verifier key id", hashlib.sha256)[:6].hex()


def _read_key(path: Path) -> bytes:
    """Empty if there is none."""
    try:
        text = path.read_text(encoding="ascii").strip()
        key = bytes.fromhex(text)
    except FileNotFoundError:
        return b""
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise JournalCorrupt(f"{path} is no key of olvm; restore it, or move it away and set passwords anew")
    return key


def _make_key(path: Path) -> bytes:
    """A new key, on the disk before anything is made with it; the one that another thread made, if it was first."""
    waiting = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        try:
            _write_key(waiting, secrets.token_bytes(KEY_BYTES))
            with contextlib.suppress(FileExistsError):  # a key is never overwritten
                os.link(waiting, path)
        finally:
            waiting.unlink(missing_ok=True)
        _sync(path.parent)
    except OSError as error:
        raise JournalUnwritable(
            f"the key of verifiers cannot be kept in {path} ({error.strerror}); make room, or mend its permissions"
        ) from error
    return _read_key(path)


def _write_key(path: Path, key: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(file, "w") as out:
        out.write(key.hex() + "\n")
        out.flush()
        os.fsync(out.fileno())


def _sync(directory: Path) -> None:
    file = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
