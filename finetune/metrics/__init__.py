"""Metrics with their intervals: classification and word error rate."""
