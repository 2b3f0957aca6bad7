"""An explicit Monte Carlo of air showers and of their images in a Cherenkov camera.

Electrons, positrons and photons above 20 MeV, muons and hadrons are followed one by one through the atmosphere.
Cherenkov photons are never thrown blindly: for each step of a track and each telescope only the arc of the cone that
meets the mirror is sampled, which makes the simulation affordable on one core.

What makes a shower, in the order of events:

    primaries        energy, direction and cores of the showers that are thrown
    transport        the loop over the particle stack, from the primary on
    particles        codes, masses, lifetimes; the primaries: gamma, electron, muon, proton, helium
    atmosphere       depth, height, density, refraction
    electromagnetic  pairs, Compton, bremsstrahlung
    hadronic         path to an interaction or decay, final states
    interactions     the library of hadronic final states
    muons            energy loss, decay
    tracks           steps of charged particles
    cherenkov        light yield, arcs, rays on the mirrors of all telescopes

and how the telescopes record it:

    array            telescopes on the ground: positions, kinds, stereo trigger
    optics           rays to pixels
    conditions       dead pixels, gains, stars
    electronics      night sky, pulses, saturation, trigger, charge
    generate         runs of showers, written as DL1 (and R1)
    workers          several processes at once

Nuclei are taken as superposition: helium is two protons and two neutrons, each with a quarter of the energy and
independent of the others. Nuclear fragments, which keep nucleons together beyond the first interaction, are neglected:
showers start and fluctuate as four proton showers do together.

Units are m, ns, GeV, g/cm2 and tesla, angles are radians. Heights are above sea level. The atmosphere is flat: zenith
angles up to 60 deg. x points north, y west, z up; directions are those of flight, so a shower has direction z < 0.
"""
