"""What Sagun et al. 2017 (arXiv 1706.04454) say of basins: small and large batches end in the same one.

A pair is a run with large batches and one that ends with small ones: `continued` from the first, from the `same_start`,
or, our control, from an `other_start`. Barriers are of the training loss, over ln C, the loss of guessing.
"""

from functools import partial

from hessketch.claims import basins_measures as measures
from hessketch.claims.claim import Claim
from hessketch.studies.basins import LOW

_claim = partial(Claim, paper="sagun2017", study="basins")
_LOW = "A twentieth of the loss of guessing, at which a network has learnt nothing."
_ON_LINE = "height of the training loss on the straight line above the line between its ends, over ln C"

CLAIMS = (
    _claim(
        name="no_barrier_to_continued_small_batches",
        place="abstract; on a straight line: experiments, as recalled",
        statement="Solutions of large batches and of small batches that go on from them lie in one basin.",
        quantity=_ON_LINE,
        sense="at most",
        threshold=LOW,
        why=_LOW,
        tables=("basins/runs", "basins/barriers"),
        figure="*/line",
        pictured="as recalled: loss along the straight line through both solutions: no barrier between them",
        measure=measures.continued_barrier,
    ),
    _claim(
        name="no_barrier_between_batch_sizes_of_one_start",
        place="abstract; on a straight line: experiments, as recalled",
        statement="Solutions of small and of large batches from one initialisation are connected, in one basin.",
        quantity=_ON_LINE,
        sense="at most",
        threshold=LOW,
        why=_LOW,
        tables=("basins/runs", "basins/barriers"),
        figure="*/line",
        pictured="as recalled: loss along the straight line through both solutions: no barrier between them",
        measure=measures.same_start_barrier,
    ),
    _claim(
        name="a_low_path_connects_batch_sizes",
        place="abstract",
        statement="Solutions of small and of large batches are connected through the flat region.",
        quantity="height of the training loss on the path found above the line between its ends, over ln C",
        sense="at most",
        threshold=LOW,
        why=_LOW,
        tables=("basins/runs", "basins/barriers"),
        figure="*/path",
        pictured="no figure known to us; the paper's abstract",
        measure=measures.found_barrier,
    ),
    _claim(
        name="other_starts_have_a_barrier",
        place="our control, not in the paper",
        statement="On the straight line between networks from two initialisations there is a barrier.",
        quantity=_ON_LINE,
        sense="at least",
        threshold=LOW,
        why="What is called low of the other pairs; without it the lack of a barrier would say nothing.",
        tables=("basins/runs", "basins/barriers"),
        figure="*/barriers",
        pictured="no figure; a control",
        measure=measures.other_start_barrier,
    ),
    _claim(
        name="test_accuracy_is_best_toward_small_batches",
        place="experiments, as recalled",
        statement="Along the line the test accuracy is best toward the solution of small batches.",
        quantity="place of the highest test accuracy on the line: 0 at large batches, 1 at small ones that go on",
        sense="at least",
        threshold=0.5,
        why="Nearer to the end of small batches; without a difference it is anywhere.",
        tables=("basins/runs", "basins/best_places"),
        figure="*/line",
        pictured="as recalled: test accuracy along the straight line, highest near the solution of small batches",
        measure=measures.best_place,
    ),
    _claim(
        name="small_batches_test_better",
        place="experiments, as recalled",
        statement="Going on with small batches raises the test accuracy.",
        quantity="test accuracy after small batches less that after large ones",
        sense="at least",
        threshold=0.0,
        why="0 is no difference.",
        tables=("basins/runs", "basins/barriers"),
        figure="*/line",
        pictured="as recalled: test accuracy along the straight line, higher at the end of small batches",
        measure=measures.test_accuracy_gain,
    ),
    _claim(
        name="moves_go_through_flat_directions",
        place="abstract",
        statement="From large to small batches the weights move through flat directions.",
        quantity="share of the squared move from large to continued small batches in the Hessian's top eigenspace",
        sense="at most",
        threshold=measures.MOST_IN_TOP,
        why="More of the move is outside of the few steep directions than in them. A random direction has C / p of it "
        "there: where that meets the criterion too, nothing is tested.",
        tables=("basins/runs", "basins/barriers"),
        figure="*/barriers",
        pictured="no figure known to us; as recalled: the size of the move, and gradients on top directions and bulk",
        measure=measures.move_in_top,
    ),
)
