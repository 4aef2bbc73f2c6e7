"""The five published benchmark tables: what is known of them, and the prepared folders."""

from sparseflows.data.benchmarks.facts import ARCHIVE_URL, BENCHMARKS, PARTS, Benchmark

__all__ = ["ARCHIVE_URL", "BENCHMARKS", "PARTS", "Benchmark"]
