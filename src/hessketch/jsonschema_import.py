"""The parts of jsonschema that check a config, imported without the formats that no schema here uses.

With Jupyter comes rfc3987_syntax, of which jsonschema makes a checker of IRIs as it is imported: its 38 grammars take
1.6 s, at each call of Snakemake and again in each job of a cluster.
"""

import sys

_FORMATS = "rfc3987_syntax"

_left_out = _FORMATS not in sys.modules
if _left_out:
    sys.modules[_FORMATS] = None  # type: ignore[assignment]  # jsonschema takes it for not installed
try:
    from jsonschema import Draft202012Validator, validators
    from jsonschema.exceptions import ValidationError
finally:
    if _left_out:
        del sys.modules[_FORMATS]

__all__ = ["Draft202012Validator", "ValidationError", "validators"]
