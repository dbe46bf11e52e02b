"""How many eigenvalues stand apart from the bulk."""

import numpy as np

from hessketch.errors import InputError
from hessketch.linalg.vectors import require_at_least
