# Recorded studies: `record_reference` writes small tables of this profile's studies into results/reference/, and
# `reference_figures` draws the figures of all that are recorded there, without their runs, their data or a GPU;
# `reference_claims` holds the papers' claims against them.
from hessketch.errors import InputError
from hessketch.recordings import recorded_figures

REFERENCE = "results/reference"
if config["profile"] == "reference":
    stop_with(["profile: reference is where studies are recorded; give it another name"])


def records_of(study):
    """Records of the jobs that a study's tables are made of: each lies beside what its job measured."""
    folders = {os.path.dirname(file) for file in getattr(rules, f"{study}_tables").input}
    return sorted(f"{folder}/record.json" for folder in folders if folder.startswith((f"{RESULTS}/runs/", *MEASURED)))


# Folders in which every job leaves a record beside its tables.
MEASURED = [
    f"{RESULTS}/{name}/"
    for name in ("spectra", "checkpoint_spectra")
    + tuple(f"{study}/{part}" for study in SHOWN for part in ("runs", "spectra", "measured", "federated"))
]

for study, shown in SHOWN.items():

    # What is recorded is no output: nothing depends on it, and nothing that is recorded is ever made anew unasked.
    rule:
        name:
            f"record_{study}"
        input:
            script="workflow/scripts/record_reference.py",
            code=code("studies/recording", "recordings"),
            config=rules.config.output,
            tables=shown["tables"],
        output:
            f"{RESULTS}/{study}/recorded.json",
        log:
            f"{LOGS}/record_reference/{study}.log",
        localrule: True
        params:
            records=records_of(study),
            figures=json.dumps({f"{folder}/{name}": words for (folder, name), words in shown["figures"].items()}),
            tables=f"{RESULTS}/{study}",
            folder=f"{REFERENCE}/{config['profile']}/{study}",
        message:
            f"Recording the tables of {study}"
        shell:
            "python {input.script} --tables {params.tables} --config {input.config} --records {params.records}"
            " --figures {params.figures:q} --output {params.folder} --note {output} --log {log}"


rule record_reference:
    input:
        expand(f"{RESULTS}/{{study}}/recorded.json", study=SHOWN),
    localrule: True


@functools.cache
def recorded():
    """The figures of each recorded profile and study, looked up when they are asked for."""
    try:
        return recorded_figures(REFERENCE)
    except InputError as error:
        raise WorkflowError(f"{error}; a file of the repository comes back by: git checkout {REFERENCE}")


rule reference_figure:
    input:
        script="workflow/scripts/plot_{study}.py",
        code=code(*ALWAYS_READ),
        tables=lambda w: sorted(map(str, Path(REFERENCE, w.recorded, w.study).glob("*.parquet"))),
    output:
        pdf="figures/reference/{recorded}/{study}/{folder}/{figure}.pdf",
        png="figures/reference/{recorded}/{study}/{folder}/{figure}.png",
    log:
        "logs/reference/{recorded}/{study}/{folder}/{figure}.log",
    wildcard_constraints:
        recorded="[^/]+",
        study="[^/]+",
        folder="[^/]+",
        figure="[^/]+",
    localrule: True
    params:
        figure=lambda w: shlex.join(recorded()[w.recorded, w.study][f"{w.folder}/{w.figure}"]),
        tables=f"{REFERENCE}/{{recorded}}/{{study}}",
    message:
        "Drawing {wildcards.figure} of {wildcards.folder} as recorded with {wildcards.recorded}"
    shell:
        "python {input.script} {params.figure} --tables {params.tables} --pdf {output.pdf} --png {output.png}"
        " --log {log}"


rule reference_figures:
    input:
        lambda w: [
            f"figures/reference/{profile}/{study}/{figure}.{format}"
            for (profile, study), figures in recorded().items()
            for figure in figures
            for format in ("pdf", "png")
        ],
    localrule: True


rule record_claims:
    input:
        script="workflow/scripts/tabulate_claims.py",
        code=code("claims", "studies", "runs", "trainers", "training/selection"),
        tables=lambda w: sorted(map(str, Path(REFERENCE, w.recorded).glob("*/*.parquet"))),
    output:
        claims=f"{REFERENCE}/{{recorded}}/claims.parquet",
        observations=f"{REFERENCE}/{{recorded}}/claim_observations.parquet",
        text=f"{REFERENCE}/{{recorded}}/claims.txt",
        record=f"{REFERENCE}/{{recorded}}/claims.json",
    log:
        "logs/reference/{recorded}/claims.log",
    wildcard_constraints:
        recorded="[^/]+",
    localrule: True
    params:
        folder=f"{REFERENCE}/{{recorded}}",
        studies=lambda w: [study for profile, study in recorded() if profile == w.recorded],
    message:
        "Holding the papers' claims against the tables recorded with {wildcards.recorded}"
    shell:
        "python {input.script} --results {params.folder} --studies {params.studies} --output {params.folder} --log {log}"


rule reference_claims:
    input:
        lambda w: expand(f"{REFERENCE}/{{profile}}/claims.parquet", profile=dict.fromkeys(p for p, _ in recorded())),
    localrule: True
