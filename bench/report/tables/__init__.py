"""The tables of a report, as rows, CSV and LaTeX."""
