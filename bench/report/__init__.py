"""The report: one page that needs nothing else, each chart as a file, each table as Markdown."""
