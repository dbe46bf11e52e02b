"""A small sound profile, the schema and the shipped profiles."""

from pathlib import Path

import yaml

CONFIG = Path(__file__).parents[3] / "config"
SCHEMA = yaml.safe_load((CONFIG / "schema.yaml").read_text())
PROFILES = sorted(path for path in CONFIG.glob("*.yaml") if path.name != "schema.yaml")
SOUND = {
    "profile": "tiny",
    "seeds": [0],
    "datasets": {
        "digits": {
            "examples_per_class": [2, 4],
            "test_examples_per_class": 3,
            "learning_rates": [0.1],
            "epochs": 2,
        }
    },
    "networks": [{"name": "mlp", "norm": "none"}],
    "losses": ["cross_entropy"],
    "training": {},
    "spectrum": {},
    "figures": {},
}
