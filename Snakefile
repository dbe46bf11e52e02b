# From images to the figures of the papers. `snakemake --cores all` runs the demo profile;
# `snakemake --cores all --configfile config/fashion_mnist_cpu.yaml` another one.
from snakemake.utils import min_version

min_version("9.27")


# A configfile of the command line is merged over this one, so the demo is only the default.
if not workflow.config_settings.configfiles:

    configfile: "config/demo.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/spectra.smk"
include: "workflow/rules/full_spectrum.smk"


if "federation" in config:

    include: "workflow/rules/federated.smk"
    include: "workflow/rules/sharper_sketching.smk"


include: "workflow/rules/trajectories.smk"


if PREDICTOR in config:

    include: "workflow/rules/predictor_hessian.smk"


if DYNAMICS in config:

    include: "workflow/rules/sgd_dynamics.smk"


if EIGENSPACES in config:

    include: "workflow/rules/eigenspaces.smk"


if OVER_PARAMETRIZED in config:

    include: "workflow/rules/over_parametrized.smk"


if BASINS in config:

    include: "workflow/rules/basins.smk"


if HIERARCHY in config:

    include: "workflow/rules/outlier_hierarchy.smk"


for file in extensions_of(config, ".smk"):

    include: os.path.abspath(file)


include: "workflow/rules/studies.smk"
include: "workflow/rules/claims.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/reference.smk"


rule all:
    default_target: True
    input:
        [getattr(rules, study).input for study in SHOWN],
        rules.claims_tables.output,
        rules.report.output,


onstart:
    start_or_explain()


onsuccess:
    places = {"Figures": [FIGURES], "Tables and notebooks": [f"{RESULTS}/{study}" for study in SHOWN]}
    print("", *(f"{name}: {found}" for name, folders in places.items() if (found := existing(folders))), sep="\n")
    if Path(f"{RESULTS}/report.html").is_file():
        print(f"Report: {RESULTS}/report.html")
    print(f"Snakemake's own report: snakemake {report_arguments()}")


onerror:
    print(
        "\nA job failed: its log is shown above (one that ends without an error was killed: often for want of memory)."
    )
    print("Mend the cause and run the same command again: it resumes.")
