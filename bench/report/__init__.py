"""results.json → report.html, report.md, results.csv, plots/; imports no torch."""
