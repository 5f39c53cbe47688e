"""Grids of replays: topology × trace × policy × parameter × seed, run on many workers, resumable, and compared.

And grids of PlanetLab days (`planetlab`). `reading` reads either, `definition` says what a grid of replays is, `cells`
which runs it has, `sampling` what a seed does to a trace, `worker` how one run is done, `log` how its figures become
durable, `running` in which order all of that is done. `results` reads a folder, `comparison` says which policy is
better and how sure that is, `report` and `plots` show it.
"""
