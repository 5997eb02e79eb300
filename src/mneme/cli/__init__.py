"""The command line: parse, call, print. The only place that imports mneme lazily."""
