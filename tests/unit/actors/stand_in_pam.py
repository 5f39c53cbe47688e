"""Stands in for actors/pam_check.py: the password says with what to answer, as PAM would.

`right` is accepted; `exit N` ends with N; `hang` does not answer, and leaves a child that does not either.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

asked = json.load(sys.stdin)
password: str = asked["password"]
print("what a module prints:", password)
if password == "right":
    sys.exit(0)
if password.startswith("exit "):
    sys.exit(int(password.split()[1]))
if password.startswith("hang "):
    child = subprocess.Popen(["sleep", "60"])
    Path(password.split()[1]).write_text(f"{os.getpid()} {child.pid}")
    time.sleep(60)
sys.exit(107)
