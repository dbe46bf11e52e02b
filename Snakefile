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


rule all:
    default_target: True
    input:
        rules.full_spectrum.input,
        rules.sharper_sketching.input if "federation" in config else [],


onstart:
    start_or_explain()


onsuccess:
    studies = ["full_spectrum", *(["sharper_sketching"] if "federation" in config else [])]
    print(f"\nFigures: {FIGURES}/\nTables and notebook: {', '.join(f'{RESULTS}/{study}/' for study in studies)}")
    print(f"Report:  snakemake {report_arguments()}")


onerror:
    print("\nA job failed: its log is shown above. Mend the cause and run the same command again: it resumes.")
