"""Jobs that take spectra: of selected networks, of kept weights, of single examples' predictions, and by classes."""

from typing import Any

from hessketch.config import LANCZOS_STEPS, runs_of, trajectory_runs_of
from hessketch.config_runs import job_of
from hessketch.data.catalog import describe
from hessketch.federation_config import federated_runs_of, group_of, spectra_of
from hessketch.landscape_configs import is_of_hierarchy
from hessketch.linalg.fast_spectrum import FastSettings
from hessketch.linalg.paper_spectrum import PaperSettings, products_needed
from hessketch.planning.jobs import Job, Plan, converged_steps, evaluated, gathered
from hessketch.planning.sizes import NetworkSize
from hessketch.planning.trainings import federate_names, trajectory_name
from hessketch.planning.work import NOTHING, Work, calls, dense, passes, together
from hessketch.runs import Run
from hessketch.trajectory_configs import PREDICTOR, predictor_trainers_of

COMPONENTS = ("hessian", "ggn", "residual")
FILES_OF_SPECTRUM, FILES_OF_PREDICTOR = 5, 2  # tables
NOT_DEFLATED = ("residual",)
# Further operators are taken to cost what these do; one of an extension, what a Hessian does.
_AS_DEAR = {"second_moment": "ggn", "gradient_covariance": "ggn"}
# Operations of a pass forwards to each number of a kept gradient, from which on class means keep them.
LEAST_SHARING = 2.0


def spectrum_jobs(plan: Plan) -> list[Job]:
    """One for each selected network and split: all operators."""
    jobs, config = [], plan.config
    for cell, runs in gathered(runs_of(config), lambda run: run.cell.path).items():
        network = plan.network(runs[0])
        for split in config["spectrum"]["splits"]:
            n = _averaged(plan, runs[0], config["datasets"][runs[0].dataset], split)
            kinds = [*COMPONENTS, *(_AS_DEAR.get(name, "hessian") for name in config["spectrum"]["operators"])]
            work = together(_spectrum(plan, network, n, kind, runs[0], config["spectrum"]) for kind in kinds)
            work += evaluated(network, n) + calls("file", FILES_OF_SPECTRUM * len(kinds))
            jobs.append(Job("spectrum", f"spectrum/{cell}/{split}", work, (f"selected/{cell}",)))
    return jobs


def _averaged(plan: Plan, run: Run, settings: dict[str, Any], split: str) -> int:
    """Examples that an operator averages over."""
    size = run.examples_per_class if split == "train" else settings["test_examples_per_class"]
    return plan.scale.examples_of(run.dataset, size, split)


def _spectrum(
    plan: Plan, network: NetworkSize, n: int, kind: str, run: Run, settings: dict[str, Any], method: str = ""
) -> Work:
    """One operator's spectrum, by the method of the settings or a given one."""
    method = method or settings["method"]
    rank = describe(run.dataset).classes if settings["deflation_rank"] == "classes" else settings["deflation_rank"]
    rank = 0 if kind in NOT_DEFLATED else rank
    own = LANCZOS_STEPS[method]
    asked = settings.get("lanczos_steps", own) if method == settings["method"] else own
    if method == "fast":
        vectors = settings.get("start_vectors", FastSettings.start_vectors)
        most = settings.get("max_steps", FastSettings.max_steps)
        first = min(converged_steps(rank, asked), most, network.parameters)
        runs = [first, *[min(asked, network.parameters)] * (vectors - 1)]
        return together(plan.products(kind, network, n, steps, lanczos=True) for steps in runs)
    names = ("normalization_steps", "start_vectors", "deflation_iterations", "kpm_moments", "reorthogonalize")
    given = {name: settings[name] for name in names if name in settings}
    chosen = PaperSettings(lanczos_steps=asked, deflation_rank=rank, grid_points=max(asked, 16), **given)
    work = plan.products(kind, network, n, products_needed(chosen))
    work += dense("basis", network.parameters, rank, rank * chosen.deflation_iterations / 4)  # of each block its QR
    vectors = 3 + 4 * rank + (chosen.lanczos_steps if chosen.reorthogonalize else 0)
    return work.holding(4.0 * network.parameters * vectors)


