"""`MODEL_CARD.md`: what a bundle's card says, for human readers."""

from pipeline.bundle.calibration import Calibration
from pipeline.bundle.card import Card, EvaluationSection, Measured
from pipeline.bundle.false_alarms import RATES, FalseAlarms
from pipeline.bundle.variance import FrameVariance
from pipeline.inputs.population import Population


def card_markdown(card: Card) -> str:
    """The card for human readers."""
    return (
        "\n".join(
            [
                f"# {card.name}",
                "",
                f"Network {card.network}; task{'s' * (len(card.tasks) > 1)}: {', '.join(card.tasks)} ({card.wing}). "
                f"Bundle sha256: `{card.bundle_sha256}`.",
                "",
                *_purpose(card),
                *_network_and_input(card),
                *_output(card),
                *_training(card),
                *_evaluations(card),
                *_validation(card),
                *_limits(card),
                "## Licence and citation",
                "",
                f"{card.licence}. {card.citation}",
            ]
        ).rstrip()
        + "\n"
    )


def _network_and_input(card: Card) -> list[str]:
    model, given = card.model, card.input
    channels = ", ".join(f"{n} [{u or '-'}]" for n, u in zip(given.channels, given.units, strict=True))
    scalars = given.preparation.scalar_names
    cameras = [f"- {camera.name} ({camera.identity})" for camera in card.cameras]
    return [
        "## Network",
        "",
        f"`{model.name}` with {model.kwargs or 'its default arguments'}, {model.n_parameters:,} parameters.",
        "",
        "## Input",
        "",
        f"Tiles of {given.tile_shape[0]} x {given.tile_shape[1]} px, channels {channels}.",
        *(["Each pixel's place along the image's long axis and beside it [deg]."] if _tells_places(card) else []),
        *([f"{_scalars_are(card)}: {', '.join(scalars)}."] if scalars else []),
        *(["", "Cameras served:", "", *cameras] if cameras else []),
        "",
        *_population(getattr(given.preparation, "population", None), "image" if cameras else "frame"),
        *(line for own in _of_cameras(card) for line in _population(own, "image")),
    ]


def _scalars_are(card: Card) -> str:
    return "Conditions of an image" if card.generates else "Scalars joined to the image features"


def _tells_places(card: Card) -> bool:
    preparation = card.input.preparation
    return card.wing == "camera" and preparation.n_channels > len(preparation.raw_channels)


def _of_cameras(card: Card) -> list[Population | None]:
    """Of a network for events: what the images of each camera were like."""
    return [given.population for given in getattr(card.input.preparation, "cameras", {}).values()]


def _population(population: Population | None, what: str) -> list[str]:
    if population is None:
        return []
    return [
        f"What {population.n_frames} training {what}s were like (1st to 99th percentile); prediction gives the "
        f"distance of each {what} from them, and names what is unlike them:",
        "",
        *(f"- {trained}" for trained in population.ranges),
        "",
    ]


def _output(card: Card) -> list[str]:
    lines = ["## Output", ""]
    for head in card.heads:
        lines += [
            f"{head.transform}",
            "",
            *(["| column | unit | meaning |", "| --- | --- | --- |"] if head.columns else []),
            *(f"| `{c.name}` | {c.unit or '-'} | {c.description} |" for c in head.columns),
            *([""] if head.columns else []),
            *_calibration(head.calibration),
            *_false_alarms(head.false_alarms),
            *_variance(head.variance),
        ]
    return lines


def _calibration(calibration: Calibration | None) -> list[str]:
    if calibration is None:
        return []
    factors = ", ".join(f"{factor:g}" for factor in calibration.factors)
    edges = f", in bins of {calibration.column} with the inner edges {', '.join(f'{e:g}' for e in calibration.edges)}"
    return [
        f"Uncertainties are multiplied by {factors}{edges if calibration.edges else ''}: the width of the pulls on the "
        "validation split.",
        "",
    ]


def _false_alarms(table: FalseAlarms | None) -> list[str]:
    if table is None:
        return []
    rates = [rate for rate in RATES if any(rate >= stratum.lowest for stratum in table.strata.values())]
    rows = [
        (name, f"{stratum.n_good:,}", *(f"{t:g}" for t in stratum.thresholds), *[""] * len(rates))
        for name, stratum in table.strata.items()
    ]
    return [
        "Score from which this share of the good pixels of the validation split is flagged:",
        "",
        f"| place | good pixels | {' | '.join(f'{rate:g}' for rate in rates)} |",
        "| --- | --- |" + " --- |" * len(rates),
        *(f"| {' | '.join(row[: 2 + len(rates)])} |" for row in rows),
        "",
    ]


