"""The shower simulation beside CORSIKA, sim_telarray and published numbers.

rows : one compared quantity: reference, value, errors, verdict.
light : total light, particle numbers, light pool, steps, time, against CORSIKA's photon files.
sim_telarray : photo-electrons in single telescopes, and muon rings, against sim_telarray's files.
images : size, Hillas parameters, time gradient, forest, against the table of prod3b.
noise : night sky and electronics alone.
checks : which of them are made, on how many showers, and what they leave for the figures.
"""
