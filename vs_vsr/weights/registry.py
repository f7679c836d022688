"""The published checkpoints by name."""

from difflib import get_close_matches

from vs_vsr.errors import WeightsError
from vs_vsr.weights.rows import ROWS, Row

__all__ = ["lookup", "named_filter", "rows_of", "subject"]


def subject(filter_name: str | None) -> str:
    """How a message about weights begins: with the filter's name, if there is a filter."""
    return f"{filter_name}: weights" if filter_name else "weights"


def rows_of(filter_name: str | None = None) -> list[Row]:
    """The rows of one filter; all of them by default.

    Args:
        filter_name: As in `Row.filter`, in any case, or as in its paper ("BasicVSR++").

    Raises:
        WeightsError: There is no such filter.
    """
    if filter_name is None:
        return list(ROWS)
    wanted = _plain(filter_name)
    rows = [row for row in ROWS if row.filter.lower() == wanted]
    if not rows:
        names = dict.fromkeys(row.filter for row in ROWS)
        raise WeightsError(
            f'weights: filter must be one of {", ".join(names)}, got "{filter_name}". '
            "Choose one of these."
        )
    return rows


def named_filter(name: str) -> str | None:
    """The filter that "FILTER/NAME" or "FILTER" names; None if it names none."""
    wanted = _plain(name.partition("/")[0])
    return next((row.filter for row in ROWS if row.filter.lower() == wanted), None)


def lookup(name: str, filter_name: str | None = None) -> Row:
    """The row called `name`.

    Args:
        name: As in `Row.name` or `Row.full_name`, in any case.
        filter_name: The filter it must be for; None searches all filters, and a name that BasicVSR
            has means BasicVSR's, as it did when there was no other filter.

    Raises:
        WeightsError: No row has that name, or several other filters have one.
    """
    named = named_filter(name)
    if None not in (named, filter_name) and named != filter_name:
        names = ", ".join(row.name for row in rows_of(filter_name))
        raise WeightsError(
            f'{filter_name}: weights must be for {filter_name}, got "{name}". '
            f"Choose one of {names}."
        )
    rows = rows_of(filter_name or named)
    if named and "/" not in name:
        choice = ", ".join(row.name if filter_name else row.full_name for row in rows)
        raise WeightsError(
            f'{subject(filter_name)} must be a file or a published name, got "{name}", which is a '
            f"filter. Choose one of {choice}."
        )
    wanted = (name.partition("/")[2] if named else name).lower()
    found = [row for row in rows if row.name == wanted]
    found = [row for row in found if row.filter == "BasicVSR"] or found
    if len(found) == 1:
        return found[0]
    if found:
        full_names = ", ".join(row.full_name for row in found)
        raise WeightsError(
            f'weights must name one file, got "{name}", which may be {full_names}. '
            "Choose one of these."
        )
    if not (filter_name or named):
        raise _unknown(name, rows)
    names = ", ".join(row.name for row in rows)
    close = get_close_matches(wanted, [row.name for row in rows], n=2, cutoff=0.4)
    hint = f"Did you mean {' or '.join(close)}?" if close else "Choose one of these."
    raise WeightsError(
        f'{filter_name or named}: weights must be a file or one of {names}, got "{name}". {hint}'
    )


def _unknown(name: str, rows: list[Row]) -> WeightsError:
    """The error for a name that no filter has; there are too many names to list them all."""
    by_key: dict[str, list[str]] = {}
    for row in rows:
        key = row.full_name.lower() if "/" in name else row.name
        by_key.setdefault(key, []).append(row.full_name)
    close = get_close_matches(name.lower(), by_key, n=2, cutoff=0.4)
    near = [full_name for key in close for full_name in by_key[key]]
    hint = f"Did you mean {' or '.join(near)}?" if near else "Run vs-vsr weights list to see all."
    return WeightsError(f'weights must be a file or a published name, got "{name}". {hint}')


def _plain(filter_name: str) -> str:
    return filter_name.lower().replace("+", "p")
