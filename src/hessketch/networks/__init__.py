"""The papers' networks, built by one registry from an explicit seed."""
