"""Quantizer choices, calibration, and simulation of integer arithmetic in floating point.

`schemes` is light and may be imported anywhere; the other modules import torch.
"""
