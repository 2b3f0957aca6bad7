#!/usr/bin/env bash
# Run by Snakemake inside the new conda environment, from the root of the checkout.
set -euo pipefail
python -m pip install -c constraints.txt -e .
