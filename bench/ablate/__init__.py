"""Ablation: a workload in containers that differ by known features, in the designs of bench/design.py."""
