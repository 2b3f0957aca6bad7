"""Write an experiment with all its defaults: what a run was made with, whatever the defaults become later."""

import argparse
from pathlib import Path

import yaml

from pipeline.config import load_config


def main() -> None:
    """Command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("experiment", type=Path)
    arguments = parser.parse_args()
    resolved = load_config(arguments.experiment).model_dump(mode="json")
    arguments.out.write_text(yaml.safe_dump(resolved, sort_keys=False))


if __name__ == "__main__":
    main()
