"""Which client has which examples. NumPy only: the check of a config makes the split too, and imports no torch."""

import math

import numpy as np

from hessketch.errors import InputError, nearest
from hessketch.seeds import derive_seed

KINDS = ("iid", "shards", "dirichlet")
_DRAWS = 100
# Above it the shares are equal to six digits, and far above it the gamma variables behind them overflow.
_LARGEST_ALPHA = 1e12


def partition_seed(seed: int, dataset: str, examples_per_class: int | None) -> int:
    """Seed of the split of a run's examples (None: all of the data set): the same for all networks, trainers, rates."""
    size = "all" if examples_per_class is None else examples_per_class
    return derive_seed(seed, f"{dataset}/n{size}", "partition")


def partition(
    labels: np.ndarray,
    clients: int,
    kind: str,
    seed: int,
    *,
    alpha: float = 1.0,
    shards_per_client: int = 2,
    least: int = 1,
) -> list[np.ndarray]:
    """Indices of each client's examples, sorted, int64; every example goes to exactly one client.

    labels: classes of the n examples, shape (n,), any integers. clients: how many share them. kind:

    - `iid`: a random permutation cut into parts whose sizes differ by at most one.
    - `shards` (McMahan et al. 2017): the examples sorted by label are cut into clients * shards_per_client runs whose
      sizes differ by at most one, and each client gets shards_per_client of them at random.
    - `dirichlet` (Yurochkin et al. 2019): of each class by itself, the shares of the clients are drawn from
      Dirichlet(alpha, ..., alpha), so clients differ in size as well as in classes. (In the form of Hsu et al. 2019
      each client draws its mix of classes, and all have the same size.) A client's count of a class is its share of the
      class rounded up or down, at random and without bias.

    A random split that leaves a client with fewer than `least` examples is drawn again, at most 100 times in all. The
    split depends on the arguments only.

    Raises InputError for an unknown kind, arguments out of their range, more clients, shards or examples asked for than
    there are, and where no draw gives every client `least` examples.
    """
    labels = np.asarray(labels)
    _require_possible(labels, clients, kind, alpha, shards_per_client, least)
    best = 0
    for draw in range(_DRAWS):
        random = np.random.Generator(np.random.Philox(derive_seed(seed, f"{kind} {draw}", "partition")))
        if kind == "iid":
            parts = np.array_split(random.permutation(len(labels)), clients)
        elif kind == "shards":
            parts = _shards(labels, clients, shards_per_client, random)
        else:
            parts = _dirichlet(labels, clients, alpha, random)
        smallest = min(map(len, parts))
        if smallest >= least:
            return [np.sort(part).astype(np.int64, copy=False) for part in parts]
        best = max(best, smallest)
    setting, easier = f"{shards_per_client} shards per client", "fewer shards per client"
    if kind == "dirichlet":
        setting, easier = f"alpha {alpha:g}", "a larger alpha"
    raise InputError(
        f"{kind} split of {len(labels)} examples over {clients} clients with {setting}: in the best of {_DRAWS} draws "
        f"the smallest client has {best}, allowed: at least {least}; choose {easier}, fewer clients, a smaller least "
        "number of examples, or more examples"
    )


def _require_possible(
    labels: np.ndarray, clients: int, kind: str, alpha: float, shards_per_client: int, least: int
) -> None:
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"labels of shape {labels.shape} and {labels.dtype}; allowed: shape (n,) of integers")
    if kind not in KINDS:
        raise InputError(f"{kind!r} is no kind of partition; allowed: {', '.join(KINDS)}{nearest(kind, KINDS)}")
    counts = {"clients": clients, "shards per client": shards_per_client, "least examples": least}
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"{name}: {count} given; allowed: at least 1")
    if not 0 < alpha < math.inf:
        raise InputError(f"alpha {alpha:g} given; allowed: a finite number above 0")
    n = len(labels)
    if clients > n:
        raise InputError(f"{clients} clients and {n} examples; allowed: at most {n} clients")
    if clients * least > n:
        raise InputError(
            f"{clients} clients with at least {least} examples each and {n} examples; allowed: a least number of at "
            f"most {n // clients}, or fewer clients"
        )
    if kind == "shards" and clients * shards_per_client > n:
        raise InputError(
            f"{clients} clients with {shards_per_client} shards each and {n} examples; allowed: at most {n // clients} "
            "shards each, or fewer clients"
        )


def _shards(labels: np.ndarray, clients: int, each: int, random: np.random.Generator) -> list[np.ndarray]:
    # Shuffled before the sort, so that which examples of a class come together is not the order of the file.
    shuffled = random.permutation(len(labels))
    by_label = shuffled[np.argsort(labels[shuffled], kind="stable")]
    shards = np.array_split(by_label, clients * each)
    dealt = random.permutation(len(shards)).reshape(clients, each)
    return [np.concatenate([shards[i] for i in hand]) for hand in dealt]


def _dirichlet(labels: np.ndarray, clients: int, alpha: float, random: np.random.Generator) -> list[np.ndarray]:
    parts: list[list[np.ndarray]] = [[] for _ in range(clients)]
    for label in np.unique(labels):
        examples = random.permutation(np.flatnonzero(labels == label))
        shares = random.dirichlet(np.full(clients, min(alpha, _LARGEST_ALPHA)))
        # Ends shifted by one uniform number: counts are a floor or a ceiling of share * n, and share * n in the mean.
        ends = np.floor(np.cumsum(shares)[:-1] * len(examples) + random.random()).astype(np.int64)
        for part, chosen in zip(parts, np.split(examples, np.minimum(ends, len(examples))), strict=True):
            part.append(chosen)
    return [np.concatenate(part) for part in parts]
