"""Claims of Papyan's later paper on what makes the outliers: the class means of the gradients (ICML 2019)."""

from hessketch.claims import hierarchy_measures as measures
from hessketch.claims.claim import Claim

_LATER = "ICML 2019 (the same author's later paper)"
_PAPER = {"paper": "papyan2018", "study": "outlier_hierarchy", "tables": ("outlier_hierarchy/matches",)}

CLAIMS = (
    Claim(
        name="class_means_make_the_outliers",
        place=_LATER,
        statement="The C outliers of the GGN are the eigenvalues of its part by class means, G1.",
        quantity="median over the C largest of |G1's - G's eigenvalue of the same rank| / G's, train",
        sense="at most",
        threshold=0.3,
        why="Gradients without class structure average out: G1 would fall short by nearly 1. Below 0.3 class means "
        "make most of the outliers.",
        figure="*/attribution",
        pictured="Eigenvalues of G1 stand at the outliers of G.",
        measure=measures.difference_of_class_means,
        **_PAPER,
    ),
    Claim(
        name="cross_class_means_refine_the_outliers",
        place=_LATER,
        statement="Adding the spread of cross-class means, G1 + G2, moves the eigenvalues nearer to the outliers.",
        quantity="median relative difference of G1 less that of G1 + G2, over the C largest, train",
        sense="at least",
        threshold=0.0,
        why="Without information in G2 the sum would be no nearer to G than G1 is.",
        figure="*/attribution",
        pictured="Eigenvalues of G1 + G2 lie on those of G.",
        measure=measures.gain_of_cross_class_means,
        **_PAPER,
    ),
    Claim(
        name="outliers_span_the_class_means",
        place=_LATER,
        statement="The eigenvectors of the outliers span what the class means of the gradients span.",
        quantity="overlap of the C leading eigenvectors of the GGN with the span of the C class means, train",
        sense="at least",
        threshold=0.5,
        why="More than half of the space. A random one has C / p, thousandths at most.",
        figure="*/hierarchy",
        pictured="In the paper's figures, class means cluster and the outliers follow them.",
        measure=measures.overlap_with_class_means,
        **_PAPER,
    ),
)
