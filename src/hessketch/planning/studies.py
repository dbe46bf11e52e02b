"""Jobs of the studies that look at small networks, or along trainings: what is measured at kept weights."""

from collections.abc import Mapping
from typing import Any

from hessketch.config import trajectory_runs_of
from hessketch.config_runs import job_of
from hessketch.data.catalog import describe
from hessketch.eigenspace_config import EIGENSPACES, eigenspace_trainers_of, with_dataset
from hessketch.federation_config import federated_runs_of, group_of
from hessketch.landscape_configs import BASINS, OVER_PARAMETRIZED
from hessketch.linalg.sketch_sizes import default_measurements
from hessketch.planning.jobs import GRAPH_BYTES, Job, Plan, converged_steps, gathered
from hessketch.planning.sizes import NetworkSize
from hessketch.planning.trainings import federate_names, test_examples, trajectory_name
from hessketch.planning.work import NOTHING, Work, calls, dense, passes, side_by_side, together
from hessketch.runs import Run
from hessketch.trainers import Trainer
from hessketch.trajectory_configs import DYNAMICS, followed_size, top_of

ROWS_AT_ONCE = 64  # of a Hessian that is formed
BLOCK_BYTES = 2**28  # that these rows may take
NUMBERS_AT_ONCE = 2**19  # of the widest layer, where losses are taken at many points
SCHEMES = 3  # of steps whose loss changes are measured, two of them with moments of their own
KINDS_OF_PAIRS = 3  # of random spaces and masks
FILES_OF_POINT = 5  # tables of masks and eigenspaces
FORMED = 1000  # parameters up to which eigenspaces of the stability are those of a matrix
PATH_BATCH = 100  # examples in a step of a path's search
_PAIRS_TOLERANCE = 2  # more steps a pair for residuals of 1e-5 than for those of 1e-3


def formed(network: NetworkSize, n: float, vectors: float | None = None) -> Work:
    """A Hessian formed row by row and decomposed whole: all its eigenvectors, or so many of them."""
    p = network.parameters
    work = side_by_side("rows", network, n, p, ROWS_AT_ONCE)
    kind = "eigh" if vectors is None or 4 * vectors > p else "tridiagonal"
    work += dense(kind, p)
    return work.holding(8.0 * p * p * (4 if kind == "eigh" else 1) + _block(network, n))


def _block(network: NetworkSize, n: float) -> float:
    """Bytes of the rows of a Hessian that are formed at once, in float64."""
    return min(BLOCK_BYTES, 2 * GRAPH_BYTES * network.activations * n * min(ROWS_AT_ONCE, network.parameters))


def at_points(network: NetworkSize, n: float, points: float) -> Work:
    """Losses or errors over n examples at so many points of the parameter space."""
    at_once = NUMBERS_AT_ONCE / network.widest / max(1.0, min(n, NUMBERS_AT_ONCE / network.widest))
    return side_by_side("points", network, n, points, max(1.0, at_once))


def dynamics_jobs(plan: Plan) -> list[Job]:
    """Measurements along the trainings of the SGD study."""
    section = plan.config.get(DYNAMICS)
    if section is None:
        return []
    jobs = []
    for job, runs in _of_section(plan, DYNAMICS, section).items():
        work = together(_dynamics(plan, section, run) for run in runs)
        jobs.append(Job("sgd_dynamics_measures", f"sgd_dynamics/{job}", work, (trajectory_name(DYNAMICS, job),)))
    return jobs


def _of_section(plan: Plan, study: str, section: Mapping[str, Any]) -> dict[str, list[Run]]:
    return gathered(trajectory_runs_of(plan.config)[study], lambda run: job_of(section, run))


def _dynamics(plan: Plan, section: Mapping[str, Any], run: Run) -> Work:
    network, n, p = plan.network(run), plan.scale.trained_on(run), plan.network(run).parameters
    batch = min(Trainer.parse(run.trainer).batch_size or n, n)
    looks = len(section["checkpoint_steps"]) if run.examples_per_class == followed_size(plan.config, run) else 0
    exact = p <= section["exact_up_to"]
    samples = section["samples"] if batch < n else 1
    k = top_of(section, run.dataset)
    one = at_points(network, n, SCHEMES * samples + 1)
    if exact:
        one += _exact_point(network, n) + _moments(network, n) + dense("product", p, samples * n / p)
    else:
        one += _point_by_products(plan, network, n, k) + passes("gradient", network, batch, samples)
        probes = 2 * section["probes"] * 2 if batch < n else 0
        one += plan.products("hessian", network, n, probes + 2) + passes("gradient", network, n, 2 * (probes + 4))
    draws = section["posterior_samples"] * len(section["sigmas"])
    bound = at_points(network, n + test_examples(plan, DYNAMICS, run), draws)
    if not looks:  # else the last point has it already
        bound += _exact_point(network, n) if exact else NOTHING
    if not exact:
        bound += plan.products("hessian", network, n, section["products"])
    return one * looks + bound


