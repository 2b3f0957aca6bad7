"""Restoring sky frames: noise, defects and missing pixels."""
