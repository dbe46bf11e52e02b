# The report: claims, figures, tables, cost and provenance of the profile in one page that a reviewer reads.


rule report:
    input:
        script="workflow/scripts/build_report.py",
        code=code(
            "report",
            "claims",
            "recorded",
            "figures/style",
            "ledger",
            "runs",
            "planning/measured",
            "planning/stages",
            "studies/recording",
            "data/catalog",
        ),
        templates=sorted(map(str, Path("src/hessketch/report/templates").iterdir())),
        captions=[file for study in SHOWN if Path(file := f"workflow/report/{study}.rst").is_file()],
        config=rules.config.output,
        claims=rules.claims_tables.output,
        studies=[getattr(rules, study).input for study in SHOWN],
    output:
        f"{RESULTS}/report.html",
    log:
        f"{LOGS}/report.log",
    localrule: True
    params:
        configfiles=[os.path.relpath(file) for file in CONFIGFILES],
    message:
        "Writing the report"
    shell:
        "python {input.script} {RESULTS} --figures {FIGURES} --benchmarks {LOGS}/benchmarks"
        " --configfile {params.configfiles:q} --output {output} --log {log}"