def _exact_point(network: NetworkSize, n: int) -> Work:
    """The Hessian's matrix and the gradients of all examples."""
    return side_by_side("rows", network, n, network.parameters, ROWS_AT_ONCE) + _gradients(network, n)


def _gradients(network: NetworkSize, n: float) -> Work:
    """Each example's own gradient."""
    return passes("jacobians", network, n)


def _moments(network: NetworkSize, n: int) -> Work:
    """Eigenpairs of a Hessian and of two moments of n gradients, and the forms of two kinds of steps."""
    p, rank = network.parameters, min(n, network.parameters)
    of_moment = dense("svd", p, rank) if n < p else dense("product", p, n / 2) + dense("eigh", p)
    forms = (dense("product", p, rank) + dense("product", rank, p) + dense("eigh", rank)) * (SCHEMES - 1)
    work = dense("eigh", p) + of_moment * 2 + forms
    return work.holding(8.0 * (5 * p * p + 3 * n * p) + _block(network, n))


def _point_by_products(plan: Plan, network: NetworkSize, n: int, k: int) -> Work:
    """Leading eigenpairs of the Hessian and of two moments by Lanczos."""
    steps = converged_steps(_PAIRS_TOLERANCE * k)
    work = plan.products("hessian", network, n, steps, lanczos=True)
    return work + plan.products("ggn", network, n, steps, lanczos=True) * 2 + _gradients(network, n) * 2


def eigenspace_jobs(plan: Plan) -> list[Job]:
    """Masks and eigenspaces along trainings and rounds, and the study of the metrics."""
    section = plan.config.get(EIGENSPACES)
    if section is None:
        return []
    jobs = [Job("metric_study", "metric_study", _metrics(section["metric_study"]))]
    for job, runs in _of_section(plan, EIGENSPACES, section).items():
        own, sizes = with_dataset(section, runs[0].dataset), section["datasets"][runs[0].dataset]
        network = plan.network(runs[0])
        n = plan.scale.examples_of(runs[0].dataset, sizes["hessian_examples_per_class"])
        points = len(own["checkpoint_steps"]) * len(own["splits"])
        work = _eigenspaces(plan, own, network, n) * points + _stability(plan, own, network, n)
        after: tuple[str, ...] = (trajectory_name(EIGENSPACES, job),)
        jobs.append(Job("eigenspaces_measures", f"eigenspaces/{job}", work * len(runs), after))
    first = next(iter(section["datasets"].values()))["hessian_examples_per_class"]
    for group, runs in gathered(federated_runs_of(plan.config), group_of).items():
        if runs[0].trainer in eigenspace_trainers_of(plan.config):
            federation, own = plan.config["federation"], with_dataset(section, runs[0].dataset)
            sizes = [first, *(size for size in _sizes(federation, runs[0]) if size != "all")]
            n = plan.scale.examples_of(runs[0].dataset, min(sizes))
            points = len(federation["checkpoint_rounds"]) * len(own["splits"]) * len(federation["seeds"])
            work = _eigenspaces(plan, own, plan.network(runs[0]), n) * points
            name, after = f"federated_eigenspaces/{group}", federate_names(plan, runs)
            jobs.append(Job("federated_eigenspaces", name, work, after))
    return jobs


def _sizes(federation: Mapping[str, Any], run: Run) -> list[int | str]:
    settings = federation["datasets"][run.dataset]
    return [settings["examples_per_class"], settings["test_examples_per_class"]]


def pairs_of(given: float, parameters: int) -> int:
    """Eigenpairs that are asked for: a number of them, or a share of the parameters."""
    return int(given) if given >= 1 else max(1, round(given * parameters))


def _eigenspaces(plan: Plan, section: Mapping[str, Any], network: NetworkSize, n: int) -> Work:
    """All methods at one point and split."""
    p = network.parameters
    pairs = pairs_of(section["pairs"], p)
    work = plan.products("hessian", network, n, 1)
    if "exact" in section["methods"] and p <= section["exact_up_to"]:
        work += formed(network, n, pairs) + dense("product", p, pairs)
    if "sketched" in section["methods"]:
        count = section["measurements"] or default_measurements(pairs)
        sketch = plan.products("hessian", network, n, count + section["probes"])
        sketch += dense("basis", p, count / 2, count) + dense("eigh", count)
        # What memory does not hold goes to the disk.
        work += sketch.holding(min(3 * 4.0 * p * count, plan.memory / 2))
    if "lanczos" in section["methods"]:
        work += plan.products("hessian", network, n, converged_steps(pairs), lanczos=True)
    methods = len(section["methods"]) - (p > section["exact_up_to"] and "exact" in section["methods"])
    return work + calls("masks", methods) + calls("file", FILES_OF_POINT)