def _variance(variance: FrameVariance | None) -> list[str]:
    if variance is None:
        return []
    rows = [
        (name, f"{p.n:,}", f"{p.median:+.2f}", f"{p.width:.2f}", f"{p.beyond_3:.2%}")
        for name, p in variance.pulls.items()
    ]
    sums = ", ".join(
        f"{value:.3g} (windows of {size} x {size} px of empty sky)" for size, value in variance.correlations.items()
    )
    return [
        "Uncertainties of pixels are multiplied by a factor that depends on the kind of pixel, the uncertainty and the "
        "light. Pulls on the validation split:",
        "",
        "| pixels | n | median | width | beyond 3 |",
        "| --- | --- | --- | --- | --- |",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        *(
            [f"Errors of neighbours go together: sums vary by {sums} times that of independent ones.", ""]
            if sums
            else []
        ),
    ]


def _training(card: Card) -> list[str]:
    training = card.training
    data = [
        f"- {m.name} (sha256 {m.sha256[:16]}): "
        + "; ".join(f"{split} {sum(counts.values())}" for split, counts in m.counts.items())
        for m in training.manifests
    ]
    return [
        "## Training",
        "",
        *(f"Started from the weights of {o.name} (sha256 {o.sha256[:16]}).\n" for o in training.origins),
        f"{training.n_images:,} images, {training.epochs} epochs (the weights are those of epoch "
        f"{training.best_epoch}), seed {training.seed}, {training.device} in {training.precision}, "
        f"{training.wall_time_s:.0f} s.",
        "",
        *data,
        "",
    ]


def _evaluations(card: Card) -> list[str]:
    if not card.evaluations:
        return []
    lines = [
        "## Test",
        "",
        "Measured by `lightpool evaluate` on the test split, with 95 % limits over showers or fields.",
        "",
    ]
    for found in card.evaluations:
        lines += [
            f"{found.task}, {found.n:,} items of {found.n_groups:,} showers or fields of {', '.join(found.manifests)}:",
            "",
            f"| metric | network | {' | '.join(f'{name} | network − {name}' for name in found.baselines)} |",
            "| --- | --- |" + " --- | --- |" * len(found.baselines),
            *(_metric_row(found, name) for name in found.metrics),
            "",
        ]
        if found.pull_width is not None:
            lines += [
                f"Pulls of the stated uncertainties have the median {found.pull_median or 0:+.2f} and the width "
                f"{found.pull_width:.2f} (1 is right).",
                "",
            ]
    return lines


def _metric_row(found: EvaluationSection, name: str) -> str:
    cells = [name, _with_limits(found.metrics[name])]
    for baseline, values in found.baselines.items():
        other, difference = values.get(name), found.differences.get(baseline, {}).get(name)
        cells += [_number(other and other.value), _with_limits(difference, sign="+")]
    return f"| {' | '.join(cells)} |"


def _with_limits(measured: Measured | None, sign: str = "") -> str:
    if measured is None or measured.value is None:
        return "–"
    value = _number(measured.value, sign)
    if measured.low is None or measured.high is None:
        return value
    return f"{value} ({_number(measured.low, sign)} to {_number(measured.high, sign)})"


def _number(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.3g}"


def _purpose(card: Card) -> list[str]:
    return ["## What it is for", "", card.purpose, ""] if card.purpose else []


def _validation(card: Card) -> list[str]:
    elsewhere = "" if card.evaluations else "; test results come from `lightpool evaluate`"
    return [
        "## Validation",
        "",
        f"On the split that chose the best epoch{elsewhere}.",
        "",
        "| metric | value |",
        "| --- | --- |",
        *(f"| {n} | {'not defined' if v is None else f'{v:.4g}'} |" for n, v in card.validation.items()),
        "",
    ]


def _limits(card: Card) -> list[str]:
    lines = ["## Limits", "", *(f"- {limit}" for limit in card.limits), ""]
    if card.failures:
        lines += ["## Known failures", "", *(f"- {failure}" for failure in card.failures), ""]
    return lines
