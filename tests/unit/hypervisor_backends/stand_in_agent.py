"""A fence agent in the place of the distribution's: it switches files, and misbehaves as it is told by them.

In its directory: a file for each computer, `on` or `off`; `script`, if it is there, is Python that goes first, with the
options as `given`; `heard` gets what came on stdin. Each test installs its own, so that nothing is shared.
"""

from __future__ import annotations

import sys
from pathlib import Path

METADATA = """<?xml version="1.0" ?>
<resource-agent name="fence_simulated" shortdesc="">
<parameters>
  <parameter name="action" required="1"><content type="string" default="reboot" /></parameter>
  <parameter name="plug" required="1" obsoletes="port"><content type="string" /></parameter>
  <parameter name="port" required="1" deprecated="1"><content type="string" /></parameter>
  <parameter name="password" required="0" obsoletes="passwd"><content type="string" /></parameter>
  <parameter name="passwd" required="0" deprecated="1"><content type="string" /></parameter>
  <parameter name="password_script" required="0"><content type="string" /></parameter>
  <parameter name="verbose" required="0"><content type="boolean" /></parameter>
  <parameter name="ssl_insecure" required="0"><content type="boolean" /></parameter>
  <parameter name="ssl" required="0"><content type="boolean" default="1" /></parameter>
  <parameter name="power_wait" required="0"><content type="second" default="0" /></parameter>
  <parameter name="method" required="0"><content type="select" default="onoff">
    <option value="onoff" /><option value="cycle" /></content></parameter>
</parameters>
<actions><action name="on" /><action name="off" /><action name="status" />{more}</actions>
</resource-agent>"""

PROGRAM = """#!{python} -IS
import os, signal, subprocess, sys, time
os.chdir({directory!r})
if sys.argv[1:] == ["-o", "metadata"]:
    print({metadata!r})
    sys.exit(0)
text = sys.stdin.read()
open("heard", "w").write(text)
open("seen", "w").write(repr((sys.argv[1:], sorted(os.environ))))
given = dict(line.split("=", 1) for line in text.splitlines())
if os.path.exists("script"):
    exec(open("script").read())
if given["action"] == "status":
    power = open(given["plug"]).read()
    print("Status: " + power.upper())
    sys.exit(0 if power == "on" else 2)
open(given["plug"], "w").write(given["action"])
print("Success: Powered " + given["action"].upper())
"""


def install(agents: Path, name: str, directory: Path, *, more_actions: str = "") -> Path:
    """`directory` has the files; `agents` gets the program."""
    program = agents / name
    metadata = METADATA.format(more=more_actions)
    program.write_text(PROGRAM.format(python=sys.executable, directory=str(directory), metadata=metadata))
    program.chmod(0o755)
    return program