def checkpoint_jobs(plan: Plan) -> list[Job]:
    """One for each federated cell whose kept weights get spectra; all losses to be reached are taken to be."""
    federation = plan.config.get("federation")
    if federation is None:
        return []
    kept = len(federation["checkpoint_rounds"]) + len(federation["checkpoint_losses"])
    jobs, runs = [], federated_runs_of(plan.config)
    groups = gathered(runs, group_of)
    for cell, of_cell in gathered(runs, lambda run: run.cell.path).items():
        run = of_cell[0]
        if run.trainer not in spectra_of(federation):
            continue
        network, work = plan.network(run), NOTHING
        for split in plan.config["spectrum"]["splits"]:
            n = _averaged(plan, run, federation["datasets"][run.dataset], split)
            settings = {**plan.config["spectrum"], "deflation_rank": "classes"}
            one = _spectrum(plan, network, n, "hessian", run, settings, "fast") + evaluated(network, n)
            one += calls("file", 2 * FILES_OF_SPECTRUM)  # written, and read where all are joined
            work += (one + passes("gradient", network, n, split == "train")) * kept
        after = federate_names(plan, groups[group_of(run)])
        jobs.append(Job("checkpoint_spectra", f"checkpoint_spectra/{cell}", work, after))
    return jobs


def predictor_jobs(plan: Plan) -> list[Job]:
    """Predictor Hessians of single examples, along followed trainings and rounds."""
    section = plan.config.get(PREDICTOR)
    if section is None:
        return []
    jobs = []
    runs = trajectory_runs_of(plan.config)[PREDICTOR]
    for job, of_job in gathered(runs, lambda run: job_of(section, run)).items():
        work = together(_predictors(section, plan.network(run)) * len(section["checkpoint_epochs"]) for run in of_job)
        after: tuple[str, ...] = (trajectory_name(PREDICTOR, job),)
        jobs.append(Job("predictor_spectra", f"predictor_spectra/{job}", work, after))
    for group, of_group in gathered(federated_runs_of(plan.config), group_of).items():
        if of_group[0].trainer not in predictor_trainers_of(plan.config):
            continue
        federation = plan.config["federation"]
        looks = len(federation["checkpoint_rounds"]) * len(federation["seeds"])
        work, after = _predictors(section, plan.network(of_group[0])) * looks, federate_names(plan, of_group)
        jobs.append(Job("federated_predictor_spectra", f"federated_predictor_spectra/{group}", work, after))
    return jobs


def _predictors(section: dict[str, Any], network: NetworkSize) -> Work:
    """All examples and estimators at one point."""
    work, p = NOTHING, network.parameters
    if "paper" in section["estimators"]:
        steps = min(section["lanczos_steps"], p)
        work += _runs_of_one(network, steps) * section["start_vectors"]
    if "fast" in section["estimators"]:
        least = min(section["fast_steps"], p)
        first = min(converged_steps(section["top"], least), p)
        work += _runs_of_one(network, first) + _runs_of_one(network, least) * (section["fast_start_vectors"] - 1)
    work += passes("graph", network, 1) + calls("file", FILES_OF_PREDICTOR)
    return work * len(section["examples"])


def _runs_of_one(network: NetworkSize, steps: float) -> Work:
    work = passes("residual", network, 1, steps) + dense("basis", network.parameters, steps / 2, steps)
    return work.holding(4.0 * network.parameters * steps)


def hierarchy_jobs(plan: Plan) -> list[Job]:
    """Class means of the selected networks of the outliers' study."""
    jobs = []
    for cell, runs in gathered(runs_of(plan.config), lambda run: run.cell.path).items():
        if is_of_hierarchy(plan.config, runs[0]):
            work = _hierarchy(plan, plan.network(runs[0]), plan.scale.trained_on(runs[0]))
            jobs.append(Job("class_means", f"class_means/{cell}", work, (f"selected/{cell}",)))
    return jobs


def _hierarchy(plan: Plan, network: NetworkSize, n: int) -> Work:
    """Cross-class means, and the leading eigenvalues, two a class, of G, G0 and G3."""
    classes, p = network.outputs, network.parameters
    batch = plan.config["spectrum"]["batch_size"]
    work = passes("gradient", network, n, classes, batch=batch)
    steps = converged_steps(2 * classes)
    kept = 4.0 * n * classes * p
    if kept <= plan.graphs() and network.flops >= LEAST_SHARING * classes * p:
        work += passes("gradient", network, n, classes, batch=batch)  # the terms
        # A product passes twice over the terms, a projection four times over its basis.
        work += dense("basis", p, n * classes / 2, 3 * steps) + dense("basis", p, steps / 2, 3 * steps)
        work = work.holding(3 * kept)  # the terms, and what they are put together from
    else:
        work += plan.products("ggn", network, n, steps, lanczos=True) * 3
    return work.holding(4.0 * p * classes**2)
