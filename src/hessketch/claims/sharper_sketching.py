"""Claims of Shrivastava et al. 2024 on training with little communication."""

from hessketch.claims import sketching_measures as measures
from hessketch.claims.claim import Claim

_PAPER = {"paper": "shrivastava2024", "study": "sharper_sketching"}
_RUNS = {"tables": ("sharper_sketching/runs",), "figure": "*/accuracy_against_reduction"}
_TIE = (
    "Two points of accuracy are what a figure of 0 to 1 still shows as a tie, and about the spread of seeds. "
    "A diverged run counts as a guess, 1 / C."
)

CLAIMS = (
    Claim(
        name="count_sketch_competes_with_top_r_with_feedback",
        place="Figure 1, its caption",
        statement="Count-Sketch without error feedback is competitive with Top-r with error feedback over all "
        "reductions.",
        quantity="test accuracy of Count-Sketch less that of Top-r with error feedback, each reduction",
        sense="at least",
        threshold=-0.02,
        why=_TIE,
        pictured="Expected: over all reductions the curve of Count-Sketch stays with that of Top-r with error "
        "feedback.",
        measure=measures.count_sketch_less_top_r_with_feedback,
        **_PAPER,
        **_RUNS,
    ),
    Claim(
        name="count_sketch_competes_with_fetch_sgd_with_feedback",
        place="Figure 1, its caption",
        statement="Count-Sketch without error feedback is competitive with FetchSGD with error feedback over all "
        "reductions.",
        quantity="test accuracy of Count-Sketch less that of FetchSGD with error feedback, each reduction",
        sense="at least",
        threshold=-0.02,
        why=_TIE,
        pictured="Expected: the curve of Count-Sketch stays with that of FetchSGD with error feedback.",
        measure=measures.count_sketch_less_fetch_sgd_with_feedback,
        **_PAPER,
        **_RUNS,
    ),
    Claim(
        name="count_sketch_keeps_the_accuracy",
        place="Figure 1, its caption",
        statement="Count-Sketch without error feedback loses little accuracy to training without compression, over "
        "all reductions.",
        quantity="test accuracy without compression less that of Count-Sketch, each reduction",
        sense="at most",
        threshold=0.05,
        why="One in twenty images: a loss that one may take for sending a tenth to a thousandth. A guess of ten "
        "classes loses most of the accuracy there is.",
        pictured="Expected: a flat curve against dimension reduction.",
        measure=measures.loss_to_uncompressed,
        **_PAPER,
        **_RUNS,
    ),
    Claim(
        name="count_sketch_needs_no_feedback",
        place="Algorithm 1 and Figure 1, its caption",
        statement="Count-Sketch needs no error feedback.",
        quantity="test accuracy of Count-Sketch with error feedback less that without, each reduction",
        sense="at most",
        threshold=0.02,
        why=f"{_TIE} Our variant with feedback scales its lift by 1 / (1 + (p - 1) / b), without which its error would "
        "grow: it delivers what was sent within about as many rounds as the reduction, and where a training has fewer "
        "its lack of gain says little.",
        pictured="Algorithm 1 keeps no error memory.",
        measure=measures.gain_of_feedback_for_count_sketch,
        **_PAPER,
        **_RUNS,
    ),
    Claim(
        name="top_r_needs_feedback",
        place="Figure 1, its caption",
        statement="Top-r is worse without error feedback.",
        quantity="test accuracy of Top-r with error feedback less that without, mean over reductions",
        sense="at least",
        threshold=0.01,
        why="Without an effect the mean is 0; one point of accuracy is the least that the figure shows.",
        over="mean of cases",
        pictured="Expected: the curve without error feedback lies below that with it.",
        measure=measures.gain_of_feedback_for_top_r,
        **_PAPER,
        **_RUNS,
    ),
    Claim(
        name="fetch_sgd_needs_feedback",
        place="Figure 1, its caption",
        statement="FetchSGD is worse without error feedback.",
        quantity="test accuracy of FetchSGD with error feedback less that without, mean over reductions",
        sense="at least",
        threshold=0.01,
        why="Without an effect the mean is 0; one point of accuracy is the least that the figure shows.",
        over="mean of cases",
        pictured="Expected: the curve without error feedback lies below that with it.",
        measure=measures.gain_of_feedback_for_fetch_sgd,
        **_PAPER,
        **_RUNS,
    ),
    Claim(
        name="feedback_matters_more_at_high_reduction",
        place="Figure 1, inferred",
        statement="The more is left out, the more Top-r and FetchSGD lose without error feedback.",
        quantity="slope of the gain by error feedback in log10 of the reduction, each of Top-r and FetchSGD",
        unit="accuracy per decade",
        sense="at least",
        threshold=0.0,
        why="Without a trend the slope is 0 on average.",
        pictured="Expected: the gap between the curves with and without error feedback widens to the right.",
        measure=measures.trend_of_feedback,
        **_PAPER,
        **_RUNS,
    ),
    Claim(
        name="lift_has_the_variance_of_theory",
        place="Section 3",
        statement="A Count-Sketch's lift has a squared error of (p - 1) / b of the squared norm.",
        quantity="|measured squared error of the lift / that of theory - 1|, mean over rounds, each reduction",
        sense="at most",
        threshold=0.1,
        why="Means over rounds of one drawn sketch each vary by a few percent; one that repeats its hashes or a wrong "
        "scale differ by factors. This is the variance alone: that the lift is unbiased is for the package's tests.",
        tables=("sharper_sketching/rounds", "sharper_sketching/runs"),
        figure="*/lift_error",
        pictured="No figure of the paper: the property that its analysis starts from.",
        measure=measures.lift_error_from_theory,
        **_PAPER,
    ),
    Claim(
        name="kappa_of_the_loss_hessian_is_far_below_p",
        place="Section 4, as the predictor Hessian's",
        statement="Absolute eigenvalues of the train Hessian sum to kappa times the largest, with kappa far below p, "
        "all along sketched training.",
        quantity="largest kappa / p over the checkpoints, each trainer",
        sense="at most",
        threshold=0.01,
        why="Two orders of magnitude. A random symmetric matrix (semicircle) has 0.42.",
        tables=("sharper_sketching/curvature",),
        figure="*/curvature_over_rounds",
        pictured="No figure of the paper: its second-order noise is kappa / b rather than p / b times the largest.",
        measure=measures.kappa_of_hessian_over_p,
        **_PAPER,
    ),
    Claim(
        name="rounds_do_not_grow_with_p",
        place="Table 1",
        statement="The rounds that a sketch of b numbers needs do not grow with the number of parameters p.",
        quantity="log(ratio of rounds to the same training loss) / log(ratio of p) of two widths at equal b",
        sense="at most",
        threshold=0.5,
        why="Halfway between the paper's analysis (0) and the earlier one, whose count is proportional to p (1).",
        tables=("sharper_sketching/runs", "sharper_sketching/rounds"),
        figure="*/loss_against_rounds",
        pictured="A table: the ambient dimension is in the earlier analysis' iteration count and not in the paper's.",
        measure=measures.exponent_of_rounds,
        **_PAPER,
    ),
)
