# What every study shows, from its tables: figures, a notebook, and the target named as the study.
# A study's own file has put it into SHOWN; the loop makes its three rules. One of an extension names its own plotting
# `script`, and has neither caption nor notebook.
ALWAYS_READ = [
    "figures", "studies", "runs", "trainers", "training/selection", "linalg/outliers", "linalg/chance_overlaps",
    "linalg/dense_eigenpairs", "data/catalog",
    "data/dataset", "data/derived_names",
]  # fmt: skip


def arguments_of(figures):
    """A rule's parameter: what the plotting script needs for a figure. A loop's own variable would change under it."""
    return lambda w: figures[w.folder, w.figure]


for study, shown in SHOWN.items():

    rule:
        name:
            f"{study}_figure"
        input:
            script=shown.get("script", f"workflow/scripts/plot_{study}.py"),
            code=code(*ALWAYS_READ),
            tables=shown["tables"],
        output:
            pdf=f"{FIGURES}/{study}/{{folder}}/{{figure}}.pdf",
            png=report(
                f"{FIGURES}/{study}/{{folder}}/{{figure}}.png",
                caption=None if "script" in shown else f"../report/{study}.rst",
                category=shown["title"],
                subcategory="Figures, {folder}",
                labels={"item": "{figure}"},
            ),
        log:
            f"{LOGS}/{study}_figure/{{folder}}/{{figure}}.log",
        wildcard_constraints:
            folder="|".join(sorted({re.escape(folder) for folder, _ in shown["figures"]})),
            figure="|".join(sorted({re.escape(figure) for _, figure in shown["figures"]})),
        localrule: True
        params:
            figure=arguments_of(shown["figures"]),
            folder=f"{RESULTS}/{study}",
        message:
            "Drawing {wildcards.figure} of {wildcards.folder}"
        shell:
            "python {input.script} {params.figure} --tables {params.folder} --pdf {output.pdf} --png {output.png}"
            " --log {log}"

    if "script" not in shown:

        rule:
            name:
                f"{study}_notebook"
            input:
                notebook=f"notebooks/{study}.ipynb",
                template="workflow/notebook/offline/index.html.j2",
                code=code(*ALWAYS_READ, "claims", "study_folders"),
                tables=shown["tables"],
            output:
                report(
                    f"{RESULTS}/{study}/notebook.html",
                    caption=f"../report/{study}_notebook.rst",
                    category=shown["title"],
                    subcategory="Notebook",
                    labels={"item": "Notebook"},
                ),
            log:
                f"{LOGS}/{study}_notebook.log",
            localrule: True
            params:
                folder=f"{RESULTS}/{study}",
            message:
                f"Running the notebook of {study}"
            shell:
                "HESSKETCH_RESULTS=$PWD/{RESULTS} jupyter nbconvert {input.notebook} --to html --execute"
                " --template offline --TemplateExporter.extra_template_basedirs=workflow/notebook"
                " --output-dir {params.folder} --output notebook.html > {log} 2>&1"

    rule:
        name:
            study
        input:
            [
                f"{FIGURES}/{study}/{folder}/{figure}.{format}"
                for folder, figure in shown["figures"]
                for format in ("pdf", "png")
            ],
            [] if "script" in shown else f"{RESULTS}/{study}/notebook.html",
            shown["tables"],
        localrule: True
