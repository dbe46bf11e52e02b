"""Claims of Shrivastava et al. 2024 on the predictor Hessian, H_i = l'_i d2 f(theta; x_i), during training."""

from hessketch.claims import predictor_measures as measures
from hessketch.claims.claim import Claim

_PAPER = {"paper": "shrivastava2024", "study": "predictor_hessian", "tables": ("predictor_hessian/kappa",)}
_FAR_BELOW = "Two orders of magnitude. A random symmetric matrix (semicircle) has 0.42."
_LOG = "Log density: a spike at 0 and a fast decay on both sides, alike at epochs 500, 1000 and 1500."

CLAIMS = (
    Claim(
        name="kappa_of_the_predictor_is_far_below_p",
        place="Assumption 4.2, Figures 2 and 24",
        statement="Absolute eigenvalues of the predictor Hessian sum to kappa times the largest, with kappa far below "
        "p, at all epochs and for both losses.",
        quantity="largest kappa / p over epochs and examples, each loss",
        sense="at most",
        threshold=0.01,
        why=_FAR_BELOW,
        figure="*/kappa_over_epochs",
        pictured="kappa over training stays far below the 11 million parameters, for binary cross-entropy and squared "
        "error.",
        measure=measures.kappa_over_p_at_all_epochs,
        **_PAPER,
    ),
    Claim(
        name="kappa_of_the_predictor_at_scale",
        place="Assumption 4.2, Figures 2 and 24",
        statement="kappa is far below p in a ResNet-18 of 11 million parameters.",
        quantity="largest kappa / p over epochs and examples where p is at least 10 million",
        sense="at most",
        threshold=0.01,
        why=_FAR_BELOW,
        figure="*/kappa_over_epochs",
        pictured="The same figures: their network has 11 million parameters.",
        measure=measures.kappa_over_p_at_scale,
        **_PAPER,
    ),
    Claim(
        name="kappa_of_the_predictor_stays_small_under_sketching",
        place="Assumption 4.2",
        statement="The assumption holds along sketched training, where the analysis needs it.",
        quantity="largest kappa / p over rounds and examples, each sketch",
        sense="at most",
        threshold=0.01,
        why=_FAR_BELOW,
        figure="*/kappa_over_rounds",
        pictured="No figure: the paper measures networks trained without sketching.",
        measure=measures.kappa_over_p_under_sketching,
        **_PAPER,
    ),
    Claim(
        name="kappa_keeps_its_order_over_epochs",
        place="Figures 2 and 3 to 12",
        statement="The spectrum of the predictor Hessian has about the same shape at all epochs.",
        quantity="largest over smallest kappa of an example after the first step, mean over examples, each loss",
        sense="at most",
        threshold=10.0,
        why="kappa measures the shape without its scale, and can be anything from 1 to p: within a factor of 10 it "
        "keeps its order of magnitude.",
        figure="*/density_over_epochs",
        pictured=_LOG,
        measure=measures.spread_of_kappa,
        **_PAPER,
    ),
    Claim(
        name="predictor_spectrum_is_concentrated_at_zero",
        place="Figures 3 to 23",
        statement="The density of the predictor Hessian is concentrated at 0, at all epochs and for both losses.",
        quantity="least share of eigenvalues within a tenth of the largest magnitude from zero, over epochs and "
        "examples, each loss",
        sense="at least",
        threshold=0.9,
        why="Nine of ten. Of a random symmetric matrix (semicircle) 13% lie so near. The curve's kernel only moves "
        "mass outwards.",
        figure="*/density_over_epochs",
        pictured=_LOG,
        measure=measures.share_near_zero,
        **{**_PAPER, "tables": ("predictor_hessian/density", "predictor_hessian/kappa")},
    ),
    Claim(
        name="predictor_spectrum_has_both_signs",
        place="Figures 3 to 23",
        statement="The density of the predictor Hessian decays on both sides of 0.",
        quantity="smaller over larger of the largest eigenvalue and the negated smallest, mean over epochs and "
        "examples, each loss",
        sense="at least",
        threshold=0.1,
        why="A semidefinite matrix has 0, a symmetric spectrum 1; on the figure's linear axis of eigenvalues a tenth "
        "is the least side that one sees.",
        figure="*/density_over_epochs",
        pictured=_LOG,
        measure=measures.balance_of_signs,
        **_PAPER,
    ),
)
