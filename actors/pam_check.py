"""One question to PAM, in a process of its own: `python pam_check.py`, with JSON on stdin, answered by the exit code.

PAM's modules may block, leak, and bring down the process that they are in; a process can be given up. The password
comes by the pipe, never as an argument or in the environment, and nothing is printed. Imports nothing of ours.
"""

from __future__ import annotations

import json
import sys

# 0: PAM accepts. Else one of these, or CODE_BASE + PAM's own code.
NO_PACKAGE = 3
NO_LIBRARY = 4
CODE_BASE = 100


def main() -> int:
    asked = json.load(sys.stdin)
    try:
        import pam
    except ImportError:
        return NO_PACKAGE
    try:
        authenticator = pam.PamAuthenticator()
    except (AttributeError, OSError):  # the package finds no libpam, and says it in these ways
        return NO_LIBRARY
    # Credentials are not wanted: nobody is logged on here.
    if authenticator.authenticate(
        asked["user"], asked["password"], service=asked["service"], resetcreds=False
    ):
        return 0
    return CODE_BASE + int(authenticator.code)


if __name__ == "__main__":
    sys.exit(main())
