"""Gamma ray or hadron."""
