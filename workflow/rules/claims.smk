# The papers' claims, held against the tables of all studies that the profile has; `snakemake claims` prints the verdicts.


rule claims_tables:
    input:
        script="workflow/scripts/tabulate_claims.py",
        code=code("claims", "studies", "runs", "trainers", "training/selection"),
        tables=[table for shown in SHOWN.values() for table in shown["tables"]],
    output:
        claims=f"{RESULTS}/claims.parquet",
        observations=f"{RESULTS}/claim_observations.parquet",
        text=f"{RESULTS}/claims.txt",
        record=f"{RESULTS}/claims.json",
    log:
        f"{LOGS}/claims_tables.log",
    localrule: True
    params:
        studies=list(SHOWN),
    message:
        "Holding the papers' claims against all tables"
    shell:
        "python {input.script} --results {RESULTS} --studies {params.studies} --output {RESULTS} --log {log}"


# Without an output it runs whenever it is asked for, so that it prints what was there already.
rule claims:
    input:
        rules.claims_tables.output.text,
    log:
        f"{LOGS}/claims.log",
    localrule: True
    message:
        "The papers' claims, by the tables in {RESULTS}/"
    shell:
        "tee {log} < {input}"
