# The study of The Full Spectrum of Deepnet Hessians (Papyan 2018): tables, figures, notebook.
STUDY = f"{RESULTS}/full_spectrum"
STUDY_TABLES = [
    "runs", "density", "ritz", "eigenvalues", "bounds", "sums",
    "outliers", "outlier_positions", "components", "tails", "training_table",
]  # fmt: skip
FIGURE_SIZES = flags(config["figures"])


def study_figures():
    """(variant, file name) to what the plotting script needs: every figure that this profile's spectra can fill."""
    splits = config["spectrum"]["splits"]
    deflated = config["spectrum"]["deflation_rank"] != 0
    summaries = ["accuracy", "outlier_count", "bulk_energy", "negative_mass", *["outlier_positions"] * deflated]
    of_network = [n for n, split in ((1, "train"), (2, "test")) if split in splits]
    of_spectrum = [3] * ("train" in splits and deflated) + [4] * ("test" in splits) + [5] * (len(splits) == 2)
    figures = {}
    for run in RUNS:
        variant, dataset, network = run.variant, run.dataset, run.network_label
        for name in summaries:
            figures[variant, name] = name
        for number in of_network:
            figures[variant, f"figure{number}-{network}"] = f"figure{number} --network {network}"
        for number in of_spectrum:
            arguments = f"figure{number} --dataset {dataset} --network {network} {FIGURE_SIZES}"
            figures[variant, f"figure{number}-{dataset}-{network}"] = arguments
    return figures


STUDY_FIGURES = study_figures()


rule full_spectrum_tables:
    localrule: True
    input:
        script="workflow/scripts/tabulate_full_spectrum.py",
        code=code(
            "studies", "linalg", "figures/html", "runs", "trainers", "config", "config_data", "config_schema",
            "federation_config", "federated/partition", "data/catalog", "data/integrity", "training/selection",
        ),  # fmt: skip
        config=rules.config.output,
        runs=[f"{RESULTS}/runs/{run.path}/record.json" for run in RUNS],
        selections=[f"{RESULTS}/selected/{cell}/selection.json" for cell in CELLS],
        spectra=expand("{folder}/{table}.parquet", folder=SPECTRA, table=SPECTRUM_TABLES),
        records=expand("{folder}/record.json", folder=SPECTRA),
    output:
        expand(f"{STUDY}/{{table}}.parquet", table=STUDY_TABLES),
        csv=f"{STUDY}/table1.csv",
        html=report(
            f"{STUDY}/table1.html",
            caption="../report/table1.rst",
            category="Full spectrum",
            subcategory="Tables",
            labels={"item": "Table 1"},
        ),
    log:
        f"{LOGS}/full_spectrum_tables.log",
    message:
        "Collecting all spectra into the study's tables"
    shell:
        "python {input.script} --config {input.config} --results {RESULTS} --output {STUDY} --log {log}"


rule full_spectrum_figure:
    localrule: True
    input:
        script="workflow/scripts/plot_full_spectrum.py",
        code=code("figures", "studies", "runs"),
        tables=rules.full_spectrum_tables.output,
    output:
        pdf=f"{FIGURES}/full_spectrum/{{variant}}/{{figure}}.pdf",
        png=report(
            f"{FIGURES}/full_spectrum/{{variant}}/{{figure}}.png",
            caption="../report/figure.rst",
            category="Full spectrum",
            subcategory="Figures, {variant}",
            labels={"item": "{figure}"},
        ),
    log:
        f"{LOGS}/full_spectrum_figure/{{variant}}/{{figure}}.log",
    params:
        figure=lambda w: STUDY_FIGURES[w.variant, w.figure],
    wildcard_constraints:
        variant="[^/]+",
        figure="|".join(sorted({re.escape(figure) for _, figure in STUDY_FIGURES})),
    message:
        "Drawing {wildcards.figure}"
    shell:
        "python {input.script} {params.figure} --variant {wildcards.variant} --tables {STUDY}"
        " --pdf {output.pdf} --png {output.png} --log {log}"


rule full_spectrum_notebook:
    localrule: True
    input:
        notebook="notebooks/full_spectrum.ipynb",
        template="workflow/notebook/offline/index.html.j2",
        code=code("figures", "studies", "runs"),
        tables=rules.full_spectrum_tables.output,
    output:
        report(
            f"{STUDY}/notebook.html",
            caption="../report/notebook.rst",
            category="Full spectrum",
            subcategory="Notebook",
            labels={"item": "Notebook"},
        ),
    log:
        f"{LOGS}/full_spectrum_notebook.log",
    message:
        "Running the notebook"
    shell:
        "HESSKETCH_RESULTS=$PWD/{RESULTS} jupyter nbconvert {input.notebook} --to html --execute"
        " --template offline --TemplateExporter.extra_template_basedirs=workflow/notebook"
        " --output-dir {STUDY} --output notebook.html > {log} 2>&1"


rule full_spectrum:
    localrule: True
    input:
        [
            f"{FIGURES}/full_spectrum/{variant}/{figure}.{format}"
            for variant, figure in STUDY_FIGURES
            for format in ("pdf", "png")
        ],
        expand(f"{STUDY}/{{table}}.parquet", table=STUDY_TABLES),
        f"{STUDY}/table1.csv",
        f"{STUDY}/table1.html",
        f"{STUDY}/notebook.html",
