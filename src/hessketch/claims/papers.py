"""The five papers, and how much of each is known to us: what a verdict can mean depends on it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Paper:
    """`evidence` says what its protocol and numbers are known from, `studies` what reproduces it."""

    key: str
    authors: str
    year: int
    title: str
    where: str
    link: str
    studies: tuple[str, ...]
    evidence: str


_ALL = (
    Paper(
        key="papyan2018",
        authors="Papyan",
        year=2018,
        title="The Full Spectrum of Deepnet Hessians at Scale: Dynamics with SGD Training and Sample Size",
        where="arXiv:1811.07062v1",
        link="https://arxiv.org/abs/1811.07062",
        studies=("full_spectrum", "outlier_hierarchy"),
        evidence="The text of its first version and its author's public code; a few printed numbers.",
    ),
    Paper(
        key="shrivastava2024",
        authors="Shrivastava, Isik, Li, Koyejo, Banerjee",
        year=2024,
        title="Sketching for Distributed Deep Learning: A Sharper Analysis",
        where="NeurIPS 2024",
        link="https://openreview.net/forum?id=0G0VpMjKyV",
        studies=("sharper_sketching", "predictor_hessian"),
        evidence="Read: captions, the conference's abstract and the first author's code for predictor Hessians. "
        "Inferred: the curves of Figure 1 and details of Algorithm 1. No numbers: data, network and rates of Figure 1 "
        "are our choice.",
    ),
    Paper(
        key="li2020",
        authors="Li, Gu, Zhou, Chen, Banerjee",
        year=2020,
        title="Hessian based analysis of SGD for Deep Nets: Dynamics and Generalization",
        where="arXiv:1907.10732, SDM 2020",
        link="https://arxiv.org/abs/1907.10732",
        studies=("sgd_dynamics",),
        evidence="Read: its abstract, with the three questions. Recalled or derived: formulas and what the experiments "
        "show. No numbers and no code: a reproduction by a declared protocol.",
    ),
    Paper(
        key="fernandez2025",
        authors="Fernandez, Schneider, Mahsereci, Hennig",
        year=2025,
        title="Connecting Parameter Magnitudes and Hessian Eigenspaces at Scale using Sketched Methods",
        where="arXiv:2504.14701, TMLR 2025",
        link="https://arxiv.org/abs/2504.14701",
        studies=("eigenspaces",),
        evidence="Its authors' code, settings and raw logs: numbers can be compared.",
    ),
    Paper(
        key="sagun2017",
        authors="Sagun, Evci, Guney, Dauphin, Bottou",
        year=2017,
        title="Empirical Analysis of the Hessian of Over-Parametrized Neural Networks",
        where="arXiv:1706.04454v3, ICLR 2018 workshop",
        link="https://arxiv.org/abs/1706.04454",
        studies=("over_parametrized", "basins"),
        evidence="Read: its abstract, with the conjectures, and its opening. Recalled: most experiments and their "
        "figures, straight lines between solutions among them; derived: counts of zeros. No numbers and no code: a "
        "reproduction by a declared protocol.",
    ),
)
PAPERS = {paper.key: paper for paper in _ALL}
"""By key, in the order of the pipeline's studies."""
