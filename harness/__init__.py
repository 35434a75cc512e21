"""Quantboard's runner: suites in, records and pages out."""
