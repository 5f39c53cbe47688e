"""Passwords: the gateway hands every ask that carries one to `Authentication`, and nothing else ever sees it.

Rules:
1. A password lives from the ask to its check, in memory. What leaves here is a command without it.
2. Checks run in threads of their own, bounded in number and in what waits: a flood of them, or a PAM that hangs, is
   felt by those who log on, and by no turn and no other client.
3. Who is refused hears one sentence, whether the user is unknown, disabled or the password wrong, after the same time.
4. Failures are counted (`back_off.py`) and told to the engine as `UserDenied`. A name that no user has is not told:
   people type passwords there.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import NamedTuple

import msgspec

from actors.back_off import BackOff
from actors.pam_accounts import PamAccounts
from actors.verifiers import KeyLost, Verifiers
from olvm.model import client_protocol as p
from olvm.model import messages as m
from olvm.model.errors import BadInput, Conflict, Denied, EngineUnreachable, NotSupportedYet, OlvmError
from olvm.model.limits import (
    HASHES_AT_ONCE_MAX,
    LOGON_FAILURES_ALERT,
    LOGON_UNKNOWN_TOLD_S,
    LOGONS_WAITING_MAX,
    PAM_CHECKS_AT_ONCE_MAX,
)
from olvm.model.user_names import check_password, check_session
from olvm.model.user_records import UserKind, UserStatus

log = logging.getLogger("olvm.authentication")

DENIED = "the logon was denied: there is no such user, or the password is wrong"
Outbound = m.UserDenied | m.Submit


class Account(NamedTuple):
    """A user as committed. `verifier` empty: it has no password here."""

    name: str
    kind: UserKind
    status: UserStatus
    revision: int
    verifier: str


class Client(NamedTuple):
    """Where the outcome of one ask goes: on to the engine, or back."""

    submit: Callable[[m.TrustedCommand | m.CreateUser], None]
    refuse: Callable[[OlvmError], None]


class Authentication:
    """May be handed asks from any thread; none of its methods waits for a check.

    Args:
        find: the user of that name as committed, None without one; called from threads of its own.
        tell: to the engine, without an answer.
        clock_s: never goes back.
    """

    def __init__(
        self,
        find: Callable[[str], Account | None],
        tell: Callable[[Outbound], None],
        verifiers: Verifiers,
        pam: PamAccounts,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._find = find
        self._tell = tell
        self._verifiers = verifiers
        self._pam = pam
        self._clock_s = clock_s
        self._hashing = ThreadPoolExecutor(HASHES_AT_ONCE_MAX, thread_name_prefix="password")
        self._asking_pam = ThreadPoolExecutor(PAM_CHECKS_AT_ONCE_MAX, thread_name_prefix="pam")
        # Guards what follows.
        self._lock = threading.Lock()
        self._waiting_count = 0
        self._back_off = BackOff()
        self._unknown_count = 0  # denials of users that do not exist, not told yet
        self._unknown_told_s = float("-inf")

    def take(self, ask: p.SetPassword | p.LogOn, client: Client) -> None:
        """Answer through `client`, sooner or later, once."""
        with self._lock:
            is_full = self._waiting_count >= LOGONS_WAITING_MAX
            self._waiting_count += not is_full
        if is_full:
            client.refuse(
                Conflict(f"{LOGONS_WAITING_MAX} passwords wait to be checked; try again in a moment")
            )
        elif isinstance(ask, p.SetPassword):
            self._run(self._hashing, lambda: self._set_password(ask, client), client)
        else:
            self._run(self._hashing, lambda: self._log_on(ask, client), client)

    def close(self) -> None:
        """What waits is refused; processes of PAM are ended."""
        self._hashing.shutdown(wait=False, cancel_futures=True)
        self._asking_pam.shutdown(wait=False, cancel_futures=True)
        self._pam.close()

    # ------------------------------------------------------------------ threads

    def _run(self, pool: Executor, step: Callable[[], bool], client: Client) -> None:
        """`step` says whether it was the last of its ask."""
        try:
            future = pool.submit(self._supervise, step, client)
        except RuntimeError:  # the pool is shut down
            self._stopped(client)
        else:
            future.add_done_callback(lambda ended: self._stopped(client) if ended.cancelled() else None)

    def _stopped(self, client: Client) -> None:
        self._done()
        client.refuse(EngineUnreachable("the engine is stopping; nothing was changed"))

    def _supervise(self, step: Callable[[], bool], client: Client) -> None:
        is_last = True
        try:
            is_last = step()
        except OlvmError as error:
            client.refuse(error)
        except Exception as fault:  # noqa: BLE001 - the supervisor of these threads: a client must get an answer
            # Where, and what kind; not its text, which may repeat what it was about.
            where = "".join(traceback.format_tb(fault.__traceback__))
            log.error("a password could not be checked: %s\n%s", type(fault).__name__, where)  # noqa: TRY400
            client.refuse(
                OlvmError(f"the password could not be checked ({type(fault).__name__}); see the log")
            )
        finally:
            if is_last:
                self._done()

    def _done(self) -> None:
        with self._lock:
            self._waiting_count -= 1

    # ------------------------------------------------------------------ passwords

    def _set_password(self, ask: p.SetPassword, client: Client) -> bool:
        check_password(ask.password)
        create = ask.create
        if create is not None and (create.kind == "pam" or create.name != ask.user or create.verifier):
            raise BadInput(f"user {ask.user}: a password is kept of a local account of that name alone")
        verifier = self._verifiers.make(ask.user, ask.password)
        if create is None:
            client.submit(m.SetVerifier(ask.user, verifier))
        else:
            client.submit(msgspec.structs.replace(create, verifier=verifier))
        return True

    # ------------------------------------------------------------------ logons

    def _log_on(self, ask: p.LogOn, client: Client) -> bool:
        check_password(ask.password)
        check_session(ask.session)
        failures = self._admit(ask.user)
        account = self._find_or_take_back(ask.user)
        if account is not None and account.kind == "pam" and account.status == "active":
            at_pam = account
            self._run(self._asking_pam, lambda: self._log_on_by_pam(ask, at_pam, failures, client), client)
            return False
        self._conclude(ask, account, failures, client, lambda: self._local_refusal(account, ask.password))
        return True

    def _log_on_by_pam(self, ask: p.LogOn, account: Account, failures: int, client: Client) -> bool:
        self._conclude(ask, account, failures, client, lambda: self._pam.refusal(account.name, ask.password))
        return True

    def _admit(self, name: str) -> int:
        """Charge one attempt; how many have failed in a row if this one does.

        Raises:
            Denied: too many have failed just now; this one was not looked at.
        """
        with self._lock:
            now_s = self._clock_s()
            wait_s = self._back_off.wait_s(name, now_s)
            if wait_s > 0:
                raise Denied(
                    f"too many logons of this user have failed; try again in {wait_s:.0f} s or later"
                )
            return self._back_off.charge(name, now_s)

    def _find_or_take_back(self, name: str) -> Account | None:
        try:
            return self._find(name)
        except OlvmError:
            self._take_back(name)
            raise

    def _local_refusal(self, account: Account | None, password: str) -> str:
        """Why not; empty: the password is right."""
        if account is None or account.status != "active" or not account.verifier:
            with contextlib.suppress(NotSupportedYet):  # then no local account has a password either
                self._verifiers.spend(password)
            if account is None:
                return "no such user"
            return "it is disabled" if account.status != "active" else "it has no password"
        try:
            return "" if self._verifiers.fits(account.name, password, account.verifier) else "wrong password"
        except KeyLost as error:
            log.warning("%s", error.message)
            return "its password was kept under another key; set it anew"

    def _conclude(
        self,
        ask: p.LogOn,
        account: Account | None,
        failures: int,
        client: Client,
        refusal_of: Callable[[], str],
    ) -> None:
        try:
            refusal = refusal_of()
        except BaseException:
            self._take_back(ask.user)
            raise
        if account is None or refusal:
            self._tell_denied(ask, account, refusal, failures)
            raise Denied(DENIED)
        with self._lock:
            self._back_off.clear(account.name)
        client.submit(m.LogUserOn(ask.vm, account.name, account.revision, ask.session, ask.timeout_s))
        self._renew(account, ask.password)

    def _take_back(self, name: str) -> None:
        with self._lock:
            self._back_off.take_back(name, self._clock_s())

    def _renew(self, account: Account, password: str) -> None:
        """Hash the password anew where hashes cost something else by now."""
        if account.verifier and self._verifiers.is_stale(account.verifier):
            renewed = self._verifiers.make(account.name, password)
            self._tell(m.Submit(m.SetVerifier(account.name, renewed, account.revision)))

    def _tell_denied(self, ask: p.LogOn, account: Account | None, refusal: str, failures: int) -> None:
        if account is not None:
            is_alert = failures == LOGON_FAILURES_ALERT
            self._tell(m.UserDenied(account.name, ask.vm, refusal, failures, is_alert))
            return
        with self._lock:
            self._unknown_count += 1
            now_s = self._clock_s()
            if now_s - self._unknown_told_s < LOGON_UNKNOWN_TOLD_S:
                return
            count, self._unknown_count, self._unknown_told_s = self._unknown_count, 0, now_s
        self._tell(m.UserDenied("", "", refusal, count))
