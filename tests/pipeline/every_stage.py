"""A tiny profile with every section and as few and small jobs as there can be: each stage runs once or twice."""

MLP = {"name": "mlp", "norm": "none", "width": 0.02}
DATA = "digits-8x8"
OF_DATA = {"test_examples_per_class": 2, "learning_rate": 0.1, "networks": [MLP]}
PROFILE = {
    "datasets": {
        DATA: {"examples_per_class": [3], "test_examples_per_class": 2, "learning_rates": [0.05], "epochs": 3}
    },
    "networks": [MLP],
    "training": {"batch_size": 16, "checkpoint_epochs": [1, 2]},
    "spectrum": {
        "splits": ["train"], "lanczos_steps": 12, "grid_points": 32, "deflation_rank": 2, "kpm_moments": 8,
    },
    "figures": {"figure3_examples_per_class": 3, "figure4_examples_per_class": 3},
    "outlier_hierarchy": {"examples_per_class": [3]},
    "federation": {
        "datasets": {DATA: {"examples_per_class": 4, "test_examples_per_class": 2}},
        "networks": [MLP], "seeds": [0], "methods": ["count_sketch"], "reductions": [2.5], "learning_rates": [0.03],
        "clients": 4, "rounds": 3, "local_steps": 1, "checkpoint_rounds": [1, 3], "checkpoint_losses": [5],
        "spectra_of": ["count_sketch-x2.5"],
    },
    "predictor_hessian": {
        "datasets": {
            "digits-classes3+8": {"examples_per_class": 2, "learning_rates": {"binary_cross_entropy": 0.05}}
        },
        "networks": [MLP], "seeds": [0], "epochs": 2, "checkpoint_epochs": [0, 2], "examples": [0],
        "lanczos_steps": 5, "start_vectors": 1, "fast_steps": 6, "fast_start_vectors": 1, "top": 1, "grid_points": 16,
        "trainers": ["count_sketch-x2.5"],
    },
    "sgd_dynamics": {
        "datasets": {DATA: {"examples_per_class": [4], **OF_DATA}},
        "seeds": [0], "batch_sizes": [10], "steps": 60, "checkpoint_steps": [0, 60], "top": 3, "samples": 30,
        "posterior_samples": 10, "sigmas": [0.1, 1],
    },
    "eigenspaces": {
        "datasets": {DATA: {"examples_per_class": 4, "hessian_examples_per_class": 2, **OF_DATA}},
        "seeds": [0], "batch_size": 20, "steps": 20, "checkpoint_steps": [0, 20], "stability_steps": [0, 10, 20],
        "splits": ["train"], "pairs": 0.05, "probes": 4, "trainers": ["count_sketch-x2.5"],
        "metric_study": {"dimensions": [16], "ratios": [0.5], "samples": 2},
    },
    "over_parametrized": {
        "datasets": {DATA: {"examples_per_class": 4, **OF_DATA}},
        "seeds": [0], "batch_size": 10, "steps": 20, "checkpoint_steps": [0, 20],
    },
    "basins": {
        "datasets": {DATA: {"examples_per_class": 4, **OF_DATA}},
        "seeds": [0, 1], "large_batch": "all", "small_batch": 10, "steps": 20, "switch_step": 10, "path_steps": 20,
        "points": 2,
    },
}  # fmt: skip
STUDIES = (
    "full_spectrum", "sharper_sketching", "predictor_hessian", "sgd_dynamics", "eigenspaces", "over_parametrized",
    "basins", "outlier_hierarchy",
)  # fmt: skip
FIGURE = f"figures/tiny/over_parametrized/{DATA}-mlp-none-w0.02"
