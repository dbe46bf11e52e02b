"""Statements of the five papers as data, and their verdicts as computed from the studies' tables."""
