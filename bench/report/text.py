"""Numbers as a reader wants them: enough digits, thin thousands, units said once."""

from __future__ import annotations

import math

MINUS = "−"


def significant(value: float, digits: int = 3) -> str:
    """``value`` to about ``digits`` significant digits, never in exponents: 0.412, 7.92, 1,214."""
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{min(decimals, 6)}f}"
    return text.replace("-", MINUS)


def percent(share: float, decimals: int = 2) -> str:
    """A share as percent without the sign: 0.89424 → 89.42."""
    return f"{100 * share:.{decimals}f}"


def points(difference: float, decimals: int = 2) -> str:
    """A difference of shares in percentage points, always signed: +0.07, −0.31, 0.00."""
    text = f"{100 * difference:+.{decimals}f}"
    if float(text) == 0:
        return text[1:]
    return text.replace("-", MINUS)


def megabytes(count: float) -> str:
    """Bytes in MB (10^6), without the unit."""
    size = count / 1e6
    return f"{size:,.0f}" if size >= 100 else significant(size)


def bytes_with_unit(count: float) -> str:
    """Bytes with the unit that keeps the number short."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{significant(count / factor)} {unit}"
    return f"{count:,.0f} B"


def milliseconds(value: float) -> str:
    """Milliseconds without the unit."""
    return significant(value)


def times(ratio: float) -> str:
    """A ratio, e.g. 3.69 or 0.95; two decimals near 1, where they matter."""
    return f"{ratio:.2f}" if ratio < 10 else significant(ratio)


def duration(seconds: float) -> str:
    """Seconds in the unit that keeps the number short: 48.0 s, 30.6 min, 2.08 h."""
    for unit, factor in (("h", 3600), ("min", 60)):
        if seconds >= factor:
            return f"{significant(seconds / factor)} {unit}"
    return f"{significant(seconds)} s"


def span(low: str, high: str) -> str:
    """An interval in words that wrap nowhere: 89.35 to 89.88 as 89.35–89.88."""
    joiner = " … " if MINUS in low + high or "+" in low + high else "–"
    return f"{low}{joiner}{high}"


def p_value(p: float) -> str:
    """p as it is reported: p = 0.031, p < 0.001."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def scientific(value: float) -> str:
    """Small differences: 4.1e-06 as 4.1×10⁻⁶, 0.412 as it is."""
    if value == 0 or abs(value) >= 0.01:
        return significant(value)
    mantissa, exponent = f"{value:.1e}".split("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa}×10{raised}"


def plural(count: int, noun: str, ending: str = "s") -> str:
    """1 row, 2,000 rows."""
    return f"{count:,} {noun}{'' if count == 1 else ending}"


def listed(items: list[str]) -> str:
    """a; a and b; a, b and c."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def tick(value: float) -> str:
    """A round number on an axis: 0.5, 2, 1,500."""
    return f"{value:,.6f}".rstrip("0").rstrip(".")
