"""What stands above the stages: lightpool from Python."""

from pipeline.apps.api import Bundle, load_bundle

__all__ = ["Bundle", "load_bundle"]
