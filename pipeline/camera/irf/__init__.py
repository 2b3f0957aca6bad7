"""Instrument response functions: ctapipe's tools set up, run here, and their products checked.

The tools read one DL2 file of each particle. Where they do not look (view cones, reuse of showers, equal settings of
runs) a mistake gives responses that are wrong by a factor, without a word. So everything that they take for granted is
read and compared here first.
"""
