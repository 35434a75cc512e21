"""Recompute every committed figure with NumPy, SciPy, scikit-learn and statsmodels alone.

    python -m tests.recompute results/ [README.md]

Nothing else of this project is imported: what is compared was written from docs/record.md and docs/method.md. The output is
one line a kind of figure: how many there are, how many differ, the largest difference and its bound. The exit status is 1 if
one differs.
"""
