"""Benchmarks of the projection kernels."""
