"""From the rate of false alarms that a user wants to the thresholds of a model."""

from collections.abc import Sequence

from pipeline.bundle.card import HeadSection
from pipeline.bundle.false_alarms import RATES
from pipeline.errors import UserError
from pipeline.tasks import get_decoder


def thresholds_of(
    model: str, heads: Sequence[HeadSection], fpr: float | None = None
) -> tuple[dict[str, dict[str, float]], tuple[str, ...]]:
    """Task -> kind of place -> threshold, for the heads that flag by a rate; and what is to be known of them.

    Parameters
    ----------
    model : str
        Its name, for messages.
    heads : sequence of HeadSection
    fpr : float, optional
        Rate of the first kind of place of each task that promises rates; the others' are in proportion. By default
        those of the task.

    Raises
    ------
    UserError
        If `fpr` is given, and there is no head for it, or a card's table does not reach it.
    """
    guarded = {head.task: get_decoder(head.task) for head in heads if get_decoder(head.task).rates}
    flagging = [head for head in heads if head.task in guarded and not guarded[head.task].decodes_by_rate]
    if fpr is not None and not flagging:
        tasks = ", ".join(head.task for head in heads)
        raise UserError(f"a false-alarm rate is for models with a head defects, and {model} has {tasks}; leave it out")
    thresholds, warnings = {}, []
    for head in heads:  # what replaces pixels promises no rate: it is as strict as its validation allows
        if head.task in guarded and head not in flagging and head.false_alarms is not None:
            table, decoder = head.false_alarms, guarded[head.task]
            thresholds[head.task], _ = table.thresholds(decoder.rates)
            for name, (like, rate) in decoder.stand_ins.items():
                thresholds[head.task][name] = table.thresholds({like: rate})[0][like]
    for head in flagging:
        rates = dict(get_decoder(head.task).rates)
        scale = 1.0 if fpr is None else fpr / next(iter(rates.values()))
        rates = {name: rate * scale for name, rate in rates.items()}
        if head.false_alarms is None:
            if fpr is not None:
                raise UserError(f"the card of {model} has no table of false-alarm rates; leave the rate out")
            warnings.append(
                f"the card of {model} has no table of false-alarm rates: pixels are flagged that are more likely "
                "spoiled than not"
            )
            continue
        thresholds[head.task], untold = head.false_alarms.thresholds(rates)
        if not untold:
            continue
        name, lowest = next(iter(untold.items()))
        stratum = head.false_alarms.strata.get(name)
        n_good = stratum.n_good if stratum else 0
        what = f"a false-alarm rate of {rates[name]:g} on good pixels of the kind {name}"
        seen = f"{model} was validated on {n_good:,} of these"
        if fpr is not None:
            reach = f"enough for {lowest:g} to {RATES[0]:g}" if lowest <= RATES[0] else "too few for any rate"
            raise UserError(f"{what} cannot be promised: {seen}, {reach}; give another rate, or none")
        warnings.append(f"{what} cannot be promised: {seen}, and the rate there may be higher")
    return thresholds, tuple(warnings)
