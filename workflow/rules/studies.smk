# What every study shows, from its tables: figures, a notebook, and the target named as the study.
# A study's own file has put it into SHOWN; the loop makes its three rules.
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
        localrule: True
        input:
            script=f"workflow/scripts/plot_{study}.py",
            code=code(*ALWAYS_READ),
            tables=shown["tables"],
        output:
            pdf=f"{FIGURES}/{study}/{{folder}}/{{figure}}.pdf",
            png=report(
                f"{FIGURES}/{study}/{{folder}}/{{figure}}.png",
                caption=f"../report/{study}.rst",
                category=shown["title"],
                subcategory="Figures, {folder}",
                labels={"item": "{figure}"},
            ),
        log:
            f"{LOGS}/{study}_figure/{{folder}}/{{figure}}.log",
        params:
            figure=arguments_of(shown["figures"]),
            folder=f"{RESULTS}/{study}",
        wildcard_constraints:
            folder="|".join(sorted({re.escape(folder) for folder, _ in shown["figures"]})),
            figure="|".join(sorted({re.escape(figure) for _, figure in shown["figures"]})),
        message:
            "Drawing {wildcards.figure} of {wildcards.folder}"
        shell:
            "python {input.script} {params.figure} --tables {params.folder} --pdf {output.pdf} --png {output.png}"
            " --log {log}"

    rule:
        name:
            f"{study}_notebook"
        localrule: True
        input:
            notebook=f"notebooks/{study}.ipynb",
            template="workflow/notebook/offline/index.html.j2",
            code=code(*ALWAYS_READ),
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
        localrule: True
        input:
            [
                f"{FIGURES}/{study}/{folder}/{figure}.{format}"
                for folder, figure in shown["figures"]
                for format in ("pdf", "png")
            ],
            f"{RESULTS}/{study}/notebook.html",
            shown["tables"],
