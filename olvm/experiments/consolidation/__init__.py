"""Dynamic consolidation by live migration: the PlanetLab experiment of Beloglazov & Buyya, as CloudSim 3.0.3 runs it.

`experiment.planetlab` is the face (`olvm.experiments.planetlab`); docs/planetlab.md has the figures and the story.
"""
