"""Write down which networks of a zoo are the best for a task, by their validation split."""

import argparse
import json
from pathlib import Path

from pipeline.reporting.zoo import best_of


def main() -> None:
    """Command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--best", type=int, required=True)
    parser.add_argument("bundles", type=Path, nargs="+", help="LABEL/run_0/bundle")
    arguments = parser.parse_args()
    cards = {bundle.parent.parent.name: bundle / "card.json" for bundle in arguments.bundles}
    known = {label: json.loads(card.read_text()) for label, card in cards.items() if card.is_file()}
    arguments.out.write_text(json.dumps(best_of(arguments.task, known, arguments.best)) + "\n")


if __name__ == "__main__":
    main()
