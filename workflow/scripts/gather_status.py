"""Gather the `status.json` of many ingested files into one file, by the name of each file."""

import argparse
import json
from pathlib import Path


def gather(receipts: list[Path]) -> dict[str, dict]:
    """Status record of each folder's one input file, with the input's file name under ``input``.

    Parameters
    ----------
    receipts : list of path
        Of the jobs that made the folders (many.py).
    """
    gathered = {}
    for receipt in receipts:
        for name, (folder,) in json.loads(receipt.read_text()).items():
            ((file_name, record),) = json.loads((Path(folder) / "status.json").read_text()).items()
            gathered[name] = {"input": file_name} | record
    return gathered


def main() -> None:
    """Command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("receipts", type=Path, nargs="+")
    arguments = parser.parse_args()
    arguments.out.write_text(json.dumps(gather(arguments.receipts), indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
