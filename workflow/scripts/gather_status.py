"""Gather the `status.json` of many ingested files into one file, by the name of each file's folder."""

import argparse
import json
from pathlib import Path


def gather(folders: list[Path]) -> dict[str, dict]:
    """Status record of each folder's one input file, with the input's file name under ``input``."""
    gathered = {}
    for folder in folders:
        ((name, record),) = json.loads((folder / "status.json").read_text()).items()
        gathered[folder.name] = {"input": name} | record
    return gathered


def main() -> None:
    """Command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("folders", type=Path, nargs="+")
    arguments = parser.parse_args()
    arguments.out.write_text(json.dumps(gather(arguments.folders), indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
