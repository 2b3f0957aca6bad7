"""Depth of the shower's maximum."""
