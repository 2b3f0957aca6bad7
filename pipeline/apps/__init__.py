"""What stands above stages, for people and other programs: the plug-in for ctapipe."""
