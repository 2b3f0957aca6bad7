"""A trained model on disk: its card, its use without torch, and how it is written."""
