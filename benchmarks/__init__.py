"""Measurements: ratios against a baseline in one run, never part of the tests."""
