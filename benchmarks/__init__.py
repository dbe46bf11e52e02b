"""Measurements against other libraries; `python -m benchmarks.curvature --help` says what and how."""
