"""The shower simulation compared with CORSIKA, sim_telarray and published numbers.

rows : one compared quantity: reference, value, errors, verdict.
light : showers whose photons and particles are counted, under the conditions of CORSIKA's photon files.
gammas, pool, protons : development and light of gammas, their light pool, light of protons, against those files.
steps : independence of the steps' length, and time per shower.
sim_telarray : photo-electrons in single telescopes, and muon rings, against sim_telarray's files.
images : size, Hillas parameters, time gradient, forest, against the table of prod3b.
noise : night sky and electronics alone.
checks : which of them are made, on how many showers, and what they leave for the figures.
"""
