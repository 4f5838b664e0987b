"""What is the case at the moment, asked of the running service whenever Prometheus asks."""

from collections.abc import Iterator

import torch
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from service.readiness import ailments
from service.registry.registry import Registry
from service.retention import Stats
from service.state import Service


def at_the_moment(service: Service) -> Iterator[Metric]:
    """Queues, memory, artifacts, kept pictures and readiness; nothing that the database must be asked for."""
    depth = GaugeMetricFamily(
        "jigsight_queue_depth", "Parts in hand, from the upload to the commit", labels=["category"]
    )
    for category, parts in service.engine.in_hand().items():
        depth.add_metric([category], parts)
    yield depth
    yield _device_memory(service.device)
    yield from _artifacts(service.registry)
    yield from _pictures(service.retention.stats)
    ready = float(not ailments(service))
    yield GaugeMetricFamily("jigsight_ready", "Whether parts can be judged, but for the database", value=ready)


def _device_memory(device: torch.device) -> Metric:
    """What PyTorch holds on a CUDA device; nothing on others."""
    memory = GaugeMetricFamily("jigsight_device_memory_bytes", "Memory on the device", labels=["kind"])
    if device.type == "cuda":
        memory.add_metric(["allocated"], torch.cuda.memory_allocated(device))
        memory.add_metric(["reserved"], torch.cuda.memory_reserved(device))
    return memory


def _artifacts(registry: Registry) -> Iterator[Metric]:
    told = GaugeMetricFamily(
        "jigsight_artifact_info",
        "The artifacts with a sound file, and those that judge",
        labels=["category", "version", "arch", "active"],
    )
    for entry in registry.entries.values():
        for version, manifest in {**entry.versions, entry.version: entry.manifest}.items():
            arch = "" if manifest is None else manifest.detector.arch
            active = "true" if version == entry.version else "false"
            told.add_metric([entry.category, version, arch, active], 1)
    yield told
    found = registry.snapshot()
    yield GaugeMetricFamily("jigsight_loaded_artifacts", "Artifacts in memory", value=len(found.loaded))
    yield GaugeMetricFamily("jigsight_loaded_bytes", "What they take there", value=found.bytes)


def _pictures(stats: Stats) -> Iterator[Metric]:
    yield GaugeMetricFamily("jigsight_pictures_bytes", "Kept pictures, at the last retention run", value=stats.bytes)
    yield CounterMetricFamily("jigsight_retention_removed", "Kept pictures that were removed", value=stats.removed)
