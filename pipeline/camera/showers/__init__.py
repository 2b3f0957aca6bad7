"""An explicit Monte Carlo of air showers and of their images in a Cherenkov camera.

Electrons, positrons and photons above 20 MeV, muons and hadrons are followed one by one through the atmosphere.
Cherenkov photons are never thrown blindly: for each step of a track and each telescope only the arc of the cone that
meets the mirror is sampled, which is what makes the whole affordable on one core.

    particles        codes, masses, lifetimes            hadronic       path to an interaction or decay, final states
    atmosphere       depth, height, density, refraction  interactions   the library of hadronic final states
    cherenkov        light yield, arcs, rays             transport      the loop over the particle stack
    tracks           steps of charged particles          optics         rays to pixels
    electromagnetic  pairs, Compton, bremsstrahlung      electronics    night sky, pulses, trigger, charge
    muons            energy loss, decay                  generate       runs of showers, written as DL1
    conditions       dead pixels, gains, stars

Units are m, ns, GeV, g/cm2 and tesla, angles are radians. Heights are above sea level. The atmosphere is flat: zenith
angles up to 60 deg. x points north, y west, z up; directions are those of flight, so a shower has direction z < 0.
"""
