"""Which variant of which phase fits into the seconds that are left."""

from collections.abc import Mapping, Sequence

from prophet_moe.collect.campaign.plan import Variant


def choose(phases: Mapping[str, Sequence[Variant]], seconds: float) -> dict[str, Variant]:
    """Choose a variant of as many phases as fit into `seconds`; those that do not fit are left out.

    Phases come in order of worth. First each gets its shortest variant while time lasts, so that one long phase does
    not cost the others; then, again in order of worth, the longest variant for which there is time.

    Parameters
    ----------
    phases : mapping from str to sequence of Variant
        What may be run of each phase; none of the sequences is empty.
    seconds : float
        The time that is left.

    Returns
    -------
    dict from str to Variant
        The chosen variants, in the order of `phases`. Their seconds add up to `seconds` at most.
    """
    chosen = {}
    for name, variants in phases.items():
        shortest = min(variants, key=lambda variant: variant.seconds)
        if shortest.seconds <= seconds:
            chosen[name] = shortest
            seconds -= shortest.seconds
    for name, shortest in chosen.items():
        fitting = [variant for variant in phases[name] if variant.seconds - shortest.seconds <= seconds]
        chosen[name] = max(fitting, key=lambda variant: variant.seconds)
        seconds -= chosen[name].seconds - shortest.seconds
    return chosen
