"""Renders a Report: one self-contained page, a terminal table. Floor 0 only, so it works without torch."""
