"""One module per Snakemake rule and sub-command."""
