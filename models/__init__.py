"""Network definitions: torch only, one file per family, never importing `pipeline`."""
