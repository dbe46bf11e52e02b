"""Seeds derived from what they are for, so that adding one run to a sweep changes no other."""

import hashlib


def derive_seed(seed: int, identity: str, purpose: str) -> int:
    """A seed in [0, 2**63) from the profile's seed, a run's identity and a purpose such as 'initialisation'."""
    digest = hashlib.sha256(f"{seed}|{identity}|{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
