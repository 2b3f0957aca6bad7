"""Write an experiment with all its defaults: what a run was made with, whatever the defaults become later.

With --entry, the experiment that trains one network of its zoo.
"""

import argparse
from pathlib import Path

import yaml

from pipeline.config import load_config, zoo_config


def main() -> None:
    """Command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--entry")
    parser.add_argument("--repeat", type=int, default=0)
    parser.add_argument("experiment", type=Path)
    arguments = parser.parse_args()
    cfg = load_config(arguments.experiment)
    if arguments.entry:
        cfg = zoo_config(cfg, arguments.entry, arguments.repeat)
    arguments.out.write_text(yaml.safe_dump(cfg.model_dump(mode="json"), sort_keys=False))


if __name__ == "__main__":
    main()
