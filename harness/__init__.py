"""Quantboard's runner: suites in, records and pages out."""

from __future__ import annotations
