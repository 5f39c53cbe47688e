"""Replay's inner loops, compiled with numba where it is installed and plain Python where it is not.

| module | what it decides |
|---|---|
| `state.py` | the arrays that all others read and write, and who may change which |
| `first_fit.py` | the first host, or the first from a place on, with room: a tree of the largest free capacity |
| `best_fit.py` | the fullest or emptiest host with room: classes of equal free capacity |
| `scan.py` | every other policy: one pass over the hosts with a score |
| `samples.py` | the series, taken every so many seconds |
| `events.py` | the loop: departures, the line, arrivals |
| `requests.py` | what must be known before the first event: shares, what fits nowhere, peaks of demand |

Rule: a decision depends on what is free and on nothing else that an index holds. An index may be thrown away and built
anew at any moment, and the next decision is the same.
"""
