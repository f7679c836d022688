"""The published checkpoints by name."""

from difflib import get_close_matches

from vs_vsr.errors import WeightsError
from vs_vsr.weights.rows import ROWS, Row

__all__ = ["ROWS", "Row", "lookup", "named_model", "rows_of", "subject"]


def subject(model: str | None) -> str:
    """How a sentence about weights begins: with the filter's name, where there is a filter."""
    return f"{model}: weights" if model else "weights"


def rows_of(model: str | None = None) -> list[Row]:
    """The rows of one network; all of them by default.

    Args:
        model: As in `Row.model`, in any case, or as its paper has it ("BasicVSR++").

    Raises:
        WeightsError: There is no such network.
    """
    if model is None:
        return list(ROWS)
    wanted = _plain(model)
    rows = [row for row in ROWS if row.model.lower() == wanted]
    if not rows:
        models = dict.fromkeys(row.model for row in ROWS)
        raise WeightsError(
            f'weights: the network must be one of {", ".join(models)}, got "{model}". '
            "Choose one of these."
        )
    return rows


def named_model(name: str) -> str | None:
    """The network that "MODEL/NAME" or "MODEL" names; None where it names none."""
    wanted = _plain(name.partition("/")[0])
    return next((row.model for row in ROWS if row.model.lower() == wanted), None)


def lookup(name: str, model: str | None = None) -> Row:
    """The row called `name`.

    Args:
        name: As in `Row.name` or `Row.full_name`, in any case.
        model: The network it must be for; None looks through all, and a name that BasicVSR has
            means BasicVSR's, as it did when there was no other network.

    Raises:
        WeightsError: There is none, or several other networks have one of that name.
    """
    own = named_model(name)
    if None not in (own, model) and own != model:
        own_names = ", ".join(row.name for row in rows_of(model))
        raise WeightsError(
            f'{model}: weights must be of {model}, got "{name}". Choose one of {own_names}.'
        )
    network = model or own
    rows = rows_of(network)
    if own and "/" not in name:
        choice = ", ".join(row.name if model else row.full_name for row in rows)
        raise WeightsError(
            f'{subject(model)} must be a file or a published name, got "{name}", which is a '
            f"network. Choose one of {choice}."
        )
    wanted = (name.partition("/")[2] if own else name).lower()
    found = [row for row in rows if row.name == wanted]
    found = [row for row in found if row.model == "BasicVSR"] or found
    if len(found) == 1:
        return found[0]
    if found:
        full_names = ", ".join(row.full_name for row in found)
        raise WeightsError(
            f'weights must be of one network, got "{name}", which may be {full_names}. '
            "Name one of these."
        )
    if network is None:
        raise _unknown(name, rows)
    names = [row.name for row in rows]
    close = get_close_matches(wanted, names, n=2, cutoff=0.4)
    what_now = f"Did you mean {' or '.join(close)}?" if close else "Choose one of these."
    raise WeightsError(
        f'{network}: weights must be a file or one of {", ".join(names)}, got "{name}". {what_now}'
    )


def _unknown(name: str, rows: list[Row]) -> WeightsError:
    """What to say of a name that no network has; all of them are too many to list."""
    by_key: dict[str, list[str]] = {}
    for row in rows:
        key = row.full_name.lower() if "/" in name else row.name
        by_key.setdefault(key, []).append(row.full_name)
    close = get_close_matches(name.lower(), by_key, n=2, cutoff=0.4)
    near = [full_name for key in close for full_name in by_key[key]]
    what_now = f"Did you mean {' or '.join(near)}?" if near else "Run vs-vsr weights list for all."
    return WeightsError(f'weights must be a file or a published name, got "{name}". {what_now}')


def _plain(model: str) -> str:
    return model.lower().replace("+", "p")
