# Trainings by SGD that keep their weights on the way, for the studies that look at networks while they learn. One rule a
# job: jobs of a section differ in their runs, and an output must have a rule's wildcards.
TRAJECTORY_FILES = ["trajectory.safetensors", "history.parquet", "record.json"]
TRAJECTORY_CODE = [
    "training/trajectories", "training/trajectory", "training/steps", "training/captured", "training/micro_batches",
    "training/memory_format", "training/resume", "training/sgd", "training/settings", "networks", "data",
    "curvature/halving", "curvature/losses", "runs", "trainers", "seeds", "schedules", "described", "checkpoints",
    "trajectories", "publishing", "devices",
]  # fmt: skip


def trajectory_flags(study, dataset):
    section = with_dataset(config[study], dataset) if study == EIGENSPACES else config[study]
    names = ("epochs", "steps", "momentum", "weight_decay", "switch_step")
    return flags({**{name: section[name] for name in names if name in section}, "keep": kept_of(study, section)})


def kept_of(study, section):
    """Epochs of a section that counts them, else steps: those at which it looks at the weights."""
    if study == EIGENSPACES:
        return kept_steps(section)
    if study == BASINS:
        return [section["switch_step"], section["steps"]]
    return section.get("checkpoint_epochs") or section["checkpoint_steps"]


def is_first_network(study, run):
    """Whether a run's network is the first that its section names for its data set."""
    first = config[study]["datasets"][run.dataset]["networks"][0]
    return (run.network, run.norm, run.width) == (first["name"], first["norm"], first["width"])


def test_size_flag(study, dataset):
    size = config[study]["datasets"][dataset].get("test_examples_per_class")
    return flags({} if size is None else {"test_examples_per_class": size})


for study, jobs in TRAJECTORY_JOBS.items():
    for job, runs in jobs.items():

        rule:
            name:
                f"trajectories_{study}_{re.sub('[^A-Za-z0-9]+', '_', job)}"
            input:
                script="workflow/scripts/train_trajectories.py",
                code=code(*TRAJECTORY_CODE),
                data=f"resources/{runs[0].dataset}.safetensors",
            output:
                [f"{RESULTS}/{study}/runs/{run.path}/{file}" for run in runs for file in TRAJECTORY_FILES],
            log:
                f"{LOGS}/trajectories/{study}/{job}.log",
            benchmark:
                f"{LOGS}/benchmarks/trajectories/{study}/{job}.tsv"
            threads: THREADS_PER_JOB
            resources:
                **needs(mem_mb=8000, minutes=60, shares_gpu=True),
            params:
                runs=[run.path for run in runs],
                settings=trajectory_flags(study, runs[0].dataset),
                test=test_size_flag(study, runs[0].dataset),
                device=config["device"],
                folder=f"{RESULTS}/{study}/runs",
            message:
                f"Training {job}, keeping weights on the way"
            shell:
                "python {input.script} {params.runs} --data {input.data} {params.settings} {params.test}"
                " --device {params.device} --jobs-per-gpu {JOBS_PER_GPU} --threads {threads} --output {params.folder}"
                " --log {log}"
