"""Tables of the full-spectrum study and of the hierarchy's, of networks whose numbers are known."""

import pandas as pd

RUN = {
    "dataset": "fashion_mnist", "label_noise": 0.0, "examples_per_class": 100, "network": "vgg11", "norm": "batch",
    "width": 1.0, "loss": "cross_entropy", "trainer": "sgd", "learning_rate": 0.1, "seed": 0,
}  # fmt: skip
SPECTRUM = {**RUN, "split": "train", "operator": "hessian", "n": 1000, "p": 28_000_000, "classes": 10}
SPLITS = ("train", "test")


def outliers(count: int = 10, classes: int = 10, top: float = 50.0, edge: float = 2.0, **others) -> pd.DataFrame:
    """Counts of Hessian and GGN on both splits; the test's largest eigenvalue is 100."""
    base = {**SPECTRUM, "classes": classes, "examined": 4 * classes, "outlier_count": count, "residual_edge": edge}
    return pd.DataFrame(
        {**base, "operator": operator, "split": split, "top_eigenvalue": top if split == "train" else 100.0, **others}
        for operator in ("hessian", "ggn")
        for split in SPLITS
    )


def of_two_sizes(smaller: int, larger: int, times: int = 10) -> pd.DataFrame:
    """Outlier counts at two training sets, the larger with `times` as many examples."""
    small = outliers(smaller).assign(n=100, examples_per_class=10)
    large = outliers(larger).assign(n=100 * times, examples_per_class=10 * times)
    return pd.concat([small, large], ignore_index=True)


def eigenvalues(least: float = 5.0, moved: float = 0.0, residual: float = 0.0) -> pd.DataFrame:
    """Ten eigenvalues on each split, from 50 down to `least`; `moved` from the Ritz values of `ritz`.

    `residual` is the residual norm of the last one.
    """
    values = [50 - (50 - least) * rank / 9 + moved for rank in range(10)]
    rows = [{**SPECTRUM, "split": split, "rank": i + 1, "eigenvalue": v,
             "residual_norm": residual if i == 9 else 0.0} for split in SPLITS
            for i, v in enumerate(values)]  # fmt: skip
    return pd.DataFrame(rows)


def ritz(near_zero: float = 0.99, smallest: float = -1.0, least: float = 5.0) -> pd.DataFrame:
    """Ritz values of the train Hessian: most weight at zero, ten outliers, one negative value."""
    values = [50 - (50 - least) * rank / 9 for rank in range(10)] + [0.1, smallest]
    weights = [(1 - near_zero) / 11] * 10 + [near_zero, (1 - near_zero) / 11]
    rows = [
        {**SPECTRUM, "deflated": False, "start_vector": 0, "ritz_value": value, "weight": weight}
        for value, weight in zip(values, weights, strict=True)
    ]
    return pd.DataFrame(rows)


def positions(differences: list[float]) -> pd.DataFrame:
    """Relative differences of Hessian and GGN by rank, on the test split."""
    rows = [
        {**SPECTRUM, "split": "test", "rank": rank, "relative_difference": difference}
        for rank, difference in enumerate(differences, 1)
    ]
    return pd.DataFrame(rows)


def components(hessian: float = 1.0, ggn: float = 0.01, residual: float = 0.9, deflated: bool = True) -> pd.DataFrame:
    """Energies of the bulk on the test split."""
    energies = {"hessian": hessian, "ggn": ggn, "residual": residual}
    rows = [
        {**SPECTRUM, "split": "test", "operator": operator, "bulk_energy": energy,
         "deflated": deflated and operator != "residual"}
        for operator, energy in energies.items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def tails(
    r_squared: float = 0.99, mp: float = 0.5, exponent: float = 2.6, asymmetry: float = 0.1, reason: str = ""
) -> pd.DataFrame:
    """Both sides of the test residual, and the deflated Hessian's, which the claims are not about."""
    fit = {"r_squared": r_squared, "mp_r_squared": mp, "exponent": exponent, "asymmetry": asymmetry, "reason": reason}
    own = {**SPECTRUM, "split": "test", "operator": "residual", "deflated": False, **fit}
    other = {**own, "operator": "hessian", "deflated": True, "r_squared": 0.0, "asymmetry": 9.0, "exponent": 9.0}
    return pd.DataFrame({**row, "sign": sign} for row in (own, other) for sign in (1, -1))


def matches(means: float = 0.1, sums: float = 0.05, overlap: float = 0.9) -> pd.DataFrame:
    """How well the class means explain the outliers, at k = 9 (not looked at) and 10."""
    found = {"G1": means, "G1+2": sums}
    rows = [
        {**SPECTRUM, "operator": "ggn", "part": part, "k": k, "overlap": overlap if k == 10 else 0.0,
         "median_difference": difference if k == 10 else 9.0}
        for part, difference in found.items() for k in (9, 10)
    ]  # fmt: skip
    return pd.DataFrame(rows)
