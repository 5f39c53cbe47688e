"""`olvm demo`: the whole story on this machine, told through the same API that a driver script uses."""
