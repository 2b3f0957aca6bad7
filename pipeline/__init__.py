"""lightpool: from telescope images to trained, evaluated and usable CNNs."""

__version__ = "0.1.0"
