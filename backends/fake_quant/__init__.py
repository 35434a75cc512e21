"""Calibration, and simulation of integer arithmetic in floating point. The modules import torch."""
