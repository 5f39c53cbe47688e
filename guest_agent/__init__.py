"""The program inside guests: standard library only, Python 3.8 and newer. Host code imports its `protocol` alone."""
