"""Direction of the primary gamma ray."""
