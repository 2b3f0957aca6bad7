"""Energy of the primary gamma ray."""