def _stability(plan: Plan, section: Mapping[str, Any], network: NetworkSize, n: int) -> Work:
    """Eigenspaces of the steps that are compared two by two."""
    p, steps = network.parameters, len(section["stability_steps"])
    most = pairs_of(section["pairs"], p)
    sizes = [k for ratio in section["stability_ratios"] if (k := pairs_of(ratio, p)) <= most]
    if not sizes or not steps:
        return NOTHING
    k = max(sizes)
    one = formed(network, n, k)
    if p > FORMED:
        one = plan.products("hessian", network, n, converged_steps(k), lanczos=True)
    compared = dense("basis", p, k / 4, k * steps * (steps + 1) / 2)
    return (one * steps + compared) * len(section["splits"])


def _metrics(settings: Mapping[str, Any]) -> Work:
    """Random spaces of each dimension and ratio, and their principal angles."""
    work = NOTHING
    for dimension in settings["dimensions"]:
        for ratio in settings["ratios"]:
            k = max(1, round(ratio * dimension))
            k = min(k, dimension - k)  # two larger spaces share all but so many dimensions
            if k:
                # In two kinds of pairs: three bases by QR, half the work of singular values; cosines and sines.
                pairs = dense("svd", dimension / 2, k, 3) + dense("svd", k, k, 2) + dense("svd", dimension, k, 2)
                pairs += calls("angles", KINDS_OF_PAIRS)
                work += pairs * settings["samples"]
    return work


def exact_jobs(plan: Plan) -> list[Job]:
    """Exact spectra along the trainings of small networks."""
    section = plan.config.get(OVER_PARAMETRIZED)
    if section is None:
        return []
    jobs = []
    for job, runs in _of_section(plan, OVER_PARAMETRIZED, section).items():
        one = _exact(section, plan.network(runs[0]), plan.scale.trained_on(runs[0]))
        after = (trajectory_name(OVER_PARAMETRIZED, job),)
        jobs.append(
            Job("exact_spectra", f"exact_spectra/{job}", one * len(section["checkpoint_steps"]) * len(runs), after)
        )
    return jobs


def _exact(section: Mapping[str, Any], network: NetworkSize, n: int) -> Work:
    """Hessian, GGN and output gradients at one point: the latter two on the smaller side of n C gradients."""
    p, rows = network.parameters, n * network.outputs
    top = section["top"] or network.outputs + 1
    rank = min(p, rows)
    moment = passes("jacobians", network, rows) + dense("product", rank, p * rows / rank) + formed_whole(rank, top)
    return formed(network, n, top) + (moment * 2).holding(8.0 * (min(rows, p) * p + rank * rank))


def formed_whole(size: int, vectors: int) -> Work:
    """The decomposition of a matrix of which so many eigenvectors are wanted."""
    return dense("eigh" if 4 * vectors > size else "tridiagonal", size)


def basin_jobs(plan: Plan) -> list[Job]:
    """Lines and paths between the ends of trainings by large and by small batches."""
    section = plan.config.get(BASINS)
    if section is None:
        return []
    jobs, runs = [], trajectory_runs_of(plan.config)[BASINS]
    for solved, of_network in gathered(runs, lambda run: f"{run.dataset}/{run.network_label}").items():
        switched = [run for run in of_network if Trainer.parse(run.trainer).later_batch_size is not None]
        # A pair with the run that goes on, with one from the same start, and, of several seeds, from another.
        pairs = len(switched) * (3 if len(section["seeds"]) > 1 else 2)
        network, n = plan.network(of_network[0]), plan.scale.trained_on(of_network[0])
        points = 4 * section["points"] + 2
        pair = passes("train", network, min(PATH_BATCH, n), section["path_steps"])
        pair += dense("basis", network.parameters, section["bends"] * 2, section["path_steps"])
        pair += at_points(network, n + test_examples(plan, BASINS, of_network[0]), points)
        steps = converged_steps(_PAIRS_TOLERANCE * describe(of_network[0].dataset).classes)
        top = plan.products("hessian", network, n, steps, lanczos=True)
        after = tuple(dict.fromkeys(trajectory_name(BASINS, job_of(section, run)) for run in of_network))
        jobs.append(Job("basins_paths", f"basins/{solved}", pair * pairs + top * len(switched), after))
    return jobs
