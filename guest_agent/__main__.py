"""olvm-guest-agent.pyz [agent [PORT] | console TERMINAL | pam | uninstalled | version]"""

from __future__ import annotations

import sys


def main(words: list[str]) -> int:
    verb, rest = (words[0], words[1:]) if words else ("agent", [])
    if verb == "agent":
        from guest_agent.loop import main as agent

        return agent(*rest[:1])
    if verb == "console" and len(rest) == 1:
        from guest_agent.console import main as console

        return console(rest[0])
    if verb == "pam":
        from guest_agent.pam import main as pam

        return pam()
    if verb == "uninstalled":
        from guest_agent.loop import say_uninstalled

        code = say_uninstalled()
        from guest_agent.text_lock import release_all

        release_all()  # nobody is left who could ask for the password
        return code
    if verb == "version":
        from guest_agent.agent import VERSION

        print(VERSION)
        return 0
    print("usage: " + (__doc__ or ""), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
