"""What Prometheus is told. One registry for each application: nothing is counted in global variables.

Names and labels are part of the service's interface (docs/metrics.md); the labels' values are few by construction.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from service.storage.inspections import Record

Stage = Literal["queue", "decode", "inference", "store", "total"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0, 10.0)


class Metrics:
    """Counts and times, as they happen."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._requests = Counter(
            "jigsight_requests", "HTTP requests answered", ["method", "route", "status"], registry=self._registry
        )
        self._verdicts = Counter(
            "jigsight_verdicts", "Parts judged", ["category", "version", "verdict"], registry=self._registry
        )
        self._refused = Counter(
            "jigsight_refused", "Requests answered with a problem", ["reason"], registry=self._registry
        )
        self._stages = Histogram(
            "jigsight_stage_seconds",
            "Time a part spends in each stage; total is from the first byte to the commit",
            ["stage"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._batches = Histogram(
            "jigsight_batch_size", "Pictures in a forward pass", buckets=_BATCHES, registry=self._registry
        )
        self._ratios = Histogram(
            "jigsight_score_ratio",
            "Score divided by threshold: above 1 fails",
            ["category"],
            buckets=_RATIOS,
            registry=self._registry,
        )

    def request(self, method: str, route: str, status: int) -> None:
        """An answered request; `route` is its template, not its path."""
        self._requests.labels(method, route, str(status)).inc()

    def refused(self, reason: str) -> None:
        """A request that was answered with a problem of this kind."""
        self._refused.labels(reason).inc()

    def stage(self, stage: Stage, seconds: float) -> None:
        """A part has passed a stage."""
        self._stages.labels(stage).observe(seconds)

    def batch(self, size: int) -> None:
        """A batch has been run."""
        self._batches.observe(size)

    def judged(self, record: Record) -> None:
        """A verdict has been committed."""
        self._verdicts.labels(record.category, record.version, record.verdict).inc()
        for stage in ("decode", "queue", "inference"):
            self.stage(stage, record.durations[f"{stage}_ms"] / 1000)
        if record.threshold > 0:
            self._ratios.labels(record.category).observe(record.score / record.threshold)

    def watch(self, look: Callable[[], Iterable[Metric]]) -> None:
        """Ask `look` for what is the case at the moment, whenever somebody asks."""
        self._registry.register(_Looking(look))

    def text(self) -> bytes:
        """Everything, in Prometheus's text format."""
        return generate_latest(self._registry)


class _Looking(Collector):
    def __init__(self, look: Callable[[], Iterable[Metric]]) -> None:
        self._look = look

    def collect(self) -> Iterator[Metric]:
        yield from self._look()

    def describe(self) -> list[Metric]:
        return []  # or it would be asked before the service has begun
