"""Claims of Papyan 2018 on the bulk of the spectrum: what it is made of and how it decays."""

from hessketch.claims import bulk_measures as measures
from hessketch.claims.claim import Claim

_PAPER = {"paper": "papyan2018", "study": "full_spectrum"}
_TAILS = ("full_spectrum/tails",)
_COMPONENTS = ("full_spectrum/components",)

CLAIMS = (
    Claim(
        name="most_eigenvalues_are_near_zero",
        place="Figure 1",
        statement="Most eigenvalues of the train Hessian crowd around zero.",
        quantity="share of eigenvalues of the train Hessian within 1% of the largest from zero, largest sample size",
        sense="at least",
        threshold=0.9,
        why="Nine of ten. Of a random symmetric matrix (semicircle) 1.3% lie so near.",
        tables=("full_spectrum/ritz",),
        figure="*/figure1-*",
        pictured="A spike at 0, orders of magnitude above all else.",
        measure=measures.share_near_zero,
        **_PAPER,
    ),
    Claim(
        name="negative_eigenvalues_remain",
        place="Section 1 and Figure 1",
        statement="Negative eigenvalues of the train Hessian remain after hundreds of epochs.",
        quantity="- smallest Ritz value over the largest, train Hessian, largest sample size",
        sense="at least",
        threshold=1e-5,
        why="A Ritz value below zero proves an eigenvalue below it, but for rounding: float32 leaves about 1e-6 of "
        "the largest. A convex loss has 0.",
        tables=("full_spectrum/ritz",),
        figure="*/figure1-*",
        pictured="The bulk reaches to the left of zero.",
        measure=measures.negative_range,
        **_PAPER,
    ),
    Claim(
        name="bulk_is_that_of_the_residual",
        place="Section 3 and Figure 4b",
        statement="The bulk of the test Hessian is that of the residual.",
        quantity="energy of the residual over that of the Hessian's bulk, test (energy: mean squared eigenvalue)",
        sense="at least",
        threshold=0.5,
        why="At least half: the residual's energy is not far below the bulk's. It is no share, since cross terms with "
        "the GGN's bulk count too: the ratio can be above 1, and one of 3 would pass as well.",
        tables=_COMPONENTS,
        figure="*/bulk_energy",
        pictured="Near zero the curves of Hessian and residual coincide.",
        measure=measures.residual_share_of_bulk,
        **_PAPER,
    ),
    Claim(
        name="bulk_of_the_ggn_is_far_smaller",
        place="Section 3 and Figure 4b",
        statement="The bulk of the GGN is far smaller than that of the residual.",
        quantity="energy of the GGN's bulk over that of the residual, test",
        sense="at most",
        threshold=0.1,
        why="A decade is what `far` reads as on the figure's log axis, and what the public notebook's densities "
        "differ by; equal parts would have 1.",
        tables=_COMPONENTS,
        figure="*/bulk_energy",
        pictured="Near zero the GGN's curve runs about a decade below the other two.",
        measure=measures.ggn_over_residual,
        **_PAPER,
    ),
    Claim(
        name="residual_is_nearly_symmetric",
        place="Section 3 and Figure 4d",
        statement="The spectrum of the residual is nearly symmetric.",
        quantity="mean |log10 phi(lambda) / phi(-lambda)| over the tails of the residual, test",
        unit="decades",
        sense="at most",
        threshold=0.3,
        why="Densities of both sides within a factor of 2, on a figure of several decades. A semidefinite matrix has "
        "no other side.",
        tables=_TAILS,
        figure="*/figure4-*",
        pictured="Both sides of the residual, overlaid on log axes, almost coincide.",
        measure=measures.asymmetry,
        **_PAPER,
    ),
    Claim(
        name="tails_follow_a_power_law",
        place="Section 3 and Figure 4d",
        statement="The tails of the residual follow a power law.",
        quantity="R2 of log density on log |lambda|, each side of the residual, test",
        sense="at least",
        threshold=0.96,
        why="A smooth decay that is no power law also comes near: an exponential has 0.92 over a decade, "
        "Marchenko-Pastur 0.95 over two. The paper has 0.98.",
        tables=_TAILS,
        figure="*/figure4-*",
        pictured="A straight line on log axes, R2 = 0.98.",
        measure=measures.power_law_fit,
        **_PAPER,
    ),
    Claim(
        name="tails_are_not_marchenko_pastur",
        place="Section 3 and Figure 4d",
        statement="The bulk is no Marchenko-Pastur law (nor a semicircle): a power law fits better.",
        quantity="R2 of the power law less that of Marchenko-Pastur with free mass and edges, each side of the "
        "residual, test",
        sense="at least",
        threshold=0.0,
        why="Marchenko-Pastur has one parameter more: were it the law, its R2 would be the larger.",
        tables=_TAILS,
        figure="*/figure4-*",
        pictured="A straight line on log axes, where Marchenko-Pastur has an edge.",
        measure=measures.power_law_over_marchenko_pastur,
        **_PAPER,
    ),
    Claim(
        name="tails_fall_off_with_exponent_of_about_2_6",
        place="Figure 4d",
        statement="The power law's exponent is about 2.6 (the paper's, for VGG11 on MNIST; its second version: 2.7).",
        quantity="|exponent - 2.6|, each side of the residual, test",
        sense="at most",
        threshold=0.5,
        why="Nearer to 2.6 than laws whose mean (2) or variance (3) just diverges. The paper gives one network's: "
        "others may differ.",
        tables=_TAILS,
        figure="*/figure4-*",
        pictured="phi = 4.3e-4 |lambda|^-2.6.",
        measure=measures.distance_from_exponent,
        **_PAPER,
    ),
)
