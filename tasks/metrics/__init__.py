"""Official metrics. `answers` and `labels` hold plain functions that need only NumPy. `squad_v1` and `glue` wrap the same
functions as `evaluate.Metric` modules that load without the hub: `evaluate.load("tasks/metrics/squad_v1.py")`.
"""
