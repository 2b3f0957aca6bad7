"""Where the axis of the shower meets the ground."""
